"""Deletes what the segment store holds of dropped collections, beside the log. Layer: wal.

Contract: an object goes when a checkpoint that was read back covers the drop, its position lies
behind the drop, so that nobody writes the object again, and the drop is older than the retention.
Whoever owns the log repeats what was not finished; a store that fails is tried until the log is
over, and holds up nothing.
"""

from __future__ import annotations

import asyncio

import structlog

from walplane.ticks import ticks_in
from walplane.wal.config import WALConfig
from walplane.wal.recovery.segments.store import SegmentStore
from walplane.wal.recovery.segments.storing import SegmentDeps
from walplane.wal.recovery.segments.table import Dropped, SegmentTable
from walplane.wal.recovery.segments.units import collection_folder, lies_in

_log = structlog.get_logger(__name__)

_AT_ONCE = 1000
_BACKOFF_S = (0.1, 30.0)


class Deletion:
    """The deletions of one log."""

    def __init__(
        self, pchannel: str, table: SegmentTable, config: WALConfig, deps: SegmentDeps | None
    ) -> None:
        """Objects stay for the retention, in ticks, behind the drop; without `deps`, for ever."""
        self._pchannel = pchannel
        self._table = table
        self._wait = ticks_in(config.retention_s)
        self._deps = deps
        self._busy = False

    async def after(self, tick: int, position: int) -> None:
        """Deletes what may go now, unless something goes already.

        Args:
            tick: of a checkpoint that was read back.
            position: up to which everything is stored, by the same snapshot.
        """
        if self._busy or self._deps is None:
            return
        self._busy = True
        try:
            for gone in self.due(tick, position):
                await self._delete(self._deps.store, gone)
                self._table.deleted(gone.vchannel)
        finally:
            self._busy = False

    def due(self, tick: int, position: int) -> list[Dropped]:
        """What may go, by a checkpoint and a position as `after` takes them."""
        limit = min(tick - self._wait, position)
        return [gone for gone in self._table.dropped.values() if gone.tick <= limit]

    async def _delete(self, store: SegmentStore, gone: Dropped) -> None:
        folder = collection_folder(self._pchannel, gone.collection_id)
        delay, most = _BACKOFF_S
        while True:
            try:
                found = [path for path in await store.paths(folder) if lies_in(path, gone.vchannel)]
                for first in range(0, len(found), _AT_ONCE):
                    await store.delete(found[first : first + _AT_ONCE])
                if not found:
                    _log.info("objects deleted", vchannel=gone.vchannel)
                    return
            except Exception as error:
                _log.warning("objects stay for now", vchannel=gone.vchannel, reason=repr(error))
            await asyncio.sleep(delay)
            delay = min(2 * delay, most)
