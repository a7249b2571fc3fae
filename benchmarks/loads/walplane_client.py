"""Our side: one StreamingClient on one collection, in a process of its own.

With `--embedded DIR` coordinator, node and log are in that process too.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import uvloop

from benchmarks.loads.common import WARM_UP_S, appends, cpu_s, latency, payloads, rate, report
from walplane.client import CollectionInfo, StreamingClient
from walplane.message.builder import MutableMessage, insert
from walplane.runtime import keep_large_buffers

_CALLS = 8
_CALL_PAYLOADS = 4000
_BULK_PAYLOADS = 1000

Load = Callable[[float], Coroutine[Any, Any, tuple[int, float]]]

Singles = Callable[[float], Coroutine[Any, Any, tuple[list[float], float]]]


class Appender:
    """Appends to one VChannel."""

    def __init__(self, wal: StreamingClient, collection: CollectionInfo, size: int) -> None:
        """Payloads of `size` bytes."""
        self._wal = wal
        self._collection = collection
        self._size = size
        self._payloads = payloads(size)
        self._vchannels = itertools.cycle(collection.vchannels)

    def flood(self, per_message: int) -> Load:
        """A few calls of `append_many` at a time, `per_message` payloads to a message object.

        Each call is for one VChannel, the next one for the next. Gives rows and the seconds until
        all of them are acknowledged.
        """
        bodies = self._payloads * (_CALL_PAYLOADS // len(self._payloads) + 1)
        groups = [bodies[at : at + per_message] for at in range(0, _CALL_PAYLOADS, per_message)]

        async def load(seconds: float) -> tuple[int, float]:
            async def caller() -> int:
                acknowledged = 0
                while time.perf_counter() < end:
                    vchannel = next(self._vchannels)
                    messages = [self._message(vchannel, *group) for group in groups]
                    await self._wal.append_many(messages)
                    acknowledged += per_message * len(groups)
                return acknowledged

            start = time.perf_counter()
            end = start + seconds
            counts = await asyncio.gather(*(caller() for _ in range(_CALLS)))
            return sum(counts), time.perf_counter() - start

        return load

    def concurrent(self, appenders: int) -> Singles:
        """So many appenders, each awaits its acknowledgement before it appends on.

        Gives the seconds that each append took, and all of them together.
        """

        async def load(seconds: float) -> tuple[list[float], float]:
            taken: list[float] = []

            async def appender() -> None:
                while (start := time.perf_counter()) < end:
                    body = self._payloads[len(taken) % len(self._payloads)]
                    await self._wal.append(self._message(next(self._vchannels), body))
                    taken.append(time.perf_counter() - start)

            begun = time.perf_counter()
            end = begun + seconds
            await asyncio.gather(*(appender() for _ in range(appenders)))
            return taken, time.perf_counter() - begun

        return load

    def _message(self, vchannel: str, *bodies: bytes) -> MutableMessage:
        info = self._collection
        return insert(
            vchannel,
            *bodies,
            collection_id=info.collection_id,
            partition_id=info.default_partition_id,
            schema_version=info.schema_version,
        )


def _client(options: argparse.Namespace) -> AbstractAsyncContextManager[StreamingClient]:
    if options.embedded:
        # here: the client of a server loads no node, which its collector would look through
        from walplane.embedded import open_embedded

        return open_embedded(options.embedded, pchannels=1)
    return StreamingClient.connect(options.address)


async def _run(options: argparse.Namespace) -> dict[str, float]:
    async with _client(options) as wal:
        collection = await wal.create_collection(options.collection, options.shards)
        appender = Appender(wal, collection, options.size)
        if options.mode in ("sync", "concurrent"):
            single = appender.concurrent(1 if options.mode == "sync" else options.concurrency)
            await single(WARM_UP_S)
            taken, elapsed = await single(options.seconds)
            if options.mode == "sync":
                return latency(taken)
            return appends(taken, elapsed, options.size)
        load = appender.flood(_BULK_PAYLOADS if options.mode == "flood" else 1)
        await load(WARM_UP_S)
        before = cpu_s(options.node)
        count, elapsed = await load(options.seconds)
        spent = cpu_s(options.node) - before
        return {**rate(count, elapsed, options.size), "node_us_per_message": spent / count * 1e6}


def main() -> None:
    """Runs one load."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("flood", "singles", "concurrent", "sync"))
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--address")
    where.add_argument("--embedded", metavar="DIR")
    parser.add_argument("--collection", required=True, help="made by this program")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--node", type=int, default=os.getpid(), help="process of the node")
    keep_large_buffers()  # as the walplane command does
    report(uvloop.run(_run(parser.parse_args())))


if __name__ == "__main__":
    main()
