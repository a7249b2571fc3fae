"""The life of one PChannel's assignment, as a value with transitions (rules §11).

Contract: pure. A term only grows, and grows with every grant; what is said about another term than
the present one changes nothing but the floor of the next term. Layer: assignment.

    UNINITIALIZED -> ASSIGNING -> ASSIGNED -> UNAVAILABLE -> ASSIGNING ...
                         `---- failure ---------^
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class ChannelState(enum.Enum):
    """Where a PChannel stands; names and values are those of `ChannelState` on the wire."""

    UNINITIALIZED = 0  # never granted to anybody by this coordinator
    ASSIGNING = 1  # granted under a new term, not yet confirmed
    ASSIGNED = 2  # its node confirmed that it serves
    UNAVAILABLE = 3  # lost, released or failed; waits for the next grant


@dataclass(frozen=True, slots=True)
class Channel:
    """One PChannel's assignment.

    Attributes:
        pchannel: its name.
        term: highest term granted so far; 0 = none.
        state: where it stands.
        node_id: holder of `term`; empty while nobody has it.
        term_floor: highest term seen in its log; the next grant lies above it.
        attempts: failed attempts since it was last served.
        reason: why it is not served, when it is not.
    """

    pchannel: str
    term: int = 0
    state: ChannelState = ChannelState.UNINITIALIZED
    node_id: str = ""
    term_floor: int = 0
    attempts: int = 0
    reason: str = ""

    @property
    def next_term(self) -> int:
        """The term of the next grant: above every grant and above all its log has seen."""
        return max(self.term, self.term_floor) + 1

    def granted(self, node_id: str, term: int) -> Channel:
        """ASSIGNING to `node_id`, once `term` is persisted.

        Raises:
            ValueError: somebody holds it, or `term` is not `next_term`.
        """
        if self.state in (ChannelState.ASSIGNING, ChannelState.ASSIGNED):
            raise ValueError(f"{self.pchannel} is {self.state.name}: it must be taken away first")
        if term != self.next_term:
            raise ValueError(f"{self.pchannel}: term {term} granted, {self.next_term} is next")
        return replace(self, state=ChannelState.ASSIGNING, node_id=node_id, term=term)

    def confirmed(self, term: int) -> Channel:
        """ASSIGNED, when its node says that it serves under the present term."""
        if term != self.term or self.state is not ChannelState.ASSIGNING:
            return self
        return replace(self, state=ChannelState.ASSIGNED, attempts=0, reason="")

    def failed(self, term: int, reason: str, term_floor: int = 0) -> Channel:
        """UNAVAILABLE, when the holder of the present term failed to open or stopped serving."""
        floor = max(self.term_floor, term_floor)
        held = self.state in (ChannelState.ASSIGNING, ChannelState.ASSIGNED)
        if term != self.term or not held:
            return replace(self, term_floor=floor)
        return replace(
            self,
            state=ChannelState.UNAVAILABLE,
            node_id="",
            term_floor=floor,
            attempts=self.attempts + 1,
            reason=reason,
        )

    def released(self, term: int, reason: str) -> Channel:
        """UNAVAILABLE, when the holder of the present term gave it back in good order."""
        if term != self.term or self.state is not ChannelState.ASSIGNED:
            return self
        return replace(self, state=ChannelState.UNAVAILABLE, node_id="", reason=reason)
