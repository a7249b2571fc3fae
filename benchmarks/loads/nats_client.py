"""The reference on NATS: nats-py publishing to one JetStream stream in a file, synced each time."""

from __future__ import annotations

import argparse
import asyncio
import time

import nats
import uvloop
from nats.js import JetStreamContext
from nats.js.api import StorageType, StreamConfig

from benchmarks.loads.common import WARM_UP_S, appends, payloads, peer_options, report

_SUBJECT = "benchmark.appended"
_TIMEOUT_S = 60.0


def main() -> None:
    """Runs one load."""
    report(uvloop.run(_run(peer_options())))


async def _run(options: argparse.Namespace) -> dict[str, float]:
    connection = await nats.connect(f"nats://127.0.0.1:{options.port}")
    stream = connection.jetstream(timeout=_TIMEOUT_S)
    name = f"benchmark-{time.time_ns()}"
    await stream.add_stream(StreamConfig(name=name, subjects=[_SUBJECT], storage=StorageType.FILE))
    bodies = payloads(options.size)
    try:
        await publish(stream, bodies, options.concurrency, WARM_UP_S)
        taken, elapsed = await publish(stream, bodies, options.concurrency, options.seconds)
        return appends(taken, elapsed, options.size)
    finally:
        await stream.delete_stream(name)  # the subject is the next round's
        await connection.close()


async def publish(
    stream: JetStreamContext, bodies: list[bytes], publishers: int, seconds: float
) -> tuple[list[float], float]:
    """So many publishers, each awaits its acknowledgement before it publishes on.

    `publish_async` and its future are cheaper than `publish`, which sets a timer for each.
    """
    taken: list[float] = []

    async def publisher(number: int) -> None:
        body = bodies[number % len(bodies)]
        while (start := time.perf_counter()) < end:
            acknowledgement = await stream.publish_async(_SUBJECT, body)
            await acknowledgement
            taken.append(time.perf_counter() - start)

    begun = time.perf_counter()
    end = begun + seconds
    await asyncio.gather(*(publisher(number) for number in range(publishers)))
    return taken, time.perf_counter() - begun


if __name__ == "__main__":
    main()
