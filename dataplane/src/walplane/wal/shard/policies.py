"""Which growing segment is due by its own age and size. Pure. Layer: wal."""

from __future__ import annotations

from dataclasses import dataclass

from walplane.ticks import TICKS_PER_MS
from walplane.wal.shard.config import ShardConfig
from walplane.wal.shard.segments import Segment


@dataclass(slots=True, eq=False)
class GrowingSegment:
    """A growing segment as its owner assigns it, ahead of what is written already.

    Attributes:
        segment_id: tick of its CreateSegment.
        vchannel: where it is.
        partition_id: which Inserts it takes.
        rows: messages assigned, those of transactions that may be rolled back too.
        bytes: of their bodies.
        created: when it was made, in monotonic seconds.
        touched: when it last got something.
        recovered: whether it was there when the log was opened.
        in_flight: Inserts that are assigned and not written yet.
        retired: why it takes nothing any more; empty while it does.
    """

    segment_id: int
    vchannel: str
    partition_id: int
    rows: int
    bytes: int
    created: float
    touched: float
    recovered: bool = False
    in_flight: int = 0
    retired: str = ""

    @classmethod
    def recover(cls, segment: Segment, tick: int, now: float) -> GrowingSegment:
        """One that the log shows; its age is that of its ticks at `tick`, which is now."""
        return cls(
            segment.segment_id,
            segment.vchannel,
            segment.partition_id,
            segment.rows,
            segment.bytes,
            now - _seconds(tick - segment.segment_id),
            now - _seconds(tick - segment.last_tick),
            recovered=True,
        )

    def fits(self, rows: int, size: int, config: ShardConfig) -> bool:
        """Whether it takes so much more; an empty one takes anything."""
        if not self.rows:
            return True
        enough_rows = self.rows + rows <= config.segment_rows
        return enough_rows and self.bytes + size <= config.segment_bytes


def due(growing: GrowingSegment, config: ShardConfig, now: float) -> tuple[str, float]:
    """Why it is to be sealed, empty if it is not; and when to look again at the latest."""
    if growing.recovered and now >= growing.touched + config.segment_lifetime_s:
        return "recovered and stale", now
    if now >= (ends := growing.created + config.segment_lifetime_s):
        return "lifetime", now
    idle = growing.touched + config.segment_idle_s
    if growing.bytes < config.segment_idle_bytes:
        return "", min(ends, now + config.segment_idle_s)
    return ("idle", now) if now >= idle else ("", min(ends, idle))


def _seconds(ticks: int) -> float:
    return ticks // TICKS_PER_MS / 1000
