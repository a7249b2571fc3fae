"""What a client's reader sees, for tests. Layer: testkit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from walplane.client import StreamingClient


async def payloads(wal: StreamingClient, channel: str) -> list[bytes]:
    """The payloads of all inserts of a channel up to the present end."""
    messages = [m async for m in wal.read(channel, follow=False)]
    ticks = [m.time_tick for m in messages]
    if ticks != sorted(set(ticks)):
        raise AssertionError(f"ticks of {channel} do not strictly grow")
    return [m.payload for m in messages if m.type.name == "INSERT"]


@asynccontextmanager
async def tailing(
    wal: StreamingClient, channel: str, start: str = "earliest"
) -> AsyncIterator[list[bytes]]:
    """The payloads of a reader that follows, as they come."""
    got: list[bytes] = []

    async def follow() -> None:
        async for batch in wal.reader(channel, start=start).batches():
            got.extend(payload for payload in batch.payloads if payload)

    task = asyncio.create_task(follow())
    yield got
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
