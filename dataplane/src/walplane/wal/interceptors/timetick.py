"""Gives each entry its ticks, in the order the entries came; transactions live here. Layer: wal.

Contract: Begin, bodies and Commit need the tick and are settled with it, so they are no link of
their own (rules §7). Between the allocation and the next link nothing runs. What the links
behind need to know before, they say when they are asked for their `leads`, in that same step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from walplane.message.registry import MessageType
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
        leads: Callable[[AppendOp], int],
        meter: LogMeter,
        monotonic: Callable[[], float],
    ) -> None:
        """Gives ticks from `reserve`.

        Args:
            reserve: the node's.
            acks: asked each time: a self-reopen starts a new one.
            sessions: transactions.
            leads: how many ticks are needed for entries before this one, 0 or 1; may refuse it.
            meter: told of waits.
            monotonic: seconds.
        """
        self._leads = leads
        self._reserve = reserve
        self._acks = acks
        self._sessions = sessions
        self._meter = meter
        self._monotonic = monotonic
        self._turn = asyncio.Lock()
        self._waiting = 0

    def append(self, op: AppendOp, forward: Forward) -> Awaitable[AppendResult]:
        """Stamps ticks and forwards; the ticks are settled by whoever writes the entry.

        Raises:
            WalError: INVALID_REQUEST_SEQ when the batch before it was refused while both waited;
                for a part of a transaction as `TxnSessions` says; whatever `leads` refuses with.
        """
        if op.part:
            return self._write_part(op, forward)
        if self._waiting or not self._take(op):
            return self._write_in_turn(op, forward)
        # Nothing runs between the allocation and the next link: the log keeps tick order.
        return forward(op)

    async def _write_part(self, op: AppendOp, forward: Forward) -> AppendResult:
        envelope = op.envelope
        if envelope.type in _ENDS:
            await self._sessions.begin_end(envelope, expired=op.own)
            try:
                return await self._write_in_turn(op, forward)
            finally:
                self._sessions.end_over(envelope)
        self._sessions.enter(envelope)
        try:
            return await self._write_in_turn(op, forward)
        finally:
            self._sessions.leave(envelope)

    async def _write_in_turn(self, op: AppendOp, forward: Forward) -> AppendResult:
        self._waiting += 1  # who comes from now on waits behind
        try:
            async with self._turn:
                if not self._take(op):
                    await self._wait_for_ticks(op)
        finally:
            self._waiting -= 1
        return await forward(op)

    async def _wait_for_ticks(self, op: AppendOp) -> None:
        self._meter.wait_begins(op, self._monotonic())
        try:
            while not self._take(op):
                # With one more for what may have to precede it.
                needed = op.count + 1
                await self._reserve.ready(needed, self._acks().last_allocated)
        finally:
            self._meter.wait_over(op)

    def _take(self, op: AppendOp) -> bool:
        """Asks the links behind and gives `op` its ticks, in one step; False while there are none.

        Raises:
            WalError: they refuse it, or the batch before it was refused.
        """
        op.check_before()
        needed, acks = self._leads(op) + op.count, self._acks()
        first = self._reserve.take(needed, acks.last_allocated)
        if first is None:
            return False
        give_ticks(op, first, needed, acks)
        return True


def give_ticks(op: AppendOp, first: int, ticks: int, acks: AckManager) -> TickRange:
    """Stamps `op` with the last of `ticks` ticks from `first` on, its lead with those before."""
    leads = ticks - op.count
    op.lead = acks.allocate(first, leads) if leads else None
    op.ticks = acks.allocate(first + leads, op.count)
    return op.ticks
