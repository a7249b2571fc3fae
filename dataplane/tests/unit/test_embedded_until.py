"""A block that ends when something else does, whoever else wants to end it."""

from __future__ import annotations

import asyncio

import pytest

from walplane.embedded.until import Until
from walplane.rpc.errors import ErrorCode, WalError

REASON = WalError(ErrorCode.CHANNEL_FENCED, "another one took it over")


@pytest.fixture
async def ended() -> asyncio.Future[WalError]:
    return asyncio.get_running_loop().create_future()


def requests() -> int:
    """How often somebody wants the current task cancelled."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_a_block_that_waits_is_cancelled_and_tells_why(
    ended: asyncio.Future[WalError],
) -> None:
    asyncio.get_running_loop().call_soon(ended.set_result, REASON)
    with pytest.raises(WalError) as raised:
        async with Until(ended):
            await asyncio.Event().wait()
    assert raised.value is REASON
    assert not requests()
    async with asyncio.timeout(5):  # works as ever
        await asyncio.sleep(0)


async def test_what_has_ended_before_ends_the_block_where_it_waits_first(
    ended: asyncio.Future[WalError],
) -> None:
    ended.set_result(REASON)
    with pytest.raises(WalError, match="took it over"):
        async with Until(ended):
            await asyncio.Event().wait()
    assert not requests()


async def test_a_block_left_in_the_turn_of_the_end_tells_why_and_cancels_nobody(
    ended: asyncio.Future[WalError],
) -> None:
    with pytest.raises(WalError, match="took it over"):
        async with Until(ended):
            ended.set_result(REASON)
    await asyncio.sleep(0)
    assert not requests()


async def test_a_block_that_swallows_the_cancellation_tells_why(
    ended: asyncio.Future[WalError],
) -> None:
    asyncio.get_running_loop().call_soon(ended.set_result, REASON)
    with pytest.raises(WalError, match="took it over"):
        async with Until(ended):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
    assert not requests()


async def test_a_block_that_fails_meanwhile_raises_its_own_error(
    ended: asyncio.Future[WalError],
) -> None:
    asyncio.get_running_loop().call_soon(ended.set_result, REASON)
    with pytest.raises(LookupError):
        async with Until(ended):
            try:
                await asyncio.Event().wait()
            finally:
                raise LookupError
    assert not requests()


@pytest.mark.parametrize("ends_too", [False, True])
async def test_who_cancels_the_task_cancels_it(
    ended: asyncio.Future[WalError], ends_too: bool
) -> None:
    async def block() -> None:
        async with Until(ended):
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await asyncio.sleep(0)
    task.cancel()
    if ends_too:  # in the same turn
        ended.set_result(REASON)
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_block_that_ends_first_is_left_alone(ended: asyncio.Future[WalError]) -> None:
    async with Until(ended):
        await asyncio.sleep(0)
    ended.set_result(REASON)
    await asyncio.sleep(0)
    assert not requests()
