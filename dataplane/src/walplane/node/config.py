"""What can be set about one StreamingNode. Layer: node."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from walplane.wal.config import WALConfig
from walplane.wal.shard.config import GrowthConfig

TURN_BYTES = 4 << 20
"""What one reader holds while it is sent something: a batch of entries, and a response of them."""


class NodeConfig(BaseModel):
    """Limits of one StreamingNode; bytes and seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wal: WALConfig = Field(default_factory=WALConfig)
    growth: GrowthConfig = Field(default_factory=GrowthConfig)
    node_append_bytes: PositiveInt = 128 << 20
    """Entries in flight over all Produce streams; above it the streams are not read on."""
    stream_append_bytes: PositiveInt = 32 << 20
    """The same for one Produce stream."""
    response_bytes: PositiveInt = 1 << 20
    """A response of a Consume stream is closed once it holds this much, envelopes included."""
    credit_bytes: PositiveInt = 64 << 20
    """More credit than this is not kept, however much a consumer grants."""
    read_bytes: PositiveInt = 256 << 20
    """What all readers may hold at a time of entries that are on their way, and of their copies."""
    reader_patience_s: PositiveFloat = 5.0
    """A reader that takes nothing for this long while others wait has to come again."""
    write_ahead_bytes: PositiveInt = 512 << 20
    """Entries in memory for tailing readers, of all PChannels; each has a limit of its own too."""
    segment_bytes: PositiveInt = 256 << 20
    """Rows that wait for their segment to be sealed; above it they are stored before."""
    drain_timeout_s: PositiveFloat = 5.0
    """How long a stream that ends waits for the answers to its appends."""

    @property
    def read_turns(self) -> int:
        """Readers that may be sent something at a time."""
        return max(self.read_bytes // TURN_BYTES, 1)
