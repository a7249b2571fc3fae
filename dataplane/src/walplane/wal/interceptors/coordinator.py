"""Broadcasts of a coordinator that was replaced are not written any more. Layer: wal.

Contract: the terms of coordinators never fall along the log (rules §11). A term is taken for
seen in the step in which its message goes on to get its ticks: what comes behind that, and was
sent by a coordinator before, would lie behind it in the log. Stands behind the locks, where
messages wait, and before the ticks: what is refused takes none. A repeat of what is written was
answered before, whoever sent it.
"""

from __future__ import annotations

from collections.abc import Awaitable

from walplane.rpc.errors import ErrorCode, WalError
from walplane.wal.interceptors.base import AppendOp, Forward
from walplane.wal.ports import AppendResult
from walplane.wal.recovery.state import RecoveryState, coord_term_of


class CoordinatorInterceptor:
    """The check of coordinators' terms of one PChannel."""

    def __init__(self, pchannel: str, recovery: RecoveryState) -> None:
        """`recovery` knows the highest term in the log."""
        self._pchannel = pchannel
        self._recovery = recovery
        self._seen = 0

    def append(self, op: AppendOp, forward: Forward) -> Awaitable[AppendResult]:
        """Forwards what is no broadcast, and those of the latest coordinator.

        Raises:
            WalError: UNMATCHED_CHANNEL_TERM for one of an earlier coordinator, at once; nothing was
                written. That one goes on trying until it learns that it was replaced; its successor
                has what it began.
        """
        if (term := coord_term_of(op.envelope)) is not None:
            highest = max(self._seen, self._recovery.coord_term)
            if term < highest:
                raise self._replaced(op, term, highest)
            self._seen = term
        return forward(op)

    def _replaced(self, op: AppendOp, term: int, highest: int) -> WalError:
        return WalError(
            ErrorCode.UNMATCHED_CHANNEL_TERM,
            f"broadcast {op.envelope.broadcast.broadcast_id} for {op.vchannel!r} is of coordinator "
            f"term {term}, and PChannel {self._pchannel} has seen {highest}: leave it to the "
            "coordinator that came after",
        )
