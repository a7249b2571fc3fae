"""Who is granted what: the store of Leases, and an assigner that decides. Layer: testkit.

Contract: the store is the world's, linearizable and never lost, as the API server is. Terms only
grow. Sessions expire by the assigner's clock when they were not renewed for a lease; a PChannel
without a live, willing holder is granted anew. What is told to nodes travels like everything else:
late, twice, in the wrong order, or not at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from walplane.assignment.states import Channel, ChannelState
from walplane.rpc.errors import DAMAGE, ErrorCode, WalError
from walplane.testkit.sim.network import Network
from walplane.testkit.sim.process import Process
from walplane.wal.ports import StaleTerm

HOST = "leases"
_STEP_S = 0.2
_BACKOFF_S = (0.05, 2.0)
_CALL_TIMEOUT_S = 1.0


class Holder(Protocol):
    """A node as the assigner sees it."""

    process: Process
    address: str

    def granted(self, pchannel: str, term: int) -> None:
        """Told that it holds `pchannel` under `term`; runs in the node's process."""
        ...

    def taken(self, pchannel: str, term: int) -> None:
        """Told that `pchannel` is granted to somebody else under `term`."""
        ...

    def asked_back(self, pchannel: str, term: int) -> None:
        """Asked to give `pchannel` back in good order."""
        ...


@dataclass(frozen=True)
class Grant:
    """One grant, for ever."""

    pchannel: str
    term: int
    holder: str
    at: float


