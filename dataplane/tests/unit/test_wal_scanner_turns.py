"""What a reader that catches up holds at a time, and how long it has the loop to itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from types import ModuleType

import pytest

from walplane.backends import memory as memory_backend
from walplane.message.registry import MessageType
from walplane.node import delivery as delivery_module
from walplane.node.config import NodeConfig
from walplane.node.consume import ConsumeStream
from walplane.node.edge import Edge
from walplane.node.turns import ReadTurns
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import streaming_pb2
from walplane.testkit.wal_world import (
    CH,
    EARLIEST,
    VCHANNELS,
    World,
    cancelled_ever_later,
    entry,
    payloads_of,
    read_all,
)
from walplane.wal.config import WALConfig
from walplane.wal.ports import HELD_OVERHEAD_BYTES, TURN_ENTRIES, LogEntry
from walplane.wal.scan import raw as raw_module
from walplane.wal.scan import scanner as scanner_module
from walplane.wal.scan.request import Only, ScanBatch, ScanRequest, ScanStart, StartKind
from walplane.wal.scan.scanner import WALScanner
from walplane.wal.wal import WAL

BATCH_BYTES = 200_000
FRAME_BYTES = 20_000
WRITTEN = [b"%d" % number for number in range(3000)]


@pytest.fixture
async def wal(world: World, monkeypatch: pytest.MonkeyPatch) -> WAL:
    """A log of many small entries, of which memory holds none but the last."""
    monkeypatch.setattr(scanner_module, "BATCH_BYTES", BATCH_BYTES)
    config = WALConfig(write_ahead_bytes=50, frame_bytes=FRAME_BYTES, frames_in_flight=1)
    wal = await world.open(1, config)
    await asyncio.gather(*(wal.append(entry(payload)) for payload in WRITTEN))
    return wal


async def batches(wal: WAL) -> AsyncIterator[ScanBatch]:
    """Those of a read from the earliest record to the present end."""
    async with asyncio.timeout(10), wal.scan(ScanRequest(EARLIEST, follow=False)) as scanner:
        over = False
        while not over:
            batch = await scanner.next()
            over = batch.end
            yield batch


def inserted(entries: Iterable[LogEntry]) -> list[bytes]:
    """The payloads of the Inserts among `entries`."""
    return payloads_of([item for item in entries if item.entry.envelope.type == MessageType.INSERT])


async def send_all(wal: WAL, start: streaming_pb2.StartConsume) -> tuple[int, list[int]]:
    """Reads `wal` through a node's stream to its end.

    Looks, whenever no reader has a turn, that none holds anything.

    Returns:
        How many turns it took, and how many entries left with each response.
    """
    turns, taken = ReadTurns(1, 60.0), 0
    sent: list[int] = []

    async def write(data: bytes) -> None:
        sent.append(len(streaming_pb2.ConsumeResponse.FromString(data).entries))
        assert turns.held == 1

    async def requests() -> AsyncIterator[streaming_pb2.ConsumeRequest]:
        await asyncio.get_running_loop().create_future()
        yield streaming_pb2.ConsumeRequest()

    give = turns.give

    def look(lost: asyncio.Future[WalError]) -> None:
        nonlocal taken
        taken += 1
        for reader in wal.meter.readers:
            assert isinstance(reader, WALScanner)
            assert not reader.holding
        give(lost)

    turns.give = look  # type: ignore[method-assign]
    await ConsumeStream(Edge(wal), start, NodeConfig(), write, turns).run(requests())
    return taken, sent


async def test_a_batch_from_the_backend_holds_no_more_than_one_from_memory(wal: WAL) -> None:
    got: list[bytes] = []
    most = 0
    async for batch in batches(wal):
        got += payloads_of(list(batch.entries))
        most = max(most, sum(item.held_bytes for item in batch.entries))
    assert got == WRITTEN
    of_a_frame = FRAME_BYTES // 40 * HELD_OVERHEAD_BYTES
    assert most <= BATCH_BYTES + 2 * of_a_frame
    assert most < len(WRITTEN) * HELD_OVERHEAD_BYTES // 4, "the test has more than that to read"


async def test_a_batch_is_part_of_a_frame_when_that_is_large(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry behind it lets all of it go at once."""
    monkeypatch.setattr(scanner_module, "BATCH_BYTES", BATCH_BYTES)
    wal = await world.open(1, WALConfig(write_ahead_bytes=50))
    await asyncio.gather(*(wal.append(entry(payload)) for payload in WRITTEN))
    await wal.append(entry(b"last"))
    got: list[bytes] = []
    watermark = 0
    async for batch in batches(wal):
        got += payloads_of(list(batch.entries))
        assert len(batch.entries) <= TURN_ENTRIES
        assert all(watermark < item.last_tick <= batch.watermark for item in batch.entries)
        watermark = batch.watermark
    assert got == [*WRITTEN, b"last"]


