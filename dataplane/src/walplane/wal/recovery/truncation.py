"""Cutting off the head of a data topic. Layer: wal.

Contract: nothing fences a truncation, so its place comes only from a checkpoint that was read back
from the fenced meta topic: the lower of its LastConfirmed and of the position up to which segment
data is stored. What is cut off a little less than it might be costs only room.
"""

from __future__ import annotations

import structlog

from walplane.backends.interface import BackendSession
from walplane.message.ids import MessageID
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.recovery.segments.table import SegmentTable

_log = structlog.get_logger(__name__)


class Truncation:
    """The truncations of one log."""

    def __init__(self, pchannel: str, table: SegmentTable, retention_s: float) -> None:
        """Nothing was cut off yet; what is safe stays for `retention_s` seconds of ticks."""
        self._pchannel = pchannel
        self._table = table
        self._retention_s = retention_s
        self._cut: MessageID | None = None

    async def after(
        self, session: BackendSession, checkpoint: log_pb2.WALCheckpoint, stored: MessageID | None
    ) -> None:
        """Cuts off what `checkpoint`, read back, needs no more; one that fails is left to the next.

        Args:
            session: a client of the backend.
            checkpoint: what the meta topic holds.
            stored: from here on segment data is not stored, by the same snapshot.
        """
        if stored is None or not checkpoint.HasField("last_confirmed"):
            return
        safe = min(MessageID.from_proto(checkpoint.last_confirmed), stored)
        cut = self._table.cut(safe, checkpoint.time_tick, self._retention_s)
        if cut is None or (self._cut is not None and cut.record <= self._cut.record):
            return
        try:
            await session.truncate(self._pchannel, cut.record)
        except WalError as error:
            _log.warning("not cut off, next time", pchannel=self._pchannel, error=str(error))
        else:
            self._cut = cut
            _log.debug("cut off", pchannel=self._pchannel, at=str(cut))
