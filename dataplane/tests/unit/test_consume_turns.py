"""A Consume stream that waits for something to be appended has no turn, however it came there."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import pytest

from walplane.backends.memory import MemoryBackend
from walplane.node.config import NodeConfig
from walplane.node.consume import ConsumeStream
from walplane.node.edge import Edge
from walplane.node.turns import ReadTurns
from walplane.rpc.v1 import streaming_pb2
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.sim.loop import SimLoop
from walplane.testkit.txns import begin
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import CH, VCHANNELS, V, World, entry
from walplane.wal.scan.request import StartKind
from walplane.wal.wal import WAL


class Client:
    """Takes all that it is sent, each response in `seconds`."""

    def __init__(
        self, wal: WAL, turns: ReadTurns, kind: StartKind, seconds: float = 0.0, most: int = 1 << 20
    ) -> None:
        self.entries = 0
        self._seconds = seconds
        config = NodeConfig(response_bytes=most)
        start = streaming_pb2.StartConsume(
            pchannel=CH, vchannel=V, credit_bytes=1 << 24, follow=True
        )
        start.start.kind = kind.value  # type: ignore[assignment]
        stream = ConsumeStream(Edge(wal), start, config, self._write, turns)
        self.run = asyncio.create_task(stream.run(self._requests()))

    async def _write(self, data: bytes) -> None:
        await asyncio.sleep(self._seconds)
        self.entries += len(streaming_pb2.ConsumeResponse.FromString(data).entries)

    async def _requests(self) -> AsyncIterator[streaming_pb2.ConsumeRequest]:
        await asyncio.get_running_loop().create_future()
        yield streaming_pb2.ConsumeRequest()


@pytest.mark.parametrize("kind", [StartKind.LATEST, StartKind.EARLIEST])
async def test_a_reader_that_caught_up_with_a_silent_log_keeps_no_turn(
    world: World, kind: StartKind
) -> None:
    """An open transaction has it read the backend first; no tick moves afterwards."""
    wal = await world.open(1)
    wal._deps = dataclasses.replace(wal._deps, may_tick_idle=lambda: False)
    await wal.append(entry(b"old"))
    begun = await begin(wal, VCHANNELS[1])
    await until(lambda: wal.watermark() > begun)  # the TimeTick that was owed; none is from here on
    turns = ReadTurns(1, 60.0)
    idle = Client(wal, turns, kind)
    await until(lambda: any(reader.tailing for reader in wal.meter.readers))
    await until(lambda: turns.held == 0)
    before = idle.entries
    other = Client(wal, turns, StartKind.EARLIEST)
    await until(lambda: other.entries > 0)
    await wal.append(entry(b"new"))
    await until(lambda: idle.entries == before + 1)
    assert not idle.run.done()
    for client in (idle, other):
        client.run.cancel()
    await asyncio.wait([idle.run, other.run])


@pytest.mark.parametrize(("seconds", "sent"), [(0.5, 7), (3.0, 0)])
def test_a_slow_client_is_sent_all_and_one_that_takes_nothing_is_not(
    seconds: float, sent: int
) -> None:
    """Of a batch, in responses of one entry, whose reader others wait for."""

    async def main() -> int:
        world = World(FaultyBackend(MemoryBackend()))
        wal = await world.open(1)
        for number in range(6):
            await wal.append(entry(b"%d" % number))
        turns = ReadTurns(1, 1.0)
        slow = Client(wal, turns, StartKind.EARLIEST, seconds, most=1)
        await until(lambda: turns.held == 1)
        waiting = asyncio.ensure_future(turns.take(asyncio.get_running_loop().create_future()))
        await asyncio.wait([waiting])  # until the slow one has had its turn, or lost it
        slow.run.cancel()
        await asyncio.wait([slow.run])
        await world.close()
        return slow.entries

    assert SimLoop(0).run(main()) == sent


@pytest.mark.parametrize("takes", [True, False])
def test_who_takes_what_it_is_sent_keeps_its_turn(takes: bool) -> None:
    async def main() -> bool:
        clock = asyncio.get_running_loop()
        turns, lost, other = ReadTurns(1, 1.0), clock.create_future(), clock.create_future()
        await turns.take(lost)
        waiting = asyncio.ensure_future(turns.take(other))
        for _ in range(6):  # three times its patience
            await asyncio.sleep(0.5)
            if takes:
                turns.taken(lost)
        kept = not lost.done()
        turns.give(lost)
        await waiting
        return kept

    assert SimLoop(0).run(main()) is takes
