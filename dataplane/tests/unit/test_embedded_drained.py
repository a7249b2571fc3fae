"""What a cluster took is closed within a bound, however the block ended."""

from __future__ import annotations

import asyncio

import pytest

from walplane.embedded.cluster import drained
from walplane.rpc.errors import ErrorCode, WalError


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("walplane.embedded.cluster.DRAIN_TIMEOUT_S", 0.05)


async def _hang() -> None:
    await asyncio.get_running_loop().create_future()


async def _fail() -> None:
    raise WalError(ErrorCode.INNER, "the backend went away")


async def test_a_close_that_hangs_is_given_up_and_told() -> None:
    with pytest.raises(WalError, match="not drained within") as told:
        async with asyncio.timeout(30), drained() as taken:
            taken.push_async_callback(_hang)
    assert told.value.code is ErrorCode.INNER


async def test_it_is_given_up_as_well_behind_a_block_that_failed() -> None:
    with pytest.raises(ValueError, match="the program's own") as told:
        async with asyncio.timeout(30), drained() as taken:
            taken.push_async_callback(_hang)
            raise ValueError("the program's own")
    assert "not drained within" in str(told.value.__cause__)


async def test_it_is_given_up_as_well_behind_a_block_that_was_cancelled() -> None:
    inside = asyncio.Event()

    async def block() -> None:
        async with drained() as taken:
            taken.push_async_callback(_hang)
            inside.set()
            await _hang()

    running = asyncio.create_task(block())
    await inside.wait()
    running.cancel()
    await asyncio.wait([running], timeout=30)
    assert running.cancelled()


async def test_the_first_error_is_what_is_raised() -> None:
    with pytest.raises(ValueError, match="the program's own") as told:
        async with drained() as taken:
            taken.push_async_callback(_fail)
            raise ValueError("the program's own")
    assert "the backend went away" in str(told.value.__cause__)


async def test_the_rest_is_closed_behind_what_hangs() -> None:
    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    with pytest.raises(WalError):
        async with drained() as taken:
            taken.push_async_callback(close)
            taken.push_async_callback(_hang)
    assert closed.is_set()
