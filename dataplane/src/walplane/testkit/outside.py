"""Small real stand-ins for what surrounds one WAL in a test: an oracle and an authority.

Layer: testkit; for tests only.
"""

from __future__ import annotations

from collections.abc import Mapping

from walplane.backends.interface import Backend
from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.wal.config import WALConfig
from walplane.wal.ownership import WALDeps
from walplane.wal.ports import TickBatch
from walplane.wal.recovery.segments.storing import SegmentDeps
from walplane.wal.timetick.reserve import TickReserve
from walplane.wal.wal import WAL


class TestOracle:
    """Ticks from a counter in memory; shared by every node of a test.

    Attributes:
        away: while True, every call fails as if the coordinator could not be reached.
    """

    __test__ = False

    def __init__(self, start: int = 1 << 40) -> None:
        """The first batch begins at `start`."""
        self._next = start
        self._terms: dict[str, int] = {}
        self.away = False

    async def batch(self, terms: Mapping[str, int], size: int) -> TickBatch:
        """See `TimestampOracle`."""
        self._reachable()
        first, self._next = self._next, self._next + size
        lost = frozenset(name for name, term in terms.items() if self._terms.get(name, 0) > term)
        return TickBatch(first, size, lost)

    async def fresh(self, pchannel: str, term: int) -> int:
        """See `TimestampOracle`."""
        self._reachable()
        if self._terms.get(pchannel, 0) > term:
            raise WalError(
                ErrorCode.UNMATCHED_CHANNEL_TERM, f"{pchannel} was granted under a higher term"
            )
        self._terms[pchannel] = term
        tick, self._next = self._next, self._next + 1
        return tick

    def _reachable(self) -> None:
        if self.away:
            raise WalError(ErrorCode.INNER, "the coordinator cannot be reached")


class TestAuthority:
    """Terms as the test sets them; `terms[pchannel] = None` means no answer."""

    __test__ = False

    def __init__(self) -> None:
        """Every PChannel is granted under whatever term is set, by default none."""
        self.terms: dict[str, int | None] = {}

    async def current_term(self, pchannel: str) -> int:
        """See `TermAuthority`."""
        term = self.terms.get(pchannel)
        if term is None:
            raise WalError(ErrorCode.INNER, f"no quorum read of the term of {pchannel}")
        return term


class TestNode:
    """What one node holds around its WALs: a reserve of ticks and the ports."""

    __test__ = False

    def __init__(
        self,
        backend: Backend,
        oracle: TestOracle,
        authority: TestAuthority,
        runtime: Runtime,
        segments: SegmentDeps | None = None,
    ) -> None:
        """A node on `backend`."""
        self.held: dict[str, int] = {}
        self.lost: set[str] = set()
        self.authority = authority
        self.reserve = TickReserve(oracle, runtime, lambda: self.held, self.lost.update)
        self.deps = WALDeps(backend, self.reserve, oracle, authority, runtime, segments=segments)

    async def open(self, pchannel: str, term: int, config: WALConfig | None = None) -> WAL:
        """Grants `term` and opens the log under it."""
        self.authority.terms[pchannel] = term
        self.held[pchannel] = term
        return await WAL.open(pchannel, term, self.deps, config or WALConfig())
