"""Readers whose start lies above what the log has settled: nothing below is torn or passed over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from walplane.backends import memory
from walplane.client.discovery import Assignment
from walplane.client.local_transport import LocalTransport
from walplane.client.reader import Reader
from walplane.client.transport import ConsumeStream, Delivery
from walplane.message.registry import MessageType
from walplane.message.txn_view import AnyBatch
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.faulty import Fault
from walplane.testkit.txns import (
    OneLog,
    begin,
    body,
    client_reader,
    creates,
    end,
    shape,
    txn_entry,
)
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import CH, V, World, entry, payloads_of
from walplane.wal.config import WALConfig
from walplane.wal.ports import AppendResult
from walplane.wal.scan.request import Only, ScanRequest, ScanStart, StartKind
from walplane.wal.wal import WAL

QUIET = WALConfig(idle_tick_s=30)
"""The watermark moves with appends alone."""
_AHEAD_MS = 20


@asynccontextmanager
async def reading(reader: Reader) -> AsyncIterator[list[AnyBatch]]:
    """What `reader` gets while the body runs, CreateCollections apart."""
    got: list[AnyBatch] = []

    async def read() -> None:
        async for batch in reader.batches():
            got.extend(() if creates(batch) else (batch,))

    task = asyncio.create_task(read())
    try:
        yield got
    finally:
        await reader.close()
        await task


@pytest.mark.parametrize("kind", [StartKind.EARLIEST, StartKind.LATEST])
@pytest.mark.parametrize("begun", [False, True])
async def test_a_transaction_over_the_asked_tick_comes_whole(
    world: World, kind: StartKind, begun: bool
) -> None:
    """The wall clock gives a tick that the log reaches only later."""
    wal = await world.open(1, QUIET)
    await wal.append(entry(b"old"))
    asked = wal.watermark() + (_AHEAD_MS << 17)
    txn = await begin(wal, V) if begun else 0
    reader = client_reader(wal, start=ScanStart(kind), only=Only(from_tick=asked))
    async with reading(reader) as got:
        await until(lambda: bool(wal.meter.readers))
        txn = txn or await begin(wal, V)
        await body(wal, txn, b"early")
        await wal.append(entry(b"too early"))
        await world.skip_ticks(_AHEAD_MS)
        await body(wal, txn, b"late")
        commit = await end(wal, txn)
        assert txn < asked < commit.first_tick
        await until(lambda: bool(got))
        assert shape(got) == [[b"early", b"late"]]


async def test_what_was_cut_off_below_the_asked_tick_is_not_missed(world: World) -> None:
    wal = await world.open(1, QUIET)
    results = [await wal.append(entry(b"%d" % number)) for number in range(6)]
    wal = await world.open(2, QUIET)  # which has none of them in memory
    session = await world.backend.session()
    await session.truncate(CH, results[3].message_id.record)
    async with reading(client_reader(wal)) as got:
        await until(lambda: len(got) == 3)
    assert shape(got) == [b"3", b"4", b"5"]
    async with reading(client_reader(wal, only=Only(from_tick=results[4].first_tick))) as got:
        await until(lambda: len(got) == 2)
    assert shape(got) == [b"4", b"5"]


async def cut_off_before(world: World) -> tuple[WAL, list[AppendResult]]:
    """A log of which three messages are left: each names a LastConfirmed that is gone by now."""
    wal = await world.open(1, QUIET)
    txn = await begin(wal, V)
    results = [await wal.append(entry(b"%d" % number)) for number in range(6)]
    await end(wal, txn, MessageType.ROLLBACK_TXN)
    wal = await world.open(2, QUIET)  # which has none of them in memory
    session = await world.backend.session()
    await session.truncate(CH, results[3].message_id.record)
    return wal, results


@pytest.mark.parametrize("first", [None, 3])
async def test_a_log_that_was_cut_off_before_a_read_began_is_read_on_from_any_token(
    world: World, first: int | None
) -> None:
    wal, results = await cut_off_before(world)
    start = ScanStart(StartKind.EARLIEST)
    if first is not None:
        start = ScanStart(StartKind.FROM_ID, message_id=results[first].message_id)
    reader, got, tokens = client_reader(wal, start=start, follow=False), [], []
    async for batch in reader.batches():
        got.append(batch)
        tokens.append(reader.token)
    assert shape(got) == [b"3", b"4", b"5"]
    for number, token in enumerate(tokens):
        rest = client_reader(wal, token, follow=False)
        assert shape([batch async for batch in rest.batches()]) == [b"3", b"4", b"5"][number + 1 :]


async def test_a_slow_reader_of_a_log_that_was_cut_off_goes_on_where_it_let_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the backend up again, at what it has read: that names what is gone as well."""
    monkeypatch.setattr(memory, "_READ_RECORDS", 1)
    wal, _ = await cut_off_before(world)
    got: list[bytes] = []
    async with wal.scan(ScanRequest(ScanStart(StartKind.EARLIEST), V, follow=False)) as scanner:
        over = False
        while not over:
            batch = await scanner.next()
            got += payloads_of(list(batch.entries))
            over = batch.end
            await scanner.rest()
    assert got == [b"3", b"4", b"5", b""]  # the Rollback is the last


