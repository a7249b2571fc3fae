"""Cancelling a read loses nothing, wherever it was."""

from __future__ import annotations

import asyncio

import pytest

from walplane.backends.memory import MemoryScanner
from walplane.backends.registry import open_backend
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.wal_world import EARLIEST, World, entry, payloads_of
from walplane.wal.config import WALConfig
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
