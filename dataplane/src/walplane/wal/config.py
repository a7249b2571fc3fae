"""What can be set about one WAL, with defaults found by measurement. Layer: wal."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt

from walplane.limits import Bytes, Seconds
from walplane.wal.shard.config import ShardConfig

RETENTION_S = 259_200.0
"""How long what is stored as segments stays in the log as well, unless it is said: three days."""


class WALConfig(BaseModel):
    """Limits and intervals of one PChannel's WAL; bytes and seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames_in_flight: PositiveInt = 16
    frame_bytes: Bytes = 1 << 20
    """A frame is closed once its entries, envelopes included, hold this much; one may be larger."""
    write_ahead_bytes: Bytes = 32 << 20
    """Confirmed entries kept in memory for tailing readers, with all that comes with each."""
    open_timeout_s: Seconds = 60.0
    """An open that gets no further for this long fails and releases all it took.

    Each read of a replay is a step further, so that a long tail is opened at the first try.
    """
    ack_timeout_s: Seconds | None = None
    """No acknowledgement for this long: a self-reopen. None: as the backend says."""
    barrier_timeout_s: Seconds | None = None
    """The same for barriers and metadata, which may wait for the backend to change owners.

    None: the backend's time for an acknowledgement, at least 5 s.
    """
    stall_limit_s: Seconds = 5.0
    """A process that did not run for this long (half a lease) trusts nothing it hears."""
    silence_s: Seconds = 1.0
    """After this long without entries the watermark is written down as a TimeTick."""
    idle_tick_s: Seconds = 0.2
    """How often an idle WAL moves its watermark for tailing readers."""
    checkpoint_s: Seconds = 10.0
    checkpoint_bytes: Bytes = 64 << 20
    """A checkpoint is written after this long or this much, whichever comes first."""
    retention_s: NonNegativeFloat = RETENTION_S
    """How long what is stored as segments stays in the log as well, for readers; three days.

    Infinity is for ever.
    """
    close_timeout_s: Seconds = 10.0
    producer_results: PositiveInt = 256
    """Results kept per producer and VChannel: how far back a repeat is answered."""
    producers: PositiveInt = 10_000
    """Producers, one a client and VChannel, of which is known what they wrote."""
    producer_bytes: Bytes = 16 << 20
    """What these and their results take in memory, at most; as much again in open transactions."""
    producer_age_s: Seconds = 86_400.0
    """How long results are kept at most, in tick time; which number is due, seven times as long."""
    named_producers: PositiveInt = 10_000
    """Named producers that are kept, one a name and VChannel; a new name above that is refused."""
    named_producer_age_s: Seconds = 2_592_000.0
    """How long a name is kept that nobody opens or appends under, in tick time; thirty days."""
    key_results: PositiveInt = 20_000
    """Results kept of appends under callers' idempotency keys, per PChannel."""
    key_bytes: Bytes = 8 << 20
    """What these take, at most."""
    key_age_s: Seconds = 86_400.0
    """How long they are kept at most, in tick time."""
    open_txns: PositiveInt = 10_000
    """Transactions open at once; a Begin above that is refused with a hint to try again."""
    txn_results: PositiveInt = 10_000
    """Ended transactions whose end is remembered: how far back a Commit is answered again."""
    shard: ShardConfig = ShardConfig()
