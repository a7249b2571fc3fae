"""Gives each entry its ticks, in the order the entries came; transactions live here. Layer: wal.

Contract: Begin, bodies and Commit need the tick and are settled with it, so they are no link of
their own (semantics §7). Between the allocation and the next link nothing runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from walplane.message.registry import MessageType
from walplane.message.txn import is_part
from walplane.wal.interceptors.base import AppendOp, Forward
from walplane.wal.meter import LogMeter
from walplane.wal.ports import AppendResult
from walplane.wal.timetick.acks import AckManager, TickRange
from walplane.wal.timetick.reserve import TickReserve
from walplane.wal.txn.sessions import TxnSessions

_ENDS = frozenset({MessageType.COMMIT_TXN, MessageType.ROLLBACK_TXN})


class TimeTickInterceptor:
    """Allocates a contiguous range per entry; waits, in order, while there are no ticks."""

    def __init__(
        self,
        reserve: TickReserve,
        acks: Callable[[], AckManager],
        sessions: TxnSessions,
        meter: LogMeter,
        monotonic: Callable[[], float],
    ) -> None:
        """`acks` is asked each time: a self-reopen starts a new one.

        `meter` is told of waits, in the seconds of `monotonic`.
        """
        self._reserve = reserve
        self._acks = acks
        self._sessions = sessions
        self._meter = meter
        self._monotonic = monotonic
        self._turn = asyncio.Lock()

    async def append(self, op: AppendOp, forward: Forward) -> AppendResult:
        """Stamps ticks and forwards; the ticks are settled by whoever writes the entry.

        Raises:
            WalError: INVALID_REQUEST_SEQ when the batch before it was refused while both waited;
                for a part of a transaction as `TxnSessions` says.
        """
        envelope = op.entry.envelope
        if not is_part(envelope):
            return await self._write(op, forward)
        if envelope.type in _ENDS:
            await self._sessions.begin_end(envelope, expired=op.own)
            try:
                return await self._write(op, forward)
            finally:
                self._sessions.end_over(envelope)
        self._sessions.enter(envelope)
        try:
            return await self._write(op, forward)
        finally:
            self._sessions.leave(envelope)

    async def _write(self, op: AppendOp, forward: Forward) -> AppendResult:
        async with self._turn:
            op.ticks = await self._allocate(op)
        # Nothing runs between the allocation and the next link: the log keeps tick order.
        return await forward(op)

    async def _allocate(self, op: AppendOp) -> TickRange:
        count = op.entry.envelope.count
        op.check_before()
        first = self._reserve.take(count, self._acks().last_allocated)
        if first is None:
            first = await self._wait(op, count)
        return self._acks().allocate(first, count)

    async def _wait(self, op: AppendOp, count: int) -> int:
        self._meter.wait_begins(op, self._monotonic())
        try:
            while True:
                await self._reserve.ready(count, self._acks().last_allocated)
                op.check_before()
                first = self._reserve.take(count, self._acks().last_allocated)
                if first is not None:
                    return first
        finally:
            self._meter.wait_over(op)
