"""Says which segment an Insert is in, and announces a new one before it. Layer: wal.

Contract: what breaks an order rule was refused before it got ticks (`ShardManager.plan`). This link
never waits: the entry and the CreateSegment before it enter the queue in the step in which they got
their ticks, so they stand in the log in that order. Nothing can change between that decision and
the queue, so there is nothing that would have to be done again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from walplane.wal.interceptors.base import AppendOp, Forward
from walplane.wal.ports import AppendResult
from walplane.wal.shard.manager import ShardManager


class ShardInterceptor:
    """The last link before the backend."""

    def __init__(self, shards: ShardManager, submit: Callable[[AppendOp], object]) -> None:
        """`submit` queues an entry of the WAL's own, which has its tick."""
        self._shards = shards
        self._submit = submit

    def append(self, op: AppendOp, forward: Forward) -> Awaitable[AppendResult]:
        """Forwards `op`, behind the CreateSegment that it needs."""
        created = self._shards.assign(op)
        if created is not None:
            self._submit(created)
        return forward(op)
