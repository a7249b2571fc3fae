"""Our side of the tail latency: one process appends at a steady rate, another one tails.

A message's figure is the time from its acknowledgement at the appender until the reader has it.
Both read CLOCK_MONOTONIC, which is one clock for the whole machine. A message that the reader has
before the appender hears of its acknowledgement counts as 0: the node tells both at once. So the
times from the call of `append` are reported too.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection

import uvloop

from benchmarks.loads.common import WARM_UP_S, latency, payloads, report
from walplane.client import CollectionInfo, StreamingClient
from walplane.message.builder import MutableMessage, insert
from walplane.runtime import keep_large_buffers

_NUMBER_BYTES = 8
_END = (1 << 64) - 1
_ANSWER_S = 60.0


def main() -> None:
    """Runs one load."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--collection", required=True, help="made by this program")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True, help="appends a second")
    keep_large_buffers()  # as the walplane command does
    report(uvloop.run(_run(parser.parse_args())))


async def _run(options: argparse.Namespace) -> dict[str, float]:
    async with StreamingClient.connect(options.address) as wal:
        collection = await wal.create_collection(options.collection, 1)
        appender = _Appender(wal, collection, options.size)
        here, there = multiprocessing.Pipe()
        reader = multiprocessing.get_context("spawn").Process(
            target=_tail, args=(options.address, collection.vchannels[0], there), daemon=True
        )
        reader.start()
        there.close()
        await appender.append(0)
        await _answer(here)  # it tails now
        warm_up = await appender.at(options.rate, WARM_UP_S, first=1)
        began = time.monotonic()
        await appender.at(options.rate, options.seconds, first=1 + warm_up)
        elapsed = time.monotonic() - began
        await appender.append(_END)
        received = await _answer(here)
        await asyncio.to_thread(reader.join, _ANSWER_S)
    return _figures(appender, received, first=1 + warm_up, elapsed=elapsed)


class _Appender:
    """Appends numbered messages to one VChannel; keeps when each was sent and acknowledged."""

    def __init__(self, wal: StreamingClient, collection: CollectionInfo, size: int) -> None:
        self.sent: dict[int, float] = {}
        self.acknowledged: dict[int, float] = {}
        self._wal = wal
        self._collection = collection
        self._bodies = payloads(size - _NUMBER_BYTES)

    async def at(self, rate: float, seconds: float, first: int) -> int:
        """Appends the numbers from `first` on, whatever becomes of the earlier ones; how many."""
        count = int(rate * seconds)
        began = time.monotonic()
        async with asyncio.TaskGroup() as appends:
            for number in range(count):
                await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
                appends.create_task(self.append(first + number))
        return count

    async def append(self, number: int) -> None:
        """Appends one message."""
        self.sent[number] = time.monotonic()
        await self._wal.append(self._message(number))
        self.acknowledged[number] = time.monotonic()

    def _message(self, number: int) -> MutableMessage:
        info = self._collection
        return insert(
            info.vchannels[0],
            number.to_bytes(_NUMBER_BYTES, "big") + self._bodies[number % len(self._bodies)],
            collection_id=info.collection_id,
            partition_id=info.default_partition_id,
            schema_version=info.schema_version,
        )


def _tail(address: str, vchannel: str, answers: Connection) -> None:
    """The other process: says when it has the first message, and at the end when it had which."""
    keep_large_buffers()
    uvloop.run(_tail_until_end(address, vchannel, answers))


async def _tail_until_end(address: str, vchannel: str, answers: Connection) -> None:
    received: dict[int, float] = {}
    async with (
        StreamingClient.connect(address) as wal,
        wal.reader(vchannel, start="earliest") as reader,
    ):
        async for batch in reader.batches():
            bodies = batch.payloads
            now = time.monotonic()
            numbers = [int.from_bytes(body[:_NUMBER_BYTES], "big") for body in bodies]
            if not received:
                answers.send(None)
            received.update(dict.fromkeys(numbers, now))
            if _END in received:
                answers.send(received)
                return


async def _answer(answers: Connection) -> dict[int, float]:
    if not await asyncio.to_thread(answers.poll, _ANSWER_S):
        raise RuntimeError(f"the tailing reader gave no sign for {_ANSWER_S:.0f} s")
    try:
        received: dict[int, float] = answers.recv()
    except EOFError:
        raise RuntimeError("the tailing reader ended early") from None
    return received


def _figures(
    appender: _Appender, received: dict[int, float], first: int, elapsed: float
) -> dict[str, float]:
    numbers = [n for n in appender.acknowledged if first <= n < _END]
    after_ack = [max(0.0, received[n] - appender.acknowledged[n]) for n in numbers]
    after_call = latency([received[n] - appender.sent[n] for n in numbers])
    return {
        **latency(after_ack),
        "from_call_p50": after_call["p50"],
        "from_call_p99": after_call["p99"],
        "rate": len(numbers) / elapsed,
    }


if __name__ == "__main__":
    main()
