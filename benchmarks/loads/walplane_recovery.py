"""Writes the log of a recovery row as a node would, and ends as a killed one does.

A coordinator and a node in this process, on the real backend; appends go through the WAL's whole
chain. Two things are not as in a node's life: the last checkpoint lies where the row wants it, and
every entry has the same number of messages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import uvloop

from benchmarks.loads.common import payloads
from walplane.backends.registry import open_backend
from walplane.channel import VChannelName, cchannel_name, pchannel_name
from walplane.coord.coord import Coord
from walplane.limits import MOST_BYTES, MOST_SECONDS
from walplane.message.builder import create_collection, insert
from walplane.node import NodeConfig, StreamingNode
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.runtime import Runtime, keep_large_buffers
from walplane.wal.config import WALConfig
from walplane.wal.ports import AppendResult
from walplane.wal.wal import WAL

_AT_ONCE = 64
_FIRST_COLLECTION = 1000
_CHECKPOINTS = 10
_AGAIN_S = 1.0


class OwnNode:
    """The node as its coordinator sees it."""

    address = "127.0.0.1:1"  # for clients, of which there are none

    def __init__(self, node: StreamingNode) -> None:
        """Not assigned anything yet."""
        self.node_id = node.node_id
        self.assigned = asyncio.Event()
        self._node = node

    async def assign(self, pchannel: str, term: int) -> None:
        """Opens the log."""
        await self._node.assign(pchannel, term)
        self.assigned.set()

    async def release(self, pchannel: str, term: int) -> None:
        """Closes it."""
        await self._node.release(pchannel, term)

    async def append(self, entry: log_pb2.Entry) -> AppendResult:
        """For the catalog, which has nothing to append."""
        raise NotImplementedError


class Filler:
    """Appends to one log: `vchannels` collections of one shard, in turn."""

    def __init__(self, wal: WAL, vchannels: int, size: int, entry_messages: int) -> None:
        """Entries of `entry_messages` messages of `size` bytes, by one producer."""
        self._wal = wal
        self._names = [
            str(VChannelName(wal.pchannel, _FIRST_COLLECTION + number, 0))
            for number in range(vchannels)
        ]
        bodies = payloads(size)
        self._bodies = [bodies[at % len(bodies)] for at in range(entry_messages)]
        self._producer = os.urandom(16)
        self._sent = [0] * vchannels
        self._turn = 0

    async def make_vchannels(self) -> None:
        """One CreateCollection each."""
        cchannel = cchannel_name(self._wal.pchannel)

        async def create(number: int) -> None:
            header = headers_pb2.CreateCollectionHeader(
                collection_id=_FIRST_COLLECTION + number, vchannels=[self._names[number]]
            )
            messages = create_collection(header, cchannel).split(number + 1, 1)
            await self._wal.append(messages[0].to_entry())

        await several(create, len(self._names))

    async def append(self, messages: int) -> None:
        """So many messages, in whole entries, each to the next VChannel."""
        await several(self._append, messages // len(self._bodies))

    async def _append(self, _number: int) -> None:
        place = self._turn % len(self._names)
        self._turn += 1
        message = insert(self._names[place], *self._bodies, collection_id=_FIRST_COLLECTION + place)
        entry = message.to_entry()
        entry.envelope.producer.producer_id = self._producer
        entry.envelope.producer.number = self._sent[place]
        self._sent[place] += 1
        await self._wal.append(entry)


async def several(work: Callable[[int], Awaitable[None]], times: int) -> None:
    """Does `work` for 0, 1, ... `times` - 1, several at a time, begun in this order."""
    numbers: Iterator[int] = iter(range(times))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))


async def _run(options: argparse.Namespace) -> None:
    async with AsyncExitStack() as taken:
        wal = await _open(options, taken)
        filler = Filler(wal, options.vchannels, options.size, options.entry_messages)
        began = time.perf_counter()
        await filler.make_vchannels()
        for _ in range(_CHECKPOINTS):
            await filler.append(options.history // _CHECKPOINTS)
            await _save(wal)
        await filler.append(options.tail)
        print(json.dumps({"value": time.perf_counter() - began}), flush=True)
        os._exit(0)  # nothing is closed, saved or flushed: what is left is what a kill leaves


async def _save(wal: WAL) -> None:
    """A checkpoint, again when the log opened itself again meanwhile: slow disks do that."""
    while True:
        try:
            return await wal.checkpoint()
        except WalError:
            wal.check()
        await asyncio.sleep(_AGAIN_S)


async def _open(options: argparse.Namespace, taken: AsyncExitStack) -> WAL:
    backend = await open_backend(options.backend)
    runtime = Runtime.system()
    config = NodeConfig(wal=WALConfig(checkpoint_s=MOST_SECONDS, checkpoint_bytes=MOST_BYTES))
    coord = await taken.enter_async_context(
        Coord.open(backend, options.prefix, runtime, pchannel_count=1)
    )
    node = StreamingNode("filler", backend, coord.oracle, coord.channels, runtime, config)
    own = OwnNode(node)
    await taken.enter_async_context(coord.serving(own, own))
    await own.assigned.wait()
    return node.wal(pchannel_name(options.prefix, 0))


def main() -> None:
    """Fills one log."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--vchannels", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--entry-messages", type=int, required=True)
    parser.add_argument("--history", type=int, required=True, help="messages under the checkpoint")
    parser.add_argument("--tail", type=int, required=True, help="messages after it")
    keep_large_buffers()  # as the walplane command does
    uvloop.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
