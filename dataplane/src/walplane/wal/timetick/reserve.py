"""The node's reserve of ticks, filled from the oracle in batches (rules §3).

Contract: `take` gives ticks that grow over the life of the reserve, from one batch each; it never
waits. What is left of a batch when a newer one replaces it is never used. Serving goes on while
the reserve lasts when the coordinator is away. Layer: wal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from walplane.rpc.errors import WalError
from walplane.runtime import Runtime
from walplane.wal.ports import TimestampOracle

_log = structlog.get_logger(__name__)

BATCH_TICKS = 16 << 20
_MAX_AGE_S = (1.0, 10.0)
_BACKOFF_S = (0.02, 1.0)
_CALL_TIMEOUT_S = 6.0  # an oracle in another process says by itself that it was too slow


def lasts_s(ahead_ms: int) -> float:
    """After how many seconds a batch is too old, of an oracle that is so far ahead of its clock.

    A refill spends 64 ms of tick space: with a second between, 15 nodes fit. More of them run tick
    time away from the clock, so they ask the less often the further it is: n nodes keep it n * 64
    ms ahead at most, up to some 150 of them.
    """
    least, most = _MAX_AGE_S
    return min(least + ahead_ms / 1000, most)


class TickReserve:
    """Ticks for every WAL of one node.

    Args:
        oracle: where batches come from.
        runtime: clocks.
        holdings: {PChannel: term} as the node holds them now; named in every request.
        on_lost: told which PChannels a higher term was granted for, before the batch is used.
        size: ticks a batch.
    """

    def __init__(
        self,
        oracle: TimestampOracle,
        runtime: Runtime,
        holdings: Callable[[], Mapping[str, int]],
        on_lost: Callable[[frozenset[str]], None],
        size: int = BATCH_TICKS,
    ) -> None:
        """Starts empty; the first `ready` fetches a batch."""
        self._oracle = oracle
        self._runtime = runtime
        self._holdings = holdings
        self._on_lost = on_lost
        self._size = size
        self._next = 1
        self._end = 1
        self._stale_at = float("-inf")
        self._refill: asyncio.Task[None] | None = None

    @property
    def left(self) -> int:
        """Ticks of the present batch that nobody took."""
        return self._end - self._next

    def take(self, count: int, above: int) -> int | None:
        """The first of `count` consecutive ticks, all above `above`; None when none are left."""
        first = max(self._next, above + 1)
        if first + count > self._end:
            self._start_refill()
            return None
        self._next = first + count
        old = self._runtime.monotonic() > self._stale_at
        if old or self._end - self._next < self._size // 4:
            self._start_refill()
        return first

    async def ready(self, count: int, above: int) -> None:
        """Returns once `take(count, above)` will succeed; waits while the coordinator is away.

        Raises:
            ValueError: `count` exceeds a whole batch.
        """
        if count > self._size:
            raise ValueError(f"{count} ticks asked for at once: at most {self._size}")
        while max(self._next, above + 1) + count > self._end:
            await asyncio.shield(self._start_refill())

    async def close(self) -> None:
        """Stops fetching."""
        if self._refill is not None and not self._refill.done():
            self._refill.cancel()
            await asyncio.wait([self._refill])

    def _start_refill(self) -> asyncio.Task[None]:
        if self._refill is None or self._refill.done():
            self._refill = asyncio.create_task(self._fetch(), name="tick-reserve")
        return self._refill

    async def _fetch(self) -> None:
        delay, most = _BACKOFF_S
        while True:
            try:
                async with asyncio.timeout(_CALL_TIMEOUT_S):
                    batch = await self._oracle.batch(self._holdings(), self._size)
            except (WalError, TimeoutError) as error:
                _log.warning(
                    "no ticks from the coordinator", error=str(error), ticks_left=self.left
                )
                await asyncio.sleep(delay)
                delay = min(delay * 2, most)
                continue
            if batch.lost:
                self._on_lost(batch.lost)
            if batch.first >= self._next:
                self._next, self._end = batch.first, batch.first + batch.size
            self._stale_at = self._runtime.monotonic() + lasts_s(batch.ahead_ms)
            return
