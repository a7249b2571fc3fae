"""One process of a scenario that owns a log. Layer: testkit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import ClassVar

from walplane.backends.interface import Backend
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.outside import TestAuthority
from walplane.testkit.sim.process import Process
from walplane.testkit.wal_world import CH, VCHANNELS, create
from walplane.ticks import TICKS_PER_MS
from walplane.wal.config import WALConfig
from walplane.wal.interceptors.base import AppendOp
from walplane.wal.ownership import WALDeps
from walplane.wal.ports import AppendResult, TickBatch
from walplane.wal.timetick.reserve import TickReserve
from walplane.wal.wal import WAL

NAME = "name"
"""The property by which an append is held and released."""


class VirtualOracle:
    """Ticks as the loop's clock has them; small batches, so that they stay readable."""

    def __init__(self) -> None:
        """Nothing is given yet."""
        self._next = TICKS_PER_MS
        self._terms: dict[str, int] = {}

    async def batch(self, terms: Mapping[str, int], size: int) -> TickBatch:
        """See `TimestampOracle`."""
        lost = frozenset(name for name, term in terms.items() if self._terms.get(name, 0) > term)
        return TickBatch(self._take(size), size, lost)

    async def fresh(self, pchannel: str, term: int) -> int:
        """See `TimestampOracle`."""
        if self._terms.get(pchannel, 0) > term:
            raise WalError(ErrorCode.UNMATCHED_CHANNEL_TERM, f"{pchannel} has a higher term")
        self._terms[pchannel] = term
        return self._take(TICKS_PER_MS)

    def _take(self, size: int) -> int:
        now_ms = int(asyncio.get_running_loop().time() * 1000)
        first = max(self._next, now_ms * TICKS_PER_MS)
        self._next = first + size
        return first


class HeldWAL(WAL):
    """A WAL with a stand-in for a link that waits, between the ticks and the backend."""

    gates: ClassVar[dict[str, asyncio.Event]]

    async def _submit(self, op: AppendOp) -> AppendResult:
        gate = self.gates.get(op.envelope.properties.get(NAME, ""))
        if gate is not None:
            await gate.wait()
        return await super()._submit(op)


class Owner:
    """A process and the log it owns.

    Attributes:
        wal: once it is open.
        seen: (open number, state) as last told.
    """

    def __init__(
        self, process: Process, backend: Backend, oracle: VirtualOracle, authority: TestAuthority
    ) -> None:
        """Owns nothing yet."""
        self.process = process
        self.wal: WAL | None = None
        self.seen: tuple[object, ...] = ()
        self._held: dict[str, int] = {}
        self._authority = authority
        reserve = TickReserve(
            oracle, process.runtime, lambda: self._held, lambda _: None, TICKS_PER_MS
        )
        # Idle ticks would come between any two lines.
        self._deps = WALDeps(backend, reserve, oracle, authority, process.runtime, lambda: False)

    async def open(self, term: int, gates: dict[str, asyncio.Event]) -> WAL:
        """Opens the log under `term`; its VChannels are there.

        Raises:
            WalError: as `WAL.open`.
        """
        self._held[CH] = term
        held: type[WAL] = type("HeldWAL", (HeldWAL,), {"gates": gates})
        config = WALConfig(checkpoint_s=3600, silence_s=3600, stall_limit_s=3600)
        self.wal = await held.open(CH, term, self._deps, config)
        await create(self.wal, *VCHANNELS)
        return self.wal