class Breaking(LocalTransport):
    """All streams of it break, and new ones wait, while it is down."""

    def __init__(self, wal: WAL) -> None:
        super().__init__(OneLog(wal))
        self.down = asyncio.Event()
        self.up = asyncio.Event()
        self.up.set()

    async def open_consume(self, assignment: Assignment, request: ScanRequest) -> ConsumeStream:
        await self.up.wait()
        return _Breakable(await super().open_consume(assignment, request), self.down)


class _Breakable:
    def __init__(self, inner: ConsumeStream, down: asyncio.Event) -> None:
        self._inner = inner
        self._down = down
        self.grant, self.close = inner.grant, inner.close

    async def receive(self) -> Delivery:
        receiving = asyncio.ensure_future(self._inner.receive())
        down = asyncio.ensure_future(self._down.wait())
        await asyncio.wait({receiving, down}, return_when=asyncio.FIRST_COMPLETED)
        down.cancel()
        if receiving.done():
            return receiving.result()
        receiving.cancel()
        raise WalError(ErrorCode.ON_SHUTDOWN, "it broke")


@pytest.mark.parametrize("bound", ["none", "from", "until"])
async def test_a_reader_of_the_latest_misses_nothing_over_a_break(world: World, bound: str) -> None:
    """It had nothing yet; what it had was its place."""
    wal = await world.open(1, QUIET)
    await wal.append(entry(b"old"))
    ahead = wal.watermark() + (_AHEAD_MS << 17)
    only = {
        "none": Only(),
        "from": Only(from_tick=ahead),
        "until": Only(until_tick=ahead << 1),
    }[bound]
    way = Breaking(wal)
    reader = client_reader(wal, start=ScanStart(StartKind.LATEST), only=only, transport=way)
    async with reading(reader) as got:
        await until(lambda: reader.token is not None)
        way.up.clear()
        way.down.set()
        await until(lambda: not wal.meter.readers)
        await world.skip_ticks(_AHEAD_MS)
        await wal.append(entry(b"meanwhile"))
        way.down.clear()
        way.up.set()
        await until(lambda: bool(got))
        await wal.append(entry(b"after"))
        await until(lambda: len(got) == 2)
        assert shape(got) == [b"meanwhile", b"after"]


@pytest.mark.parametrize("records", [1, 1024])
@pytest.mark.parametrize("unsettled", ["begin", "body"])
async def test_a_token_taken_while_a_log_reopens_tears_no_transaction(
    world: World, monkeypatch: pytest.MonkeyPatch, unsettled: str, records: int
) -> None:
    """A reader of the backend is ahead of a log that does not know yet what it had written."""
    wal = await world.open(1, QUIET)
    await wal.append(entry(b"old"))
    txn = 0
    if unsettled == "body":
        txn = await begin(wal, V)
        await wal.append(entry(b"x"))
    opened, kinds = _reopening_until_told(world)
    made = txn_entry(MessageType.INSERT, V, txn, b"early")
    if unsettled == "begin":
        made = txn_entry(MessageType.BEGIN_TXN, V, keepalive_ms=3_600_000)
    pending = asyncio.create_task(wal.append(made))
    await until(lambda: wal.state == "reopening" and not kinds)
    first = client_reader(wal)
    async with reading(first):
        await until(lambda: first.watermark > wal.watermark())
    token = first.token
    assert token is not None
    assert token.time_tick > wal.watermark()
    monkeypatch.setattr(memory, "_READ_RECORDS", records)
    async with reading(client_reader(wal, token)) as got:
        await until(lambda: bool(wal.meter.readers))
        opened.set()
        txn = txn or (await pending).first_tick
        await pending
        await body(wal, txn, b"late")
        await end(wal, txn)
        await wal.append(entry(b"after"))
        await until(lambda: len(got) == 2)
    whole = [b"late"] if unsettled == "begin" else [b"early", b"late"]
    assert shape(got) == [whole, b"after"]


def _reopening_until_told(world: World) -> tuple[asyncio.Event, list[Fault]]:
    """The next record's outcome is unknown, and what comes behind it is held until the event."""
    opened, kinds = asyncio.Event(), [Fault.FAIL_AFTER]

    async def held() -> None:
        await opened.wait()

    def fault(topic: str) -> Fault:
        if topic != CH or opened.is_set():
            world.backend.before_ack = None
            return Fault.NONE
        world.backend.before_ack = held
        return kinds.pop(0) if kinds else Fault.NONE

    world.backend.faults = fault
    return opened, kinds
