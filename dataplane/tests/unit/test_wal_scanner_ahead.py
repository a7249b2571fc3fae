"""A backend shows a reader what the log itself has not heard of yet; it is given once all the same.

So it goes with an owner of old: its successor has taken in what it wrote, and says so in the log,
before the owner's own acknowledgements come.
"""

from __future__ import annotations

import asyncio

from walplane.backends.registry import open_backend
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import EARLIEST, World, entry, payloads_of
from walplane.wal.scan.request import ScanRequest


async def test_what_was_read_before_its_acknowledgement_is_not_read_again_from_memory() -> None:
    backend, heard = FaultyBackend(await open_backend("memory:")), asyncio.Event()
    world = World(backend)
    old = await world.open(1)
    await old.append(entry(b"first"))
    held = 0

    async def only_the_first() -> None:
        nonlocal held
        held += 1
        if held == 1:  # those behind it wait for it
            await heard.wait()

    backend.before_ack = only_the_first
    late = [asyncio.create_task(old.append(entry(b"%d" % number))) for number in range(3)]
    await until(lambda: held > 0)
    async with asyncio.timeout(10), old.scan(ScanRequest(EARLIEST)) as scanner:
        await world.open(2)
        got: list[bytes] = []
        while b"2" not in got:
            got += payloads_of(list((await scanner.next()).entries))
        assert scanner.tick > old.watermark(), "the log has not heard of them"
        assert not late[0].done()
        heard.set()
        await asyncio.gather(*late)
        reading = asyncio.create_task(scanner.next())
        await asyncio.wait({reading}, timeout=0.5)
        if reading.done():
            got += payloads_of(list(reading.result().entries))
        reading.cancel()
    assert got == [b"first", b"0", b"1", b"2"]
    await world.close()
