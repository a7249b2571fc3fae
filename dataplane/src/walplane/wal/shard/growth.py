"""How much grows on one node: the policies that look at all of its PChannels together.

Contract: shared by the WALs of a node, which join and leave; one loop, nothing waits. Layer: wal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from walplane.wal.shard.config import GrowthConfig
from walplane.wal.shard.policies import GrowingSegment


class Grower(Protocol):
    """Where segments grow: one PChannel."""

    def candidates(self) -> Iterable[GrowingSegment]:
        """Its growing segments that take Inserts."""
        ...

    def retire(self, growing: GrowingSegment, reason: str) -> None:
        """Lets a segment take no more; it is sealed once all of it is written."""
        ...


def no_memory_limit() -> float:
    """The probe of a node whose memory nobody limits."""
    return 0.0


class NodeGrowth:
    """Seals the largest segments of a node while too much grows on it.

    Attributes:
        bytes: of all growing segments of the node that take Inserts.
    """

    def __init__(self, config: GrowthConfig, memory: Callable[[], float] = no_memory_limit) -> None:
        """Nothing grows yet; `memory` gives the share of the node's memory that is in use."""
        self.bytes = 0
        self._config = config
        self._memory = memory
        self._growers: dict[Grower, None] = {}
        self._look_at = float("-inf")

    def join(self, grower: Grower) -> None:
        """Segments may grow there from now on."""
        self._growers[grower] = None

    def leave(self, grower: Grower) -> None:
        """Nothing grows there any more."""
        self._growers.pop(grower, None)

    def relieve(self, now: float) -> None:
        """Retires what has to go, wherever on the node it is; `now` in monotonic seconds."""
        config = self._config
        if self.bytes > config.high_bytes:
            self._retire_down_to(int(config.high_bytes * config.low_share), "growing bytes")
        if now >= self._look_at:
            self._look_at = now + config.memory_look_s
            if self._memory() > config.memory_share and self.bytes:
                self._retire_down_to(self.bytes - 1, "node memory")

    def _retire_down_to(self, most: int, reason: str) -> None:
        growers = list(self._growers)
        found = [
            (-growing.bytes, growing.segment_id, index, growing)
            for index, grower in enumerate(growers)
            for growing in grower.candidates()
        ]
        for _, _, index, growing in sorted(found, key=lambda each: each[:3]):
            if self.bytes <= most:
                return
            growers[index].retire(growing, reason)
