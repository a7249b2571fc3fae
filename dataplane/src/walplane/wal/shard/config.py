"""When a growing segment is sealed; bytes and seconds. Layer: wal."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from walplane.limits import MOST_BYTES, Bytes, Seconds


class ShardConfig(BaseModel):
    """The seal policies of one PChannel's segments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    segment_bytes: Bytes = 64 << 20
    """Capacity: an Insert that would make a segment larger begins another."""
    segment_rows: PositiveInt = 1_000_000
    """The same for its messages."""
    segment_lifetime_s: Seconds = 600.0
    """A segment is sealed this long after its creation, and one that recovery finds at once when
    it got nothing for this long."""
    segment_idle_s: Seconds = 60.0
    """A segment of at least `segment_idle_bytes` is sealed when it got nothing for this long."""
    segment_idle_bytes: int = Field(default=4 << 20, ge=0, le=MOST_BYTES)
    segment_files: PositiveInt = 32
    """A growing segment is sealed when its data lies in this many files already."""
    kept_segments: PositiveInt = 1000
    """Flushed segments, and dropped VChannels, that a PChannel remembers."""


class GrowthConfig(BaseModel):
    """How much may grow on one node, over all of its PChannels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    high_bytes: Bytes = 512 << 20
    """Above this many growing bytes the largest segments are sealed, the oldest of equals first."""
    low_share: float = Field(default=0.75, gt=0, le=1)
    """Until no more than this share of them is left."""
    memory_share: float = Field(default=0.85, gt=0, le=1)
    """Above this share of the node's memory the largest segment is sealed, one at a look."""
    memory_look_s: Seconds = 1.0
    """How often the node's memory is looked at."""
