"""What can be set about one StreamingClient, with defaults found by measurement. Layer: client."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, PositiveInt

from walplane.limits import Bytes, Seconds

DEFAULT_ADDRESS = "127.0.0.1:7650"


class ClientConfig(BaseModel):
    """Limits of one client; bytes and seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    append_timeout_s: Seconds = 60.0
    """How long an append waits for its answer when the call names no timeout."""
    call_timeout_s: Seconds = 30.0
    """Deadline of a catalog or status call."""
    connect_timeout_s: Seconds = 5.0
    """Deadline of opening one stream to a node."""
    entry_messages: PositiveInt = 4096
    """Messages that share one entry, at most."""
    entry_bytes: Bytes = 1 << 20
    """An entry is closed once it holds this much; a single message may be larger."""
    batches_in_flight: PositiveInt = 32
    """Unanswered entries per VChannel; far below the node's window of kept results."""
    eager_batches: PositiveInt = 4
    """While fewer are unanswered, whatever waits leaves at once; above, only full entries do."""
    eager_messages: PositiveInt = 64
    """So many leave while the program still makes others in the same turn of the loop: the node
    begins with them, and neither waits for the other to be done with all."""
    in_flight_bytes: Bytes = 16 << 20
    """Bytes of unanswered entries per VChannel."""
    pending_bytes: Bytes = 128 << 20
    """Bytes of appended and unanswered messages of the whole client; above it, append waits."""
    read_ahead_bytes: Bytes = 16 << 20
    """Credit of a reader: what may be on its way before the program has taken it."""
    open_txn_bytes: Bytes = 256 << 20
    """What a reader keeps of transactions until they end; above it, the read fails."""
    backoff_min_s: Seconds = 0.05
    backoff_max_s: Seconds = 2.0
