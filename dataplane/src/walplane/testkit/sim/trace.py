"""What the simulation notes about a run beside what clients saw. Layer: testkit."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Opened:
    """A WAL that came to serve."""

    pchannel: str
    term: int
    node: str
    began: float


@dataclass
class Trace:
    """Notes for checkers; times are virtual seconds.

    Attributes:
        opens: first opens that succeeded.
        counts: how often what happened.
    """

    opens: list[Opened] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def opened(self, pchannel: str, term: int, node: str, began: float) -> None:
        """A node serves a PChannel from now on; its open began at `began`."""
        self.opens.append(Opened(pchannel, term, node, began))

    def count(self, what: str) -> None:
        """Counts one more."""
        self.counts[what] = self.counts.get(what, 0) + 1
