"""A fair reader-writer lock for one event loop.

Contract: strictly first come, first served, so neither side starves; a free lock is taken without
suspending. Whoever waited goes on before anybody who came later, also before one that comes
between the grant and the moment the waiter runs: callers that go on at once after `acquire` keep
the order in which they called. A cancelled or timed-out waiter leaves no trace. Layer: wal.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple


class _Waiter(NamedTuple):
    exclusive: bool
    granted: asyncio.Future[None]


class RWLock:
    """Any number of shared holders, or one exclusive one."""

    __slots__ = ("_exclusive", "_line", "_shared", "_unclaimed")

    def __init__(self) -> None:
        """Free."""
        self._shared = 0
        self._exclusive = False
        self._line: deque[_Waiter] = deque()
        self._unclaimed = 0  # granted to waiters that did not run yet

    @property
    def idle(self) -> bool:
        """Whether nobody holds it and nobody waits."""
        return not (self._shared or self._exclusive or self._line)

    def try_acquire(self, *, exclusive: bool) -> bool:
        """Takes it if it is free for this and nobody is ahead; never waits."""
        if self._line or self._unclaimed or not self._free(exclusive):
            return False
        self._take(exclusive)
        return True

    async def acquire(self, *, exclusive: bool) -> None:
        """Takes it; put `asyncio.timeout` around for a deadline. Cancelling gives the place up."""
        if self.try_acquire(exclusive=exclusive):
            return
        waiter = _Waiter(exclusive, asyncio.get_running_loop().create_future())
        self._line.append(waiter)
        try:
            await waiter.granted
        except BaseException:
            self._withdraw(waiter)
            raise
        self._claim()

    def release(self, *, exclusive: bool) -> None:
        """Gives back what `acquire` or `try_acquire` took with the same argument."""
        if exclusive:
            self._exclusive = False
        else:
            self._shared -= 1
        if self._line:
            self._grant()

    def _free(self, exclusive: bool) -> bool:
        return not self._exclusive and not (exclusive and self._shared)

    def _take(self, exclusive: bool) -> None:
        if exclusive:
            self._exclusive = True
        else:
            self._shared += 1

    def _grant(self) -> None:
        while self._line:
            waiter = self._line[0]
            if not waiter.granted.cancelled():
                if not self._free(waiter.exclusive):
                    return
                self._take(waiter.exclusive)
                self._unclaimed += 1
                waiter.granted.set_result(None)
            self._line.popleft()

    def _claim(self) -> None:
        self._unclaimed -= 1
        if not self._unclaimed:
            self._grant()  # whoever came meanwhile had to line up

    def _withdraw(self, waiter: _Waiter) -> None:
        if waiter.granted.done() and not waiter.granted.cancelled():
            self._unclaimed -= 1
            self.release(exclusive=waiter.exclusive)
            return
        if waiter in self._line:
            self._line.remove(waiter)
        self._grant()
