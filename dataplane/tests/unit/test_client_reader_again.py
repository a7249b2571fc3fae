"""A reader whose iteration was broken off is iterated again: it goes on exactly behind that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from walplane.client.reader import Reader
from walplane.message.txn_view import AnyBatch
from walplane.message.view import ImmutableMessage
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.txns import begin, body, client_reader, creates, end, read_batches, shape
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import V, World, entry
from walplane.wal.config import WALConfig
from walplane.wal.scan.request import ScanStart, StartKind
from walplane.wal.wal import WAL

_Item = TypeVar("_Item")

QUIET = WALConfig(idle_tick_s=30)
CREATED = 3  # CreateCollections at the head of the log


@pytest.fixture
async def log(world: World) -> WAL:
    """Entries of one and of several messages, and transactions over them."""
    wal = await world.open(1, QUIET)
    await wal.append(entry(b"a"))
    early = await begin(wal, V)
    await body(wal, early, b"early 1", b"early 2")
    await wal.append(entry(b"b1", b"b2", b"b3"))
    late = await begin(wal, V)
    await body(wal, late, b"late 1")
    await end(wal, early)
    await wal.append(entry(b"c1", b"c2"))
    await body(wal, late, b"late 2")
    await end(wal, late)
    await wal.append(entry(b"d"))
    return wal


async def some_batches(reader: Reader, most: int) -> list[AnyBatch]:
    """The next batches, of an iteration that is broken off."""
    got: list[AnyBatch] = []
    async for batch in reader.batches():
        got.append(batch)
        if len(got) == most:
            break
    return got


async def some_messages(reader: Reader, most: int) -> list[bytes]:
    """The payloads of the next messages, of an iteration that is broken off."""
    got: list[bytes] = []
    async for message in reader:
        got.append(message.payload)
        if len(got) == most:
            break
    return got


async def in_pieces(
    log: WAL, some: Callable[[Reader, int], Awaitable[list[_Item]]], most: int
) -> list[_Item]:
    """All that one reader gives to iterations of which each is broken off."""
    got: list[_Item] = []
    async with client_reader(log, follow=False) as reader, asyncio.timeout(10):
        while more := await some(reader, most):
            got += more
    return got


@pytest.mark.parametrize("most", range(1, 9))
async def test_batches_go_on_behind_the_last_one(log: WAL, most: int) -> None:
    got = await in_pieces(log, some_batches, most)
    expected = await read_batches(log)
    assert shape(batch for batch in got if not creates(batch)) == shape(expected)


@pytest.mark.parametrize("most", range(1, 9))
async def test_messages_go_on_behind_the_last_one_also_within_a_batch(log: WAL, most: int) -> None:
    got = await in_pieces(log, some_messages, most)
    expected = [payload for batch in await read_batches(log) for payload in batch.payloads]
    assert [payload for payload in got if payload] == expected


async def test_a_token_still_means_all_that_is_handed_out(log: WAL) -> None:
    async with client_reader(log, follow=False) as reader:
        got = await some_messages(reader, CREATED + 3)
        assert got[-1] == b"b2"
        token = reader.token
        rest = await some_messages(reader, 2)
        assert rest == [b"b3", b"early 1"]
    behind = shape(await read_batches(log, token))
    assert behind[0] == [b"early 1", b"early 2"]


async def test_a_batch_that_nobody_took_comes_again_also_to_a_read_from_the_end(log: WAL) -> None:
    latest = ScanStart(StartKind.LATEST)
    async with client_reader(log, start=latest) as reader, asyncio.timeout(10):
        first = asyncio.create_task(some_batches(reader, 1))
        await until(lambda: reader.token is not None)
        await log.append(entry(b"e"))
        [batch] = await first
        reader._give_back(batch)
        assert shape(await some_batches(reader, 1)) == [b"e"]


async def test_one_that_was_broken_off_takes_nothing_from_the_next(log: WAL) -> None:
    async with client_reader(log, follow=False) as reader, asyncio.timeout(10):
        first = reader.batches()
        await anext(first)
        second = reader.batches()
        got = [await anext(second)]
        with pytest.raises(WalError, match="iterated twice at once") as error:
            await anext(first)
        assert error.value.code is ErrorCode.INVALID_ARGUMENT
        got += [batch async for batch in second]
    assert shape(got)[CREATED - 1 :] == shape(await read_batches(log))


async def test_messages_that_were_broken_off_take_none_from_the_next(log: WAL) -> None:
    async with client_reader(log, follow=False) as reader, asyncio.timeout(10):
        first, second = (aiter(reader) for _ in range(2))
        got: list[ImmutableMessage] = [await anext(first) for _ in range(CREATED + 2)]
        assert got[-1].payload == b"b1"
        got = [await anext(second)]
        with pytest.raises(WalError, match="iterated twice at once"):
            await anext(first)
        got += [message async for message in second]
    expected = [payload for batch in await read_batches(log) for payload in batch.payloads]
    assert [message.payload for message in got] == expected[2:]


async def test_a_second_iteration_beside_one_under_way_is_refused(log: WAL) -> None:
    got: list[AnyBatch] = []

    async def follow(reader: Reader) -> None:
        async for batch in reader.batches():
            got.extend([batch])

    async with client_reader(log) as reader, asyncio.timeout(10):
        reading = asyncio.create_task(follow(reader))
        await until(lambda: len(got) == CREATED + 6)
        for second in (reader.batches(), aiter(reader)):
            with pytest.raises(WalError, match="iterated twice at once"):
                await anext(second)
        await log.append(entry(b"e"))
        await until(lambda: shape(got)[-1] == b"e")
    await reading
