"""Gives each entry its ticks, in the order the entries came. Layer: wal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from walplane.wal.interceptors.base import AppendOp, Forward
from walplane.wal.ports import AppendResult
from walplane.wal.timetick.acks import AckManager, TickRange
from walplane.wal.timetick.reserve import TickReserve


class TimeTickInterceptor:
    """Allocates a contiguous range per entry; waits, in order, while there are no ticks."""

    def __init__(self, reserve: TickReserve, acks: Callable[[], AckManager]) -> None:
        """`acks` is asked each time: a self-reopen starts a new one."""
        self._reserve = reserve
        self._acks = acks
        self._turn = asyncio.Lock()

    async def append(self, op: AppendOp, forward: Forward) -> AppendResult:
        """Stamps ticks and forwards; the ticks are settled by whoever writes the entry."""
        async with self._turn:
            op.ticks = await self._allocate(op.entry.envelope.count)
        # Nothing runs between the allocation and the next link: the log keeps tick order.
        return await forward(op)

    async def _allocate(self, count: int) -> TickRange:
        while (first := self._reserve.take(count, self._acks().last_allocated)) is None:
            await self._reserve.ready(count, self._acks().last_allocated)
        return self._acks().allocate(first, count)
