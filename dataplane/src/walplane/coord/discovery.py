"""Assignments as full snapshots, one per version, to any number of streams (rules §11).

Contract: a version is (global = the coordinator's term, local = a counter); every snapshot is
whole. A stream that is slow gets the newest snapshot next and misses those between: nothing is
queued for it. Layer: coord.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from walplane.rpc.errors import WalError
from walplane.rpc.v1 import coord_pb2


class Discovery:
    """The newest snapshot, and those who wait for a newer one.

    Attributes:
        streams: clients that are told of changes now.
    """

    def __init__(
        self,
        term: int,
        cchannel: str,
        assignments: Callable[[], Iterable[coord_pb2.ChannelAssignment]],
    ) -> None:
        """Starts at local version 1, with what `assignments` says."""
        self._term = term
        self._cchannel = cchannel
        self._assignments = assignments
        self.streams = 0
        self._local = 1
        self._newer = asyncio.Event()
        self._ended: WalError | None = None
        self._built: coord_pb2.DiscoverResponse | None = None

    @property
    def changes(self) -> int:
        """How many newer snapshots there were since the start."""
        return self._local - 1

    def changed(self) -> None:
        """Something that snapshots show is different: a new version, and everybody is woken."""
        self._local += 1
        self._built = None
        self._wake()

    def end(self, reason: WalError) -> None:
        """No snapshot from here is true any more: every stream ends with `reason`."""
        self._ended = reason
        self._wake()

    def latest(self) -> coord_pb2.DiscoverResponse:
        """The newest snapshot; shared, not to be changed.

        Raises:
            WalError: the reason given to `end`.
        """
        if self._ended is not None:
            raise self._ended
        if self._built is None:
            self._built = coord_pb2.DiscoverResponse(
                version_global=self._term,
                version_local=self._local,
                assignments=self._assignments(),
                cchannel=self._cchannel,
            )
        return self._built

    async def snapshots(self) -> AsyncIterator[coord_pb2.DiscoverResponse]:
        """The newest snapshot at once, then the newest after each change.

        Raises:
            WalError: the reason given to `end`.
        """
        while True:
            newer = self._newer
            yield self.latest()
            await newer.wait()

    def _wake(self) -> None:
        self._newer.set()
        self._newer = asyncio.Event()
