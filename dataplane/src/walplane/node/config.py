"""What can be set about one StreamingNode. Layer: node."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from walplane.limits import Bytes, Seconds
from walplane.rpc.flow import MOST_UNGRANTED_BYTES
from walplane.wal.config import WALConfig
from walplane.wal.shard.config import GrowthConfig

TURN_BYTES = 4 << 20
"""What one reader holds while it is sent something: what was read, a batch, and a response of it.

More by the frames that nothing let go yet, whose entries take more than their bytes.
"""

_BUDGETS = ("node_append_bytes", "read_bytes", "write_ahead_bytes", "segment_bytes")
_LEAST_BYTES = 16 << 20
"""Of each budget, so that the largest entries and a few turns of readers fit."""


class NodeConfig(BaseModel):
    """Limits of one StreamingNode; bytes and seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wal: WALConfig = Field(default_factory=WALConfig)
    growth: GrowthConfig = Field(default_factory=GrowthConfig)
    node_append_bytes: Bytes = 128 << 20
    """Entries in flight over all Produce streams; above it the streams are not read on."""
    stream_append_bytes: Bytes = 32 << 20
    """The same for one Produce stream."""
    response_bytes: Bytes = 1 << 20
    """A response of a Consume stream is closed once it holds this much, envelopes included."""
    credit_bytes: Bytes = 64 << 20
    """More credit than this is not kept, however much a consumer grants; 4 MiB at least."""
    read_bytes: Bytes = 256 << 20
    """What all readers may hold at a time of entries that are on their way, and of their copies."""
    reader_patience_s: Seconds = 5.0
    """A reader that takes nothing for this long while others wait has to come again."""
    write_ahead_bytes: Bytes = 512 << 20
    """Entries in memory for tailing readers, of all PChannels; each has a limit of its own too."""
    segment_bytes: Bytes = 256 << 20
    """Rows that wait for their segment to be sealed; above it they are stored before."""
    drain_timeout_s: Seconds = 5.0
    """How long a stream that ends waits for the answers to its appends."""

    @field_validator("credit_bytes")
    @classmethod
    def _lets_readers_go_on(cls, size: int) -> int:
        if size < MOST_UNGRANTED_BYTES:
            raise ValueError(
                f"a reader may keep {MOST_UNGRANTED_BYTES} bytes of credit back: were less kept "
                "here, both would wait for ever"
            )
        return size

    def within(self, memory_bytes: int | None) -> NodeConfig:
        """The same with budgets that leave half of a container's memory to all else.

        Interpreter, backend and its caches have the other half. The budgets keep their proportions,
        down to 16 MiB each.

        Args:
            memory_bytes: what the container may use; None: nothing limits it.
        """
        budgets: dict[str, int] = {name: getattr(self, name) for name in _BUDGETS}
        wanted = sum(budgets.values())
        if memory_bytes is None or wanted <= memory_bytes // 2:
            return self
        smaller = {
            name: max(size * (memory_bytes // 2) // wanted, min(size, _LEAST_BYTES))
            for name, size in budgets.items()
        }
        smaller["stream_append_bytes"] = min(self.stream_append_bytes, smaller["node_append_bytes"])
        return self.model_copy(update=smaller)

    @property
    def channel_append_bytes(self) -> int:
        """Of `node_append_bytes`, for one PChannel: one that hangs leaves room for the others."""
        return max(self.node_append_bytes // 2, 1)

    @property
    def read_turns(self) -> int:
        """Readers that may be sent something at a time."""
        return max(self.read_bytes // TURN_BYTES, 1)
