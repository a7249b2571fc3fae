"""What a node does about one PChannel, given its Lease. Pure.

Contract (rules §12): the Lease alone decides. Another holder or a higher term: stop at once.
A term lower than seen, or a missing Lease, is no order. A grant is opened once; what was opened and
is held no more is given back, never opened again under the same term. Layer: lease.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from walplane.lease.contract import PChannelLease


class Phase(enum.Enum):
    """What the process does with the PChannel."""

    IDLE = "idle"
    OPENING = "opening"
    SERVING = "serving"
    CLOSING = "closing"  # released: what is in flight is answered first


class Mode(enum.Enum):
    """Whether the process stays."""

    STAYING = "staying"
    DRAINING = "draining"  # takes nothing new, serves until it is asked back
    LEAVING = "leaving"  # gives everything back by itself


class Action(enum.Enum):
    """The next step."""

    NOTHING = "nothing"
    OPEN = "open under the Lease's term"
    CONFIRM = "write that it serves"
    CLOSE = "answer what is in flight, then close"
    GIVE_BACK = "clear the holder"
    STOP = "end it at once"


@dataclass(frozen=True)
class Local:
    """What the process knows about one PChannel.

    Attributes:
        phase: what it does with it.
        term: the term of that phase; 0 when idle.
        seen: highest term it ever saw granted, to anybody.
        over: highest term it opened, or tried to open, and does not hold any more.
    """

    phase: Phase = Phase.IDLE
    term: int = 0
    seen: int = 0
    over: int = 0

    @property
    def active(self) -> bool:
        """Whether it holds the log, or is taking it or letting go of it."""
        return self.phase is not Phase.IDLE


def decide(lease: PChannelLease | None, me: str, local: Local, mode: Mode) -> Action:
    """The next step of process `me`; `lease` is None when a complete list lacks it."""
    if lease is None:
        return _without_lease(local, mode)
    if lease.term < max(local.seen, local.term):
        return Action.NOTHING
    mine = lease.holder == me
    if local.active and (not mine or lease.term > local.term):
        return Action.STOP
    if not mine:
        return Action.NOTHING
    asked_back = lease.release == lease.term or mode is Mode.LEAVING
    if not local.active:
        refuse = lease.term <= local.over or asked_back or mode is Mode.DRAINING
        return Action.GIVE_BACK if refuse else Action.OPEN
    if local.phase is Phase.CLOSING:
        return Action.NOTHING
    if asked_back:
        return Action.CLOSE
    if local.phase is Phase.SERVING and lease.ready_term != lease.term:
        return Action.CONFIRM
    return Action.NOTHING


def _without_lease(local: Local, mode: Mode) -> Action:
    """A missing Lease is no order; but a process that ends waits for none."""
    held = local.phase in (Phase.OPENING, Phase.SERVING)
    return Action.CLOSE if held and mode is not Mode.STAYING else Action.NOTHING
