"""Our side: one StreamingClient on one collection with one shard, in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from benchmarks.loads.common import WARM_UP_S, latency, payloads, rate, report
from walplane.client import CollectionInfo, StreamingClient
from walplane.message.builder import MutableMessage, insert
from walplane.runtime import keep_large_buffers

_CALLS = 8
_CALL_PAYLOADS = 4000
_BULK_PAYLOADS = 1000

Load = Callable[[float], Coroutine[Any, Any, tuple[int, float]]]


class Appender:
    """Appends to one VChannel."""

    def __init__(self, wal: StreamingClient, collection: CollectionInfo, size: int) -> None:
        """Payloads of `size` bytes."""
        self._wal = wal
        self._collection = collection
        self._size = size
        self._payloads = payloads(size)

    def flood(self, per_message: int) -> Load:
        """A few calls of `append_many` at a time, `per_message` payloads to a message object.

        Gives rows and the seconds until all of them are acknowledged.
        """
        bodies = self._payloads * (_CALL_PAYLOADS // len(self._payloads) + 1)
        groups = [bodies[at : at + per_message] for at in range(0, _CALL_PAYLOADS, per_message)]

        async def load(seconds: float) -> tuple[int, float]:
            async def caller() -> int:
                acknowledged = 0
                while time.perf_counter() < end:
                    await self._wal.append_many([self._message(*group) for group in groups])
                    acknowledged += per_message * len(groups)
                return acknowledged

            start = time.perf_counter()
            end = start + seconds
            counts = await asyncio.gather(*(caller() for _ in range(_CALLS)))
            return sum(counts), time.perf_counter() - start

        return load

    def concurrent(self, appenders: int) -> Load:
        """So many appenders, each awaits its acknowledgement before it appends on."""

        async def load(seconds: float) -> tuple[int, float]:
            async def appender(number: int) -> int:
                body = self._payloads[number % len(self._payloads)]
                acknowledged = 0
                while time.perf_counter() < end:
                    await self._wal.append(self._message(body))
                    acknowledged += 1
                return acknowledged

            start = time.perf_counter()
            end = start + seconds
            counts = await asyncio.gather(*(appender(number) for number in range(appenders)))
            return sum(counts), time.perf_counter() - start

        return load

    async def sync(self, seconds: float) -> list[float]:
        """One append after the other; the seconds that each took."""
        taken: list[float] = []
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            await self._wal.append(self._message(self._payloads[len(taken) % len(self._payloads)]))
            taken.append(time.perf_counter() - start)
        return taken

    def _message(self, *bodies: bytes) -> MutableMessage:
        info = self._collection
        return insert(
            info.vchannels[0],
            *bodies,
            collection_id=info.collection_id,
            partition_id=info.default_partition_id,
            schema_version=info.schema_version,
        )


async def _run(options: argparse.Namespace) -> dict[str, float]:
    async with StreamingClient.connect(options.address) as wal:
        collection = await wal.create_collection(options.collection, 1)
        appender = Appender(wal, collection, options.size)
        if options.mode == "sync":
            await appender.sync(WARM_UP_S)
            return latency(await appender.sync(options.seconds))
        load = {
            "flood": appender.flood(_BULK_PAYLOADS),
            "singles": appender.flood(1),
            "concurrent": appender.concurrent(options.concurrency),
        }[options.mode]
        await load(WARM_UP_S)
        count, elapsed = await load(options.seconds)
        return rate(count, elapsed, options.size)


def main() -> None:
    """Runs one load."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("flood", "singles", "concurrent", "sync"))
    parser.add_argument("--address", required=True)
    parser.add_argument("--collection", required=True, help="made by this program")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--concurrency", type=int, default=1)
    keep_large_buffers()  # as the walplane command does
    report(uvloop.run(_run(parser.parse_args())))


if __name__ == "__main__":
    main()
