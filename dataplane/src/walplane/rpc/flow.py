"""Flow control in bytes: a budget that senders wait for, and credit of readers. Layer: rpc.

Contract: whoever acquired bytes releases as many; waiters are served in order of arrival; one
request larger than the whole budget passes alone, so that nothing waits for ever, and one for none
passes all.
"""

from __future__ import annotations

import asyncio
from collections import deque

MOST_UNGRANTED_BYTES = 4 << 20
"""Credit that a reader keeps back, at most; a sender that kept less would wait for it for ever."""


class ByteBudget:
    """At most `limit` bytes outstanding."""

    def __init__(self, limit: int) -> None:
        """Starts with nothing outstanding."""
        self._limit = limit
        self._used = 0
        self._waiters: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def used(self) -> int:
        """Bytes outstanding now."""
        return self._used

    def try_acquire(self, size: int) -> bool:
        """Takes `size` bytes if nobody waits and they fit; never waits."""
        if size and (self._waiters or not self._fits(size)):
            return False
        self._used += size
        return True

    async def acquire(self, size: int) -> None:
        """Takes `size` bytes, waiting for room; a cancelled waiter leaves no trace."""
        if self.try_acquire(size):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((waiter, size))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._forget(waiter)
            else:
                self.release(size)  # it was granted in the moment of the cancellation
            raise

    def release(self, size: int) -> None:
        """Gives `size` bytes back."""
        self._used -= size
        if self._waiters:
            self._wake()

    def _forget(self, waiter: asyncio.Future[None]) -> None:
        self._waiters = deque(item for item in self._waiters if item[0] is not waiter)
        self._wake()

    def _fits(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self._limit

    def _wake(self) -> None:
        while self._waiters and self._fits(self._waiters[0][1]):
            waiter, size = self._waiters.popleft()
            if not waiter.done():
                self._used += size
                waiter.set_result(None)
