"""Cancelling a read loses nothing, wherever it was."""

from __future__ import annotations

import asyncio

import pytest

from walplane.backends.memory import MemoryScanner
from walplane.backends.registry import open_backend
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.wal_world import EARLIEST, World, cancelled_ever_later, entry, payloads_of
from walplane.wal.config import WALConfig
from walplane.wal.ports import TURN_ENTRIES
from walplane.wal.scan import scanner as scanner_module
from walplane.wal.scan.request import ScanRequest


class SlowClosing:
    """Scanners of the memory backend whose `close` waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.closed = 0
        original = MemoryScanner.close

        async def close(scanner: MemoryScanner) -> None:
            self.begun.set()
            await self.go_on.wait()
            await original(scanner)
            self.closed += 1

        monkeypatch.setattr(MemoryScanner, "close", close)


async def test_a_read_cancelled_between_backend_and_memory_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(FaultyBackend(await open_backend("memory:")))
    wal = await world.open(1, WALConfig(write_ahead_bytes=50))
    for number in range(10):
        await wal.append(entry(b"%d" % number))
    closing = SlowClosing(monkeypatch)
    got: list[bytes] = []
    async with asyncio.timeout(10), wal.scan(ScanRequest(EARLIEST)) as scanner:
        while not closing.begun.is_set():
            reading = asyncio.create_task(scanner.next())
            begun = asyncio.create_task(closing.begun.wait())
            await asyncio.wait({reading, begun}, return_when=asyncio.FIRST_COMPLETED)
            begun.cancel()
            if reading.done():
                got += payloads_of(list(reading.result().entries))
            reading.cancel()
            await asyncio.wait({reading})
        closing.go_on.set()
        await wal.append(entry(b"10"))
        while len(got) < 11:
            got += payloads_of(list((await scanner.next()).entries))
    assert got == [b"%d" % number for number in range(11)]
    assert closing.closed == 1, "the scanner of the backend is closed once and not kept"
    await world.close()


@pytest.mark.parametrize("batch_bytes", [2 << 20, 16 << 20])
async def test_a_read_cancelled_while_others_have_their_turn_loses_nothing(
    world: World, batch_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanner_module, "BATCH_BYTES", batch_bytes)
    wal = await world.open(1, WALConfig(write_ahead_bytes=50, frame_bytes=20_000))
    written = [b"%d" % number for number in range(12 * TURN_ENTRIES)]
    await asyncio.gather(*(wal.append(entry(payload)) for payload in written))
    got: list[bytes] = []
    cancelled = 0
    async with asyncio.timeout(10), wal.scan(ScanRequest(EARLIEST)) as scanner:
        async for batch in cancelled_ever_later(scanner.next):
            cancelled += batch is None
            got += payloads_of(list(batch.entries)) if batch else []
            if len(got) >= len(written):
                break
    assert got == written
    assert cancelled > 1, "others had turns in the midst of it"
