"""How often nodes ask for ticks: tick time keeps pace with the clock, however many they are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from walplane.coord.oracle import TickSource
from walplane.runtime import Runtime
from walplane.ticks import TICKS_PER_MS
from walplane.wal.ports import TickBatch
from walplane.wal.timetick.reserve import BATCH_TICKS, TickReserve, lasts_s


@dataclass
class Clock:
    now: float = 50.0

    @property
    def runtime(self) -> Runtime:
        return Runtime(lambda: 0, lambda: self.now, Runtime.system().random)


class Oracle:
    """Gives one batch after the other, and says that it is ahead."""

    def __init__(self, ahead_ms: int) -> None:
        self.given = 0
        self._ahead_ms = ahead_ms

    async def batch(self, terms: Mapping[str, int], size: int) -> TickBatch:
        self.given += 1
        return TickBatch(self.given * size, size, frozenset(), self._ahead_ms)

    async def fresh(self, pchannel: str, term: int) -> int:
        raise NotImplementedError


@pytest.mark.parametrize(("ahead_ms", "lasts"), [(0, 1.0), (3000, 4.0), (3_600_000, 10.0)])
async def test_a_batch_is_replaced_later_while_the_oracle_is_ahead(
    ahead_ms: int, lasts: float
) -> None:
    clock, oracle = Clock(), Oracle(ahead_ms)
    reserve = TickReserve(oracle, clock.runtime, dict, lambda _: None)

    async def given_after(seconds: float) -> int:
        clock.now += seconds
        assert reserve.take(1, 0) is not None
        for _ in range(3):
            await asyncio.sleep(0)
        return oracle.given

    await reserve.ready(1, 0)
    assert await given_after(lasts - 0.1) == 1
    assert await given_after(0.2) == 2
    await reserve.close()


@pytest.mark.parametrize("nodes", [1, 10, 20, 64, 150])
def test_tick_time_of_many_busy_nodes_stays_near_the_clock(nodes: int) -> None:
    wall_ms, now = 1_800_000_000_000.0, 0.0
    source = TickSource(0, 3000)
    source.mark = 1 << 63
    due = [number / nodes for number in range(nodes)]
    farthest = 0.0
    while now < 1800:
        now += 0.02
        wall_ms += 20
        for number in range(nodes):
            if due[number] <= now:
                first = source.take(BATCH_TICKS, int(wall_ms), now)
                assert first is not None
                farthest = max(farthest, first / TICKS_PER_MS - wall_ms)
                assert source.ahead_ms < 10_000
                due[number] = now + lasts_s(source.ahead_ms)
    assert farthest / 1000 < 0.064 * nodes + 0.1
