"""Bytes of segments that wait in memory, over all logs of a node. Layer: wal.

Contract: whoever exceeds the budget has the largest backlog stored before it reads on; so memory
stays bounded also when the store is away, and then the logs alone grow.
"""

from __future__ import annotations

from typing import Protocol


class Member(Protocol):
    """One log's flusher."""

    @property
    def backlog_bytes(self) -> int:
        """What waits in memory."""
        ...

    async def relieve(self) -> None:
        """Stores its largest stream; returns when it is stored, or this one is over."""
        ...


class SegmentBudget:
    """Shared by the flushers of one process.

    Attributes:
        max_bytes: above it, something is stored.
    """

    def __init__(self, max_bytes: int) -> None:
        """Nothing waits yet."""
        self.max_bytes = max_bytes
        self._members: set[Member] = set()

    @property
    def used(self) -> int:
        """Bytes that wait now."""
        return sum(each.backlog_bytes for each in self._members)

    def join(self, member: Member) -> None:
        """Counts `member` in."""
        self._members.add(member)

    def leave(self, member: Member) -> None:
        """Counts `member` out; idempotent."""
        self._members.discard(member)

    async def wait_below(self) -> None:
        """Returns once no more than the budget waits in memory."""
        while self.used > self.max_bytes:
            await max(self._members, key=lambda each: each.backlog_bytes).relieve()
