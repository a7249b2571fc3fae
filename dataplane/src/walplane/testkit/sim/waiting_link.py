"""A stand-in for links of the append chain that wait, between the ticks and the backend.

Contract: appends of one VChannel keep their order, those of different ones overtake each other, so
that log order and tick order differ. The product's own links do not wait there; what may come to
wait must go on holding this way. An append that was overtaken by a self-reopen takes new ticks, and
a segment of the new open. Whoever waits there for a second is taken for lost (`Upkeep`).
Layer: testkit.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import ClassVar

from walplane.wal.config import WALConfig
from walplane.wal.interceptors.base import AppendOp
from walplane.wal.interceptors.timetick import give_ticks
from walplane.wal.opener import OpenedLog
from walplane.wal.ownership import WALDeps
from walplane.wal.ports import AppendResult
from walplane.wal.timetick.acks import TickRange
from walplane.wal.wal import WAL


class Draws:
    """How long each append waits."""

    def __init__(self, seed: int, share: float) -> None:
        """A `share` of them wait, up to 50 ms."""
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._share = share

    def next(self) -> float:
        """Seconds for the next one."""
        return self._random.random() * 0.05 if self._random.random() < self._share else 0.0


class _Line:
    """Those of one VChannel that wait, in order."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.last_tick = 0


class WaitingWAL(WAL):
    """A WAL whose appends wait for as long as `draws` says."""

    draws: ClassVar[Draws]

    def __init__(self, pchannel: str, term: int, deps: WALDeps, config: WALConfig) -> None:
        """Nobody waits."""
        super().__init__(pchannel, term, deps, config)
        self._lines: defaultdict[str, _Line] = defaultdict(_Line)

    async def _submit(self, op: AppendOp) -> AppendResult:
        acks = self._acks
        line = self._lines[op.vchannel]
        async with line.turn:
            if (seconds := self.draws.next()) > 0:
                await asyncio.sleep(seconds)
            self.check()
            ticks = op.ticks
            if ticks is None:
                raise AssertionError("an append came without ticks")
            if self._acks is not acks:
                ticks = await self._begin_again(op)
            elif ticks.first < line.last_tick:  # the one before it took new ones
                acks.settle(ticks)
                ticks = op.ticks = await self._new_ticks(op)
            line.last_tick = ticks.last
            result = self._appender.submit(op)
        return await result

    def _serve(self, opened: OpenedLog) -> None:
        """Lets go of the ticks of the open before: whatever had them is written, or gets others.

        Otherwise what is written above a tick that still waits would never reach tailing readers.
        """
        if hasattr(self, "_acks"):
            for ticks in list(self._acks._open):
                self._acks.settle(ticks)
        super()._serve(opened)

    async def _begin_again(self, op: AppendOp) -> TickRange:
        """New ticks and, if it needs one, a new segment: what was assigned before may be lost."""
        while True:
            needed = self.shards.plan(op) + op.count
            first = self._deps.reserve.take(needed, self._acks.last_allocated)
            if first is not None:
                break
            await self._deps.reserve.ready(needed, self._acks.last_allocated)
        ticks = give_ticks(op, first, needed, self._acks)
        if (created := self.shards.assign(op)) is not None:
            self._appender.submit(created)
        return ticks

    async def _new_ticks(self, op: AppendOp) -> TickRange:
        count = op.count
        while (first := self._deps.reserve.take(count, self._acks.last_allocated)) is None:
            await self._deps.reserve.ready(count, self._acks.last_allocated)
        return self._acks.allocate(first, count)


def waiting(draws: Draws) -> type[WAL]:
    """WALs whose appends wait for as long as `draws` says."""
    return type("WaitingWAL", (WaitingWAL,), {"draws": draws})
