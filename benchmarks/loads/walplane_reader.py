"""Our side of catching up: fills a collection once, then reads it from earliest to its end."""

from __future__ import annotations

import argparse
import asyncio
import time

import uvloop

from benchmarks.loads.common import WARM_UP_S, payloads, rate, report
from walplane.client import StreamingClient
from walplane.message.builder import insert
from walplane.message.registry import MessageType
from walplane.runtime import keep_large_buffers

_BULK_PAYLOADS = 1000
_CALLS = 8


def main() -> None:
    """Runs one load."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("fill", "catch-up"))
    parser.add_argument("--address", required=True)
    parser.add_argument("--collection", required=True, help="made by `fill`")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--messages", type=int, required=True, help="whole thousands")
    parser.add_argument("--seconds", type=float, default=0.0)
    keep_large_buffers()  # as the walplane command does
    report(uvloop.run(_run(parser.parse_args())))


async def _run(options: argparse.Namespace) -> dict[str, float]:
    async with StreamingClient.connect(options.address) as wal:
        if options.mode == "fill":
            elapsed = await fill(wal, options.collection, options.size, options.messages)
            return rate(options.messages, elapsed, options.size)
        found = await wal.describe_collection(options.collection)
        await catch_up(wal, found.vchannels[0], options.messages, WARM_UP_S)
        count, elapsed = await catch_up(wal, found.vchannels[0], options.messages, options.seconds)
        return rate(count, elapsed, options.size)


async def fill(wal: StreamingClient, collection: str, size: int, messages: int) -> float:
    """Makes the collection and appends so many messages, 1000 to an object; the seconds taken."""
    info = await wal.create_collection(collection, 1)
    bodies = payloads(size)[:_BULK_PAYLOADS]
    left = messages // _BULK_PAYLOADS

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await wal.append(
                insert(
                    info.vchannels[0],
                    *bodies,
                    collection_id=info.collection_id,
                    partition_id=info.default_partition_id,
                    schema_version=info.schema_version,
                )
            )

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(_CALLS)))
    return time.perf_counter() - start


async def catch_up(
    wal: StreamingClient, vchannel: str, messages: int, seconds: float
) -> tuple[int, float]:
    """Reads all of it again and again, every payload as bytes; messages and seconds.

    Each pass opens a reader of its own and ends at the present end; the last one is not cut off.
    """
    count = 0
    start = time.perf_counter()
    end = start + seconds
    while time.perf_counter() < end:
        got = 0
        async with wal.reader(vchannel, start="earliest", follow=False) as reader:
            async for batch in reader.batches():
                if batch.type is MessageType.INSERT:  # the CreateCollection is in the log too
                    got += len(batch.payloads)
        if got != messages:
            raise RuntimeError(f"{got} of {messages} messages read")
        count += got
    return count, time.perf_counter() - start


if __name__ == "__main__":
    main()
