"""What can be set about the coordinator. Layer: coord."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, PositiveInt

from walplane.limits import Seconds


class CoordSettings(BaseModel):
    """Limits and intervals of one coordinator; seconds unless the name says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ack_timeout_s: Seconds | None = None
    """No acknowledgement of the meta topic for this long: its client is replaced.

    None: the backend's time for an acknowledgement, at least 5 s, since a barrier may wait for
    the backend to change owners.
    """
    open_timeout_s: Seconds = 30.0
    """One attempt to open the meta topic."""
    close_timeout_s: Seconds = 5.0
    retry_s: tuple[Seconds, Seconds] = (0.1, 2.0)
    """First and longest pause between attempts: meta topic, broadcasts, assignments."""
    snapshot_deltas: PositiveInt = 1000
    """A snapshot of everything replaces the deltas once there are this many."""
    call_timeout_s: Seconds = 4.0
    """How long a caller waits for the meta topic: ticks, terms."""
    oracle_lead_ms: PositiveInt = 3000
    """How far ahead of the last tick the mark is persisted."""
    broadcast_timeout_s: Seconds = 30.0
    """One attempt to append to one VChannel."""
    assign_timeout_s: Seconds = 90.0
    """A node that has not confirmed a PChannel by then has failed to open it."""
    release_timeout_s: Seconds = 15.0
    concurrent_opens: PositiveInt = 8
    settled_s: Seconds = 10.0
    """A PChannel served for this long is assigned again at once when it is lost."""