async def test_what_was_read_is_sent_before_the_turn_goes_back(wal: WAL) -> None:
    start = streaming_pb2.StartConsume(pchannel=CH, credit_bytes=1 << 24, follow=False)
    async with asyncio.timeout(10):
        turns, sent = await send_all(wal, start)
    assert sum(sent) == len(WRITTEN) + len(VCHANNELS)
    assert turns < len(sent)


async def test_a_read_that_skips_says_so_and_claims_nothing(wal: WAL) -> None:
    begin = (await read_all(wal))[-100].first_tick
    start, only = ScanRequest(EARLIEST, follow=False), Only(from_tick=begin)
    async with asyncio.timeout(10), wal.scan(replace(start, only=only)) as scanner:
        batches = [await scanner.next()]
        while not batches[-1].end:
            batches.append(await scanner.next())
    silent = [batch for batch in batches if not batch.entries]
    assert len(silent) > 5
    assert {batch.watermark for batch in silent} <= {begin - 1, batches[-1].watermark}
    got = [payload for batch in batches for payload in payloads_of(list(batch.entries))]
    assert got == WRITTEN[-100:]


async def test_a_read_from_a_place_in_the_log_claims_no_tick_before_it_has_one(wal: WAL) -> None:
    """Its first record lets nothing go: no entry of it is known to be the lowest yet."""
    begin = ScanStart(StartKind.FROM_ID, message_id=(await read_all(wal))[0].message_id)
    watermark = 0
    async with asyncio.timeout(10), wal.scan(ScanRequest(begin, follow=False)) as scanner:
        while True:
            batch = await scanner.next()
            assert all(item.last_tick > watermark for item in batch.entries)
            watermark = batch.watermark
            if batch.end:
                break


async def test_a_read_that_skips_gives_its_turn_back_between_reads(
    wal: WAL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_backend, "_READ_RECORDS", 1)
    start = streaming_pb2.StartConsume(pchannel=CH, credit_bytes=1 << 24, follow=False)
    start.from_tick = (await read_all(wal))[-100].first_tick
    async with asyncio.timeout(10):
        turns, sent = await send_all(wal, start)
    assert sum(sent) == 100 + len(VCHANNELS)
    assert turns > 5


@pytest.mark.parametrize("raw", [False, True])
async def test_others_have_their_turns_while_much_is_read_and_sent(
    world: World, raw: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two turns of the loop no more is worked on than what takes some milliseconds."""
    made, most, over = 0, 0, False

    def counted(module: ModuleType, name: str) -> None:
        original = getattr(module, name)

        def count(*arguments: object, **named: object) -> object:
            nonlocal made
            made += 1
            return original(*arguments, **named)

        monkeypatch.setattr(module, name, count)

    async def look() -> None:
        nonlocal made, most
        while not over:
            most, made = max(most, made), 0
            await asyncio.sleep(0)

    wal = await world.open(1, WALConfig(write_ahead_bytes=50))
    await asyncio.gather(*(wal.append(entry(payload)) for payload in WRITTEN))
    for module in (scanner_module, raw_module):
        counted(module, "LogEntry")
    counted(delivery_module, "encode_entry")
    start = streaming_pb2.StartConsume(pchannel=CH, credit_bytes=1 << 24, follow=False, raw=raw)
    looking = asyncio.create_task(look())
    async with asyncio.timeout(10):
        _, sent = await send_all(wal, start)
    over = True
    await looking
    assert sum(sent) >= len(WRITTEN)
    assert max(sent) > 2 * TURN_ENTRIES
    assert most <= 2 * TURN_ENTRIES


async def test_a_raw_read_that_is_cancelled_again_and_again_loses_nothing(wal: WAL) -> None:
    request = ScanRequest(EARLIEST, follow=False, raw=True)
    got: list[bytes] = []
    cancelled = 0
    async with asyncio.timeout(10), Edge(wal).scan(request) as scanner:
        async for batch in cancelled_ever_later(scanner.next):
            cancelled += batch is None
            got += inserted(batch.entries) if batch else []
            if batch and batch.end:
                break
    assert got == WRITTEN
    assert cancelled
