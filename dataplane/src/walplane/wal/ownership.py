"""One process' claim on one log: its term, its open numbers, its barriers.

Contract: every attempt to open takes a new open number and a new barrier id, so that what an
earlier attempt left behind is void or known as our own. Layer: wal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from walplane.backends.interface import Backend
from walplane.rpc.errors import DAMAGE, ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.tracing import Tracing
from walplane.wal.config import WALConfig
from walplane.wal.frames import OpenKey
from walplane.wal.metalog import MetaState, meta_limits
from walplane.wal.meter import Meters
from walplane.wal.opener import Beginning, Observe, OpenedLog, Opening, open_log
from walplane.wal.ports import StaleTerm, TermAuthority, TimestampOracle
from walplane.wal.recovery.segments.storing import SegmentDeps
from walplane.wal.scan.buffer import WriteAheadMemory
from walplane.wal.shard.config import GrowthConfig
from walplane.wal.shard.growth import NodeGrowth
from walplane.wal.timetick.reserve import TickReserve

_log = structlog.get_logger(__name__)

_BACKOFF_S = (0.02, 2.0)
_BARRIER_S = 5.0

Begin = Callable[[MetaState], Beginning]


def always() -> bool:
    """For owners whose liveness nobody else judges."""
    return True


@dataclass(frozen=True)
class WALDeps:
    """What the wiring passes in.

    Attributes:
        may_tick_idle: whether nobody can have taken this process for dead yet: only then may an
            idle log tell readers that time has passed, which no fence protects.
        write_ahead: what the write-ahead buffers of all logs may hold; None = each for itself.
        meters: count what the logs do.
        tracing: makes the spans of appends.
        growth: how much grows on this node; shared by its WALs.
        segments: where segment data goes; None = nowhere, and then no data topic is ever cut off.
    """

    backend: Backend
    reserve: TickReserve
    oracle: TimestampOracle
    authority: TermAuthority
    runtime: Runtime
    may_tick_idle: Callable[[], bool] = always
    write_ahead: WriteAheadMemory | None = None
    meters: Meters = field(default_factory=Meters)
    tracing: Tracing = field(default_factory=Tracing)
    growth: NodeGrowth = field(default_factory=lambda: NodeGrowth(GrowthConfig()))
    segments: SegmentDeps | None = None


class Ownership:
    """Opens one PChannel's log under one term, as often as it takes.

    Attributes:
        key: (term, open number) of the latest attempt.
        attempts: how often the log was opened again.
        last_error: why the latest attempt was made, or failed.
    """

    def __init__(self, pchannel: str, term: int, deps: WALDeps, config: WALConfig) -> None:
        """Nothing is opened yet."""
        self.key = OpenKey(term, 0)
        self.attempts = 0
        self.last_error = ""
        self._pchannel = pchannel
        self._deps = deps
        self._config = config
        self._barriers: set[bytes] = set()
        self._meta_limits = meta_limits(deps.backend.max_record_bytes)

    async def take(self, begin: Begin, observe: Observe) -> OpenedLog:
        """The first open, at a fresh tick.

        Raises:
            StaleTerm: the log shows another owner.
            WalError: it failed, or got no further for `open_timeout_s`; nothing is left behind.
        """

        async def fresh_tick() -> int:
            return await self._deps.oracle.fresh(self._pchannel, self.key.term)

        return await self._open(begin, observe, fresh_tick, reopen=False)

    async def retake(
        self, begin: Begin, observe: Observe, last_allocated: Callable[[], int]
    ) -> OpenedLog:
        """A self-reopen: tries until the log is open, its barrier above `last_allocated`.

        Raises:
            WalError: this owner is over: StaleTerm, or the log is damaged.
        """

        async def own_tick() -> int:
            while (tick := self._deps.reserve.take(1, last_allocated())) is None:
                await self._deps.reserve.ready(1, last_allocated())
            return tick

        delay, most = _BACKOFF_S
        while True:
            self.key = self.key._replace(open_number=self.key.open_number + 1)
            self.attempts += 1
            try:
                return await self._open(begin, observe, own_tick, reopen=True)
            except WalError as error:
                self.last_error = str(error)
                if isinstance(error, StaleTerm) or error.code in DAMAGE:
                    raise
                _log.warning("self-reopen failed", pchannel=self._pchannel, error=str(error))
            await asyncio.sleep(delay)
            delay = min(delay * 2, most)

    async def _open(
        self,
        begin: Begin,
        observe: Observe,
        barrier_tick: Callable[[], Awaitable[int]],
        *,
        reopen: bool,
    ) -> OpenedLog:
        barrier_id = self._deps.runtime.new_id()
        self._barriers.add(barrier_id)
        opening = Opening(
            pchannel=self._pchannel,
            key=self.key,
            barrier_id=barrier_id,
            own_barriers=self._barriers,
            reopen=reopen,
            meta_limits=self._meta_limits,
            ack_timeout_s=self._config.barrier_timeout_s
            or max(_BARRIER_S, self._deps.backend.ack_timeout_s),
            barrier_tick=barrier_tick,
            begin=begin,
            observe=observe,
            now=self._deps.runtime.monotonic,
            progress=lambda: _extend(patience, self._config.open_timeout_s),
        )
        try:
            async with asyncio.timeout(self._config.open_timeout_s) as patience:
                opened = await open_log(self._deps.backend, self._deps.authority, opening)
        except TimeoutError as error:
            raise WalError(
                ErrorCode.INNER,
                f"opening {self._pchannel} under term {self.key.term} got no further within "
                f"{self._config.open_timeout_s:g} s: see whether {self._deps.backend.name} answers",
            ) from error
        _log.info(
            "opened",
            pchannel=self._pchannel,
            term=self.key.term,
            open=self.key.open_number,
            replayed=opened.replayed,
            replay_s=round(opened.replay_s, 4),
            open_s=round(opened.open_s, 4),
        )
        return opened


def _extend(patience: asyncio.Timeout, seconds: float) -> None:
    if not patience.expired():
        patience.reschedule(asyncio.get_running_loop().time() + seconds)
