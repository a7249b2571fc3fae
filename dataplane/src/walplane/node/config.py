"""What can be set about one StreamingNode. Layer: node."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from walplane.wal.config import WALConfig
from walplane.wal.shard.config import GrowthConfig


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
    drain_timeout_s: PositiveFloat = 5.0
    """How long a stream that ends waits for the answers to its appends."""
