"""Who may append to this cluster: its own clients, or the primary that it copies. Layer: wal.

Contract: a primary takes nothing that carries a replicate header; a secondary takes nothing else,
but for what the WAL makes by itself and the types that any role may append (rules §14). It
stands behind the locks, so that a change of the role, which is exclusive, has no append beside it,
and before the ticks: what is refused takes none. Where a primary's messages were appended up to,
and which of them are repeats, belongs into this link as well.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable

from walplane.message.registry import spec_of
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.interceptors.base import AppendOp, Forward
from walplane.wal.ports import AppendResult


class ReplicationRole(enum.Enum):
    """What a cluster is among those that replicate; one that does not is a primary."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


class ReplicateInterceptor:
    """The role check of one PChannel."""

    def __init__(self, pchannel: str, role: Callable[[], ReplicationRole]) -> None:
        """`role` is asked for each append: it changes while appends go on."""
        self._pchannel = pchannel
        self._role = role

    def append(self, op: AppendOp, forward: Forward) -> Awaitable[AppendResult]:
        """Forwards what the role allows.

        Raises:
            WalError: REPLICATE_VIOLATION, at once; nothing was written.
        """
        envelope = op.envelope
        if self._role() is ReplicationRole.PRIMARY:
            if envelope.HasField("replicate"):
                raise self._violation("replicates from nobody: append without a replicate header")
        elif not (op.own or envelope.HasField("replicate") or _free(envelope)):
            raise self._violation("is a copy of another cluster: append to the primary")
        return forward(op)

    def _violation(self, why: str) -> WalError:
        return WalError(
            ErrorCode.REPLICATE_VIOLATION, f"the cluster of PChannel {self._pchannel} {why}"
        )


def _free(envelope: log_pb2.Envelope) -> bool:
    spec = spec_of(envelope.type)
    return spec.self_controlled or spec.any_role
