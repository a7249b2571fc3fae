"""The timestamp oracle: ticks that nobody was given before (rules §3).

Contract: a tick is `physical_ms << 18 | logical`. No tick at or above the persisted mark is ever
given, and a new oracle starts at the mark it finds, so no tick is given twice, across crashes and
two coordinators too. Physical = max(mark at start, wall clock, last physical + monotonic elapsed):
it never goes back, whatever the wall clock does. A fresh tick is given only after an append to the
meta topic that began after the request: whoever could append had no successor, so the tick lies
above all that anyone held. `TickSource` and `OracleState` are pure; `Oracle` does the waiting.
Layer: coord.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from walplane.coord.ports import DeltaLog
from walplane.coord.settings import CoordSettings
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import coordmeta_pb2
from walplane.runtime import Runtime
from walplane.ticks import TICKS_PER_MS, TICKS_PER_S
from walplane.wal.ports import TickBatch

MAX_BATCH = 256 << 20
"""Ticks one request may ask for: about a second of tick space."""

COMPONENT = "oracle"


class TickSource:
    """Gives ticks below the mark; pure, the clocks are arguments.

    Args:
        mark: the persisted mark; every tick given before lies below it.
        lead_ms: how far ahead of what is given the mark is wanted.
    """

    def __init__(self, mark: int, lead_ms: int) -> None:
        """Starts at `mark`: nothing can be given before it is raised."""
        self._next = max(mark, 1)  # 0 means "no tick" everywhere
        self._lead = lead_ms * TICKS_PER_MS
        self._physical = self._next
        self._at: float | None = None
        self.mark = mark

    def take(self, count: int, wall_ms: int, monotonic: float) -> int | None:
        """The first of `count` consecutive ticks; None while they would reach the mark."""
        self._advance(wall_ms, monotonic)
        if self._next + count > self.mark:
            return None
        first = self._next
        self._next += count
        return first

    def wanted_mark(self, count: int, wall_ms: int, monotonic: float) -> int:
        """The mark to persist so that `count` ticks and the lead fit below it."""
        self._advance(wall_ms, monotonic)
        return max(self.mark, self._next + count + self._lead)

    @property
    def left(self) -> int:
        """Ticks that can be given before the mark must be raised."""
        return max(self.mark - self._next, 0)

    @property
    def ahead_ms(self) -> int:
        """How far what was given ran ahead of the physical time when it was given."""
        return max(self._next - self._physical, 0) // TICKS_PER_MS

    @property
    def low(self) -> bool:
        """Whether less than half the lead is left below the mark."""
        return self.left < self._lead // 2

    def _advance(self, wall_ms: int, monotonic: float) -> None:
        elapsed = 0.0 if self._at is None else max(monotonic - self._at, 0.0)
        self._at = monotonic
        # Elapsed time is added to the clock, not to the last tick: batches taken faster than time
        # passes run ahead of the clock, and the clock catches up with them.
        steady = self._physical + int(elapsed * TICKS_PER_S)
        self._physical = max(wall_ms * TICKS_PER_MS, steady)
        self._next = max(self._next, self._physical)


class OracleState:
    """What is durable: the mark, and the terms fresh ticks were given for."""

    def __init__(self) -> None:
        """Before the first start: no mark, no terms."""
        self.mark = 0
        self.terms: dict[str, int] = {}

    def apply(self, data: bytes) -> None:
        """Takes a durable `OracleDelta`."""
        delta = coordmeta_pb2.OracleDelta.FromString(data)
        self.mark = max(self.mark, delta.mark)
        for pchannel, term in delta.terms.items():
            self.terms[pchannel] = max(self.terms.get(pchannel, 0), term)

    def dump(self) -> list[bytes]:
        """The state as one delta."""
        return [coordmeta_pb2.OracleDelta(mark=self.mark, terms=self.terms).SerializeToString()]

    def lost(self, terms: Mapping[str, int]) -> frozenset[str]:
        """The PChannels for which a higher term is recorded than `terms` names."""
        return frozenset(name for name, term in terms.items() if term < self.terms.get(name, 0))


class Oracle:
    """The `TimestampOracle` of `wal.ports`, over the coordinator's meta topic."""

    def __init__(
        self,
        log: DeltaLog,
        state: OracleState,
        runtime: Runtime,
        pchannels: Collection[str],
        settings: CoordSettings,
    ) -> None:
        """An oracle over `state`, which must hold everything durable by now.

        `raise_ahead` is to run beside it; `pchannels` may grow.
        """
        self._log = log
        self._state = state
        self._runtime = runtime
        self._pchannels = pchannels
        self._timeout = settings.call_timeout_s
        self._ticks = TickSource(state.mark, settings.oracle_lead_ms)
        self._raising = asyncio.Lock()
        self._low = asyncio.Event()

    @property
    def left(self) -> int:
        """Ticks that can be given before the mark must be raised."""
        return self._ticks.left

    async def batch(self, terms: Mapping[str, int], size: int) -> TickBatch:
        """`size` ticks for a node that holds {PChannel: term}.

        Raises:
            WalError: INVALID_ARGUMENT for a size that is no size; INNER when the mark cannot be
                persisted in time.
        """
        if not 0 < size <= MAX_BATCH:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT, f"a batch of {size} ticks: ask for 1 to {MAX_BATCH}"
            )
        first = await self._bounded_take(size)
        return TickBatch(first, size, self._state.lost(terms), self._ticks.ahead_ms)

    async def fresh(self, pchannel: str, term: int) -> int:
        """A tick above every tick anyone held before the call; lower terms get none from now on.

        Raises:
            WalError: CHANNEL_NOT_EXIST; UNMATCHED_CHANNEL_TERM when a higher term is recorded;
                INNER when the meta topic cannot be written in time.
        """
        if pchannel not in self._pchannels:
            raise WalError(
                ErrorCode.CHANNEL_NOT_EXIST,
                f"{pchannel!r} is no PChannel of this cluster: see `walplane topology`",
            )
        self._refuse_lower(pchannel, term)
        wanted = self._ticks.wanted_mark(1, self._runtime.wall_ms(), self._runtime.monotonic())
        delta = coordmeta_pb2.OracleDelta(mark=wanted, terms={pchannel: term})
        try:
            async with asyncio.timeout(self._timeout):
                await self._persist(delta)
                self._refuse_lower(pchannel, term)
                return await self._take(1)
        except TimeoutError as error:
            raise self._too_slow() from error

    async def _bounded_take(self, count: int) -> int:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._take(count)
        except TimeoutError as error:
            raise self._too_slow() from error

    async def _take(self, count: int) -> int:
        while (first := self._take_now(count)) is None:
            await self._raise_mark(count)
        if self._ticks.low:
            self._low.set()
        return first

    def _take_now(self, count: int) -> int | None:
        self._ticks.mark = self._state.mark
        return self._ticks.take(count, self._runtime.wall_ms(), self._runtime.monotonic())

    async def _raise_mark(self, count: int) -> None:
        """One append serves everybody who waits for room below the mark."""
        before = self._state.mark
        async with self._raising:
            if self._state.mark == before:
                wanted = self._ticks.wanted_mark(
                    count, self._runtime.wall_ms(), self._runtime.monotonic()
                )
                await self._persist(coordmeta_pb2.OracleDelta(mark=wanted))

    async def _persist(self, delta: coordmeta_pb2.OracleDelta) -> None:
        await self._log.append(COMPONENT, delta.SerializeToString())

    async def raise_ahead(self) -> None:
        """Raises the mark before anybody has to wait for it; ends when cancelled.

        Raises:
            WalError: the mark can no longer be persisted.
        """
        while True:
            await self._low.wait()
            self._low.clear()
            await self._raise_mark(0)

    def _refuse_lower(self, pchannel: str, term: int) -> None:
        recorded = self._state.terms.get(pchannel, 0)
        if term < recorded:
            raise WalError(
                ErrorCode.UNMATCHED_CHANNEL_TERM,
                f"{pchannel} has ticks under term {recorded} only, not under {term}: "
                f"stop it and ask discovery for its owner",
            )

    def _too_slow(self) -> WalError:
        return WalError(
            ErrorCode.INNER,
            "the timestamp oracle could not write its meta topic in time: retry when the backend "
            "is back",
            retry_after_ms=500,
        )
