"""What a reader that catches up holds at a time, and how long it has the loop to itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from walplane.node.config import NodeConfig
from walplane.node.consume import ConsumeStream
from walplane.node.edge import Edge
from walplane.node.turns import ReadTurns
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import streaming_pb2
from walplane.testkit.wal_world import CH, EARLIEST, VCHANNELS, World, entry, payloads_of
from walplane.wal.config import WALConfig
from walplane.wal.ports import HELD_OVERHEAD_BYTES
from walplane.wal.scan import scanner as scanner_module
from walplane.wal.scan.request import ScanRequest
from walplane.wal.scan.scanner import WALScanner
from walplane.wal.wal import WAL

BATCH_BYTES = 200_000
FRAME_BYTES = 20_000
WRITTEN = [b"%d" % number for number in range(3000)]


@pytest.fixture
async def wal(world: World, monkeypatch: pytest.MonkeyPatch) -> WAL:
    """A log of many small entries, of which memory holds none but the last."""
    monkeypatch.setattr(scanner_module, "_BATCH_BYTES", BATCH_BYTES)
    config = WALConfig(write_ahead_bytes=50, frame_bytes=FRAME_BYTES, frames_in_flight=1)
    wal = await world.open(1, config)
    await asyncio.gather(*(wal.append(entry(payload)) for payload in WRITTEN))
    return wal


async def send_all(wal: WAL, turns: ReadTurns, start: streaming_pb2.StartConsume) -> int:
    """Reads `wal` through a node's stream to its end; how many entries left.

    Looks, whenever no reader has a turn, that none holds anything.
    """
    got = 0

    async def write(data: bytes) -> None:
        nonlocal got
        got += len(streaming_pb2.ConsumeResponse.FromString(data).entries)
        assert turns.held == 1

    async def requests() -> AsyncIterator[streaming_pb2.ConsumeRequest]:
        await asyncio.get_running_loop().create_future()
        yield streaming_pb2.ConsumeRequest()

    give = turns.give

    def look(lost: asyncio.Future[WalError]) -> None:
        (reader,) = wal.meter.readers
        assert isinstance(reader, WALScanner)
        assert not reader.holding
        give(lost)

    turns.give = look  # type: ignore[method-assign]
    await ConsumeStream(Edge(wal), start, NodeConfig(), write, turns).run(requests())
    return got


async def test_a_batch_from_the_backend_holds_no_more_than_one_from_memory(wal: WAL) -> None:
    got: list[bytes] = []
    most = 0
    async with asyncio.timeout(10), wal.scan(ScanRequest(EARLIEST, follow=False)) as scanner:
        while True:
            batch = await scanner.next()
            got += payloads_of(list(batch.entries))
            most = max(most, sum(item.held_bytes for item in batch.entries))
            if batch.end:
                break
    assert got == WRITTEN
    of_a_frame = FRAME_BYTES // 40 * HELD_OVERHEAD_BYTES
    assert most <= BATCH_BYTES + 2 * of_a_frame
    assert most < len(WRITTEN) * HELD_OVERHEAD_BYTES // 4, "the test has more than that to read"


async def test_what_was_read_is_sent_before_the_turn_goes_back(wal: WAL) -> None:
    start = streaming_pb2.StartConsume(pchannel=CH, credit_bytes=1 << 24, follow=False)
    async with asyncio.timeout(10):
        assert await send_all(wal, ReadTurns(1, 60.0), start) == len(WRITTEN) + len(VCHANNELS)
