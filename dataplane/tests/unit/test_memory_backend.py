"""What the memory backend promises beyond the conformance suite."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from walplane.backends.interface import EARLIEST, Start, StartAt
from walplane.backends.memory import MemoryBackend, open_backend
from walplane.backends.registry import open_backend as open_by_url
from walplane.rpc.errors import ErrorCode, WalError


async def test_options_of_the_url() -> None:
    assert (await open_by_url("memory:")).max_record_bytes == 5 << 20
    assert (await open_backend("memory:?max_record_bytes=100")).max_record_bytes == 100
    for wrong in ("memory:?size=1", "memory:?max_record_bytes=x", "memory:?max_record_bytes=0"):
        with pytest.raises(WalError, match=r"INVALID_ARGUMENT.*max_record_bytes"):
            await open_backend(wrong)


async def test_in_flight_when_fenced_is_not_written() -> None:
    backend = MemoryBackend()
    session = await backend.session()
    await session.ensure_topic("t")
    old = await session.open_writer("t", 1, 0)
    pending = [old.append(b"old"), old.append(b"old")]
    await session.open_writer("t", 2, 0)
    results = await asyncio.gather(*pending, return_exceptions=True)
    assert [r.code for r in results if isinstance(r, WalError)] == [ErrorCode.CHANNEL_FENCED] * 2
    assert await session.last_record_id("t") is None


async def test_waiting_read_ends_with_its_session() -> None:
    backend = MemoryBackend()
    session = await backend.session()
    await session.ensure_topic("t")
    scanner = await session.open_scanner("t", EARLIEST)
    reading = asyncio.ensure_future(scanner.read())
    await asyncio.sleep(0)
    await backend.close()
    with pytest.raises(WalError, match="ON_SHUTDOWN"):
        await asyncio.wait_for(reading, 5)
    with pytest.raises(WalError, match="ON_SHUTDOWN"):
        await session.open_writer("t", 1, 0)


async def test_a_session_forgets_scanners_that_are_closed() -> None:
    session = await MemoryBackend().session()
    await session.ensure_topic("t")
    scanner = await session.open_scanner("t", EARLIEST)
    gone = weakref.ref(scanner)
    await scanner.close()
    await scanner.close()
    del scanner
    gc.collect()
    assert gone() is None


async def test_after_the_record_below_the_truncation_point() -> None:
    session = await MemoryBackend().session()
    await session.ensure_topic("t")
    writer = await session.open_writer("t", 1, 0)
    for data in (b"1", b"2", b"3"):
        await writer.append(data)
    await session.truncate("t", (2,))
    scanner = await session.open_scanner("t", Start(StartAt.AFTER, (1,)))
    assert [record.data for record in await scanner.read()] == [b"2", b"3"]
    for start in (Start(StartAt.FROM, (4,)), Start(StartAt.AFTER, (4,)), Start(StartAt.AFTER, ())):
        with pytest.raises(WalError, match="topic t"):
            await session.open_scanner("t", start)
