"""Planned moves under load: no append fails, none waits long, none is lost or doubled."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from itertools import pairwise

from walplane.backends.registry import open_backend
from walplane.client import StreamingClient
from walplane.message.builder import insert
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.reading import payloads
from walplane.testkit.waiting import until

P0 = "test_0"
VCHANNELS = 16
WRITERS = 64
LONGEST_GAP_S = 1.0


class Load:
    """Writers that append without end, each waiting for its last answer."""

    def __init__(self, wal: StreamingClient, vchannels: list[str]) -> None:
        self.acknowledged: list[float] = []
        self.written: dict[int, int] = dict.fromkeys(range(WRITERS), 0)
        self._wal = wal
        self._vchannels = vchannels
        self._stop = False
        self._tasks = [asyncio.create_task(self._write(writer)) for writer in self.written]

    async def _write(self, writer: int) -> None:
        vchannel = self._vchannels[writer % VCHANNELS]
        while not self._stop:
            payload = b"%d/%d" % (writer, self.written[writer])
            await self._wal.append(insert(vchannel, payload))
            self.written[writer] += 1
            self.acknowledged.append(time.monotonic())

    async def more(self, count: int) -> None:
        goal = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= goal or any(t.done() for t in self._tasks))

    async def end(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)


async def test_planned_moves_are_not_noticed_by_whoever_appends() -> None:
    backend = FaultyBackend(await open_backend("memory:"))
    backend.before_ack = partial(asyncio.sleep, 0.005)  # so that something is always in flight
    async with asyncio.timeout(60), MiniCluster(backend, nodes=("n1", "n2")) as cluster:
        vchannels = [await cluster.create_vchannel(P0, shard=n) for n in range(VCHANNELS)]
        async with StreamingClient.connect(cluster.address) as wal:
            load = Load(wal, vchannels)
            await load.more(500)
            for owner, successor in (("n1", "n2"), ("n2", "n1"), ("n1", "n2")):
                await cluster.members[owner].node.release(P0, cluster.terms[P0])
                await cluster.move(P0, successor)
                await load.more(500)
            await load.end()
            gap = max(later - at for at, later in pairwise(load.acknowledged))
            print(f"longest gap over three moves: {gap:.3f} s")
            assert gap <= LONGEST_GAP_S
            stored: dict[int, list[int]] = {writer: [] for writer in load.written}
            for vchannel in vchannels:
                for payload in await payloads(wal, vchannel):
                    writer, _, number = payload.partition(b"/")
                    stored[int(writer)].append(int(number))
            assert stored == {w: list(range(count)) for w, count in load.written.items()}
    await backend.close()