class Leases:
    """The store and the assigner.

    Attributes:
        lease_s: how long a session lives without a renewal.
        grants: all there ever were, in order.
        damage: what nodes reported that must never happen.
        frozen: while True, the assigner decides nothing.
    """

    def __init__(self, network: Network, pchannels: list[str], lease_s: float, seed: int) -> None:
        """Nobody holds anything."""
        self.lease_s = lease_s
        self.grants: list[Grant] = []
        self.damage: list[tuple[ErrorCode, str]] = []
        self.frozen = False
        self._network = network
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._channels = {name: Channel(name) for name in pchannels}
        self._retry_at = dict.fromkeys(pchannels, 0.0)
        self._sessions: dict[str, tuple[Holder, float]] = {}
        self._watchers: list[tuple[Process, Callable[[], None]]] = []
        network.world(_STEP_S, self._step)

    # --- what processes call ---------------------------------------------------------------------

    async def call(self, caller: Process, action: Callable[[], None]) -> None:
        """Does `action` at the store; raises INNER when no answer came."""
        await self._network.visit(caller, HOST, action, _CALL_TIMEOUT_S)

    async def term_of(self, caller: Process, pchannel: str) -> int:
        """A quorum read: the term, if `caller` holds it.

        Raises:
            StaleTerm: somebody else does.
        """

        def read() -> int:
            channel = self._channels[pchannel]
            if channel.node_id != caller.name:
                raise StaleTerm(pchannel, channel.term, channel.term)
            return channel.term

        return await self._network.visit(caller, HOST, read, _CALL_TIMEOUT_S)

    def renew(self, holder: Holder) -> None:
        """A session renews itself."""
        self._sessions[holder.process.name] = (holder, self._network.loop.time())

    def confirmed(self, pchannel: str, term: int) -> None:
        """The holder serves."""
        self._become(self._channels[pchannel].confirmed(term))

    def failed(self, pchannel: str, term: int, error: WalError) -> None:
        """The holder could not open, or its log stopped."""
        if error.code in DAMAGE:
            self.damage.append((error.code, f"{pchannel} under term {term}: {error}"))
        floor = error.term_floor if isinstance(error, StaleTerm) else 0
        self._become(self._channels[pchannel].failed(term, error.message, floor))

    def released(self, pchannel: str, term: int) -> None:
        """The holder gave it back, served or on its way to."""
        channel = self._channels[pchannel]
        if channel.state is ChannelState.ASSIGNING:
            self._become(channel.failed(term, "released"))
        self._become(self._channels[pchannel].released(term, "released"))

    # --- what the coordinator's view calls -------------------------------------------------------

    def watch(self, process: Process, changed: Callable[[], None]) -> None:
        """Calls `changed` in `process` some time after each change."""
        self._watchers.append((process, changed))

    def place(self, pchannel: str) -> tuple[Channel, str]:
        """See `AssignmentSource`."""
        channel = self._channels[pchannel]
        session = self._sessions.get(channel.node_id)
        return channel, session[0].address if session is not None else ""

    def report_error(self, pchannel: str, term: int, error: WalError) -> bool:
        """See `AssignmentSource`; the assigner goes by what nodes say."""
        return False

    # --- what scenarios call ---------------------------------------------------------------------

    def channel(self, pchannel: str) -> Channel:
        """Where a PChannel stands."""
        return self._channels[pchannel]

    def live(self) -> list[Holder]:
        """Nodes whose sessions have not expired."""
        oldest = self._network.loop.time() - self.lease_s
        return [holder for holder, renewed in self._sessions.values() if renewed >= oldest]

    def move(self, pchannel: str, told_after_s: float = 0.0, rest_after_s: float = 0.0) -> None:
        """Grants `pchannel` to another node at once.

        The new holder hears of it `told_after_s` later, everybody else `rest_after_s` later: the
        present owner, and by the coordinator clients.
        """
        channel = self._channels[pchannel]
        if channel.state in (ChannelState.ASSIGNING, ChannelState.ASSIGNED):
            self._become(channel.failed(channel.term, "moved"), rest_after_s)
        self._grant(self._channels[pchannel], channel.node_id, told_after_s, rest_after_s)

    def ask_back(self, pchannel: str) -> None:
        """Asks the present owner to give `pchannel` back."""
        channel = self._channels[pchannel]
        session = self._sessions.get(channel.node_id)
        if session is not None:
            self._tell(session[0], session[0].asked_back, pchannel, channel.term)

    def repeat_grant(self) -> None:
        """Delivers some grant of old once more, to its holder or to the node there now."""
        grant = self._random.choice(self.grants)
        host = grant.holder.partition(".")[0]
        for holder, _ in self._sessions.values():
            if holder.process.alive and holder.process.host == host:
                self._tell(holder, holder.granted, grant.pchannel, grant.term)

    # --- deciding --------------------------------------------------------------------------------

    def _step(self) -> None:
        self._network.world(_STEP_S, self._step)
        if self.frozen:
            return
        now = self._network.loop.time()
        live = {holder.process.name for holder in self.live()}
        for pchannel, channel in list(self._channels.items()):
            held = channel.state in (ChannelState.ASSIGNING, ChannelState.ASSIGNED)
            if held and channel.node_id not in live:
                self._become(channel.failed(channel.term, "its node is gone"))
                held = False
            if not held and now >= self._retry_at[pchannel]:
                self._grant(self._channels[pchannel])

    def _grant(
        self,
        channel: Channel,
        avoid: str = "",
        told_after_s: float = 0.0,
        rest_after_s: float = 0.0,
    ) -> None:
        live = [holder for holder in self.live() if holder.process.name != avoid] or self.live()
        if not live:
            return
        holder = self._random.choice(live)
        granted = channel.granted(holder.process.name, channel.next_term)
        now = self._network.loop.time()
        self.grants.append(Grant(channel.pchannel, granted.term, holder.process.name, now))
        self._become(granted, rest_after_s)
        self._tell(holder, holder.granted, channel.pchannel, granted.term, told_after_s)
        for other, _ in list(self._sessions.values()):
            if other is not holder:
                self._tell(other, other.taken, channel.pchannel, granted.term, rest_after_s)

    def _become(self, channel: Channel, watched_after_s: float = 0.0) -> None:
        before = self._channels[channel.pchannel]
        if channel == before:
            return
        self._channels[channel.pchannel] = channel
        least, most = _BACKOFF_S
        pause = min(least * 2 ** min(channel.attempts, 6), most)
        self._retry_at[channel.pchannel] = self._network.loop.time() + pause
        for process, changed in self._watchers:
            if process.alive:
                delay = watched_after_s + self._network.delay()
                self._network.loop.call_later(delay, changed, context=process.context)

    def _tell(
        self,
        holder: Holder,
        call: Callable[[str, int], None],
        pchannel: str,
        term: int,
        after_s: float = 0.0,
    ) -> None:
        """Tells a node something: again and again, since a watch is relisted, until it could."""
        self._network.loop.call_later(
            after_s + self._network.delay(),
            self._arrive,
            holder,
            call,
            pchannel,
            term,
            context=holder.process.context,
        )

    def _arrive(
        self, holder: Holder, call: Callable[[str, int], None], pchannel: str, term: int
    ) -> None:
        if self._network.reaches(HOST, holder.process.host):
            call(pchannel, term)
        elif self._channels[pchannel].term == term:
            self._network.loop.call_later(
                1.0, self._arrive, holder, call, pchannel, term, context=holder.process.context
            )
