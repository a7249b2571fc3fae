"""Who shall hold which PChannel: grants and releases. Pure. Layer: plan.

Contract: one step. Everything that nobody living holds is granted at once, unless its retry pause
lasts; a few others are asked back so that they can move. A grant's term lies above every term that
Lease, status and logs know. Nothing is granted while no coordinator leads: an open needs its fresh
tick, and a cluster whose claim was refused must not fence the rightful owner. So nothing is asked
back then either, unless nobody could take it over anyway.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from walplane.assignment.balance import (
    BalanceChannel,
    BalanceNode,
    BalanceSettings,
    Move,
    vchannelfair,
)
from walplane_operator.api.leases import PChannelLease
from walplane_operator.manifests.desired import dressed_lease
from walplane_operator.plan.channels import (
    INITIAL,
    LEASE_LOST,
    MOVED,
    NODE_EXPIRED,
    NODE_GONE,
    NODE_RESTARTED,
    OPEN_DEADLINE_S,
    OPEN_TIMEOUT,
    RELEASE_DEADLINE_S,
    RELEASE_TIMEOUT,
    SETTLED_S,
    ChannelView,
    ClusterMemory,
    Phase,
    floor_of,
)
from walplane_operator.plan.observed import Observed

MAX_MOVES = 3
"""PChannels on the move at a time."""
_SETTLED_S = 5.0
"""Clients' complaints about a grant younger than this are about the one before."""
_MAX_WEIGHT = 100


@dataclass(frozen=True)
class Grant:
    """Give a PChannel to a session."""

    index: int
    lease: PChannelLease | None
    session: str
    term: int
    reason: str


@dataclass(frozen=True)
class Release:
    """Ask the holder of a PChannel to give it back."""

    index: int
    lease: PChannelLease
    reason: str
    target: str = ""
    """Session that shall have it next; empty: whoever is best then."""


@dataclass(frozen=True)
class Mend:
    """Give a Lease back what it lost of labels, channel and owner."""

    index: int
    lease: PChannelLease


@dataclass(frozen=True)
class Assignment:
    """One step.

    Attributes:
        mends: Leases that nothing else is written to.
        wake_s: when to look again though nothing happens; None = no need.
    """

    grants: tuple[Grant, ...] = ()
    releases: tuple[Release, ...] = ()
    mends: tuple[Mend, ...] = ()
    wake_s: float | None = None


def assign(
    observed: Observed,
    views: Sequence[ChannelView],
    memory: ClusterMemory,
    cordoned: frozenset[str] = frozenset(),
) -> Assignment:
    """The step to make now.

    Args:
        observed: what is there.
        views: every PChannel, from `look`.
        memory: gets the reasons of what is decided.
        cordoned: pods that shall be emptied.
    """
    step = _Step(observed, views, memory, cordoned)
    grants = step.grants() if observed.leader is not None else []
    releases = step.releases({grant.index: grant.session for grant in grants})
    written = {grant.index for grant in grants} | {release.index for release in releases}
    mends = step.mends(written)
    memory.rest(written | {mend.index for mend in mends}, observed.clock)
    for grant in grants:
        # One entry is enough: the status keeps the history.
        memory.channels[grant.index].granted_for = {grant.term: grant.reason}
    for release in releases:
        asked_back = (release.lease.term, release.reason, release.target)
        memory.channels[release.index].asked_back = asked_back
    return Assignment(tuple(grants), tuple(releases), tuple(mends), step.wake_s())


class _Step:
    """The nodes and PChannels of one decision."""

    def __init__(
        self,
        observed: Observed,
        views: Sequence[ChannelView],
        memory: ClusterMemory,
        cordoned: frozenset[str],
    ) -> None:
        self._observed = observed
        self._views = views
        self._memory = memory
        self._calm = not cordoned
        self._nodes = {
            identity: BalanceNode(identity, frozen=not node.usable or node.session.pod in cordoned)
            for identity, node in observed.nodes.items()
            if node.alive
        }
        self._targets = {key for key, node in self._nodes.items() if not node.frozen}
        self._usable_pods = {
            node.session.pod: key for key, node in observed.nodes.items() if key in self._targets
        }

    def grants(self) -> list[Grant]:
        """Everything that nobody living holds, and may be tried now."""
        orphans = {view.index: view for view in self._views if self._orphaned(view)}
        ready = [view for view in orphans.values() if self._pause_of(view) <= 0]
        targets: dict[int, str] = {}
        groups: defaultdict[str, list[ChannelView]] = defaultdict(list)
        for view in ready:
            known = self._pinned_session(view) or self._promised(view)
            if known:
                targets[view.index] = known
            else:
                groups[self._avoided(view)].append(view)
        for avoided, group in sorted(groups.items()):
            targets |= self._place(group, avoided, targets)
        return [self._grant(orphans[index], session) for index, session in sorted(targets.items())]

    def releases(self, granted: Mapping[int, str]) -> list[Release]:
        """What is asked back, so that it can go elsewhere; `granted` goes out with it."""
        served = [view for view in self._views if self._held(view) and self._clash_of(view) <= 0]
        if not self._targets:
            return self._give_up(served)
        if not self._observed.led:
            return []  # it would wait for the next coordinator
        left = MAX_MOVES - sum(map(self._on_the_move, self._views))
        wanted = [*self._complaints(served), *self._to_pinned(served)]
        chosen = {release.index: release for release in wanted[: max(left, 0)]}
        for release in self._balance(left - len(chosen), granted):
            if self._clash_of(self._views[release.index]) <= 0:
                chosen.setdefault(release.index, release)
        return list(chosen.values())

    def mends(self, written: Container[int]) -> list[Mend]:
        """Leases that lost something of what makes them ours, beside those `written` anyway."""
        cluster = self._observed.cluster
        return [
            Mend(view.index, view.lease)
            for view in self._views
            if view.lease is not None
            and view.index not in written
            and self._clash_of(view) <= 0
            and dressed_lease(cluster, view.index, view.lease.raw) != view.lease.raw
        ]

    def wake_s(self) -> float | None:
        """When the next deadline or pause ends."""
        times = [
            wait
            for view in self._views
            for wait in (
                self._pause_of(view),
                self._clash_of(view),
                self._cooldown(view),
                self._settling(view),
                *self._deadlines(view),
            )
            if wait > 0
        ]
        return min(times, default=None)

    def _orphaned(self, view: ChannelView) -> bool:
        if view.phase in (Phase.FREE, Phase.DEAD):
            return True
        return any(wait <= 0 for wait in self._deadlines(view))

    def _on_the_move(self, view: ChannelView) -> bool:
        """Whether it is served again soon; others wait for that."""
        spent = self._observed.clock - view.since
        opens_long = view.phase is Phase.OPENING and spent >= OPEN_DEADLINE_S
        return view.phase is not Phase.SERVED and not view.failing and not opens_long

    def _held(self, view: ChannelView) -> bool:
        """Whether it is served, or on the way there."""
        held = (Phase.SERVED, Phase.OPENING, Phase.GRANTED)
        return view.phase in held and not self._orphaned(view)

    def _deadlines(self, view: ChannelView) -> list[float]:
        """Seconds until the holder has taken too long."""
        spent = self._observed.clock - view.since
        if view.phase is Phase.GRANTED:
            return [OPEN_DEADLINE_S - spent]
        return [RELEASE_DEADLINE_S - spent] if view.phase is Phase.RELEASING else []

    def _pause_of(self, view: ChannelView) -> float:
        """Seconds until it may be granted again."""
        if view.phase is Phase.SERVED:
            return 0.0
        not_before = self._memory.channels[view.index].not_before - self._observed.clock
        return max(not_before, self._clash_of(view))

    def _clash_of(self, view: ChannelView) -> float:
        """Seconds until its Lease may be written again, which somebody else keeps writing."""
        return self._memory.channels[view.index].clash_until - self._observed.clock

    def _pinned_session(self, view: ChannelView) -> str | None:
        pod = view.pchannel.spec.pinned_node if view.pchannel else None
        return self._usable_pods.get(pod) if pod else None

    def _promised(self, view: ChannelView) -> str | None:
        """The session that it was asked back for, so that nothing moves in vain."""
        term, _, target = self._memory.channels[view.index].asked_back
        return target if term == view.term and target in self._targets else None

    def _avoided(self, view: ChannelView) -> str:
        """Session of the pod where it failed last; empty when there is no other choice."""
        session = self._usable_pods.get(self._memory.channels[view.index].failed_pod, "")
        return session if len(self._targets) > 1 else ""

    def _place(
        self, group: list[ChannelView], avoided: str, placed: dict[int, str]
    ) -> dict[int, str]:
        """The best session for each of `group`, none of them `avoided`."""
        nodes = [
            replace(node, frozen=node.frozen or key == avoided) for key, node in self._nodes.items()
        ]
        orphans = {view.index for view in group}
        channels = [
            channel
            for view in self._views
            if (channel := self._balance_channel(view, orphans, placed)) is not None
        ]
        moves = vchannelfair(nodes, channels, BalanceSettings(max_moves=0))
        return {int(move.pchannel): move.target for move in moves if move.source is None}

    def _balance_channel(
        self, view: ChannelView, orphans: set[int], placed: Mapping[int, str]
    ) -> BalanceChannel | None:
        """`view` as the policy sees it; None when it is neither held nor to be placed."""
        holder = view.lease.holder if view.lease else ""
        if view.index in orphans:
            node = None
        elif view.index in placed:
            node = placed[view.index]
        elif self._held(view) and holder in self._nodes:
            node = holder
        else:
            return None
        return BalanceChannel(
            # The policy breaks ties by name: numbers of equal width keep the natural order.
            pchannel=f"{view.index:04d}",
            node_id=node,
            collections=self._weight(view),
            pinned=self._stays(view),
        )

    def _weight(self, view: ChannelView) -> tuple[int, ...]:
        """One number a VChannel, all different: nodes do not tell the collections."""
        memories = self._memory.channels
        most = max(memories[each.index].vchannels for each in self._views)
        count = memories[view.index].vchannels
        if most > _MAX_WEIGHT:
            count = -(-count * _MAX_WEIGHT // most)
        return tuple(view.index * _MAX_WEIGHT + number for number in range(count))

    def _stays(self, view: ChannelView) -> bool:
        """Whether it moves only off a node that is emptied."""
        spec = view.pchannel.spec if view.pchannel else None
        if spec is not None and (spec.frozen or self._pinned_session(view)):
            return True
        return not self._calm or self._cooldown(view) > 0 or view.phase is not Phase.SERVED

    def _cooldown(self, view: ChannelView) -> float:
        """Seconds until it may move again for the sake of balance."""
        if view.phase is not Phase.SERVED or view.term <= 1:
            return 0.0
        cooldown = float(self._observed.cluster.spec.lease.duration_seconds)
        return view.since + cooldown - self._observed.clock

    def _settling(self, view: ChannelView) -> float:
        """Seconds until its number of VChannels is one to balance by."""
        memory = self._memory.channels[view.index]
        count, since = memory.reported
        return 0.0 if count == memory.vchannels else since + SETTLED_S - self._observed.clock

    def _balance(self, left: int, granted: Mapping[int, str]) -> list[Release]:
        if left <= 0:
            return []
        leaving = [view for view in self._views if view.phase is Phase.RELEASING]
        coming = {view.index: target for view in leaving if (target := self._promised(view))}
        coming |= granted
        channels = [
            channel
            for view in self._views
            if (channel := self._balance_channel(view, set(), coming)) is not None
        ]
        asked = (tuple(sorted(self._nodes.items())), tuple(channels), left)
        if asked == self._memory.balanced:
            return []
        moves = vchannelfair(self._nodes.values(), channels, BalanceSettings(max_moves=left))
        self._memory.balanced = None if moves else asked
        return [release for move in moves if (release := self._move_away(move)) is not None]

    def _move_away(self, move: Move) -> Release | None:
        view = self._views[int(move.pchannel)]
        if move.source is None or view.lease is None:
            return None
        reason = "Draining" if self._nodes[move.source].frozen else "Balance"
        return Release(view.index, view.lease, reason, move.target)

    def _complaints(self, served: Iterable[ChannelView]) -> list[Release]:
        """What clients say is not served though its Lease says that it is."""
        leader = self._observed.leader
        if leader is None:
            return []
        return [
            Release(view.index, view.lease, f"Client{_camel(error.code)}")
            for view in served
            if view.phase is Phase.SERVED
            and view.lease is not None
            and (error := leader.report.errors.get(view.name)) is not None
            and error.term == view.term
            and self._observed.clock - view.since >= _SETTLED_S
        ]

    def _to_pinned(self, served: Iterable[ChannelView]) -> list[Release]:
        return [
            Release(view.index, view.lease, "Pinned")
            for view in served
            if view.lease is not None
            and (wanted := self._pinned_session(view)) is not None
            and wanted != view.lease.holder
        ]

    def _give_up(self, served: Iterable[ChannelView]) -> list[Release]:
        """Nobody can take over: leaving nodes are emptied, so that their successors come soon."""
        pods = self._observed.pods.values()
        draining = {
            node.session.pod
            for node in self._observed.nodes.values()
            if node.alive and node.session.report.draining
        }
        if any(not pod.terminating and pod.name not in draining for pod in pods):
            return []
        return [
            Release(view.index, view.lease, "Draining")
            for view in served
            if view.lease is not None and view.pod in draining
        ]

    def _grant(self, view: ChannelView, session: str) -> Grant:
        term = max(view.known_term, floor_of(self._observed, view.name)) + 1
        return Grant(view.index, view.lease, session, term, self._reason(view))

    def _reason(self, view: ChannelView) -> str:
        """Why it needs a new grant."""
        memory = self._memory.channels[view.index]
        if view.term == 0:
            return LEASE_LOST if view.known_term else INITIAL
        if view.phase is Phase.DEAD:
            if view.holder is not None:
                return NODE_EXPIRED
            alive = {node.session.pod for node in self._observed.nodes.values() if node.alive}
            return NODE_RESTARTED if view.pod in alive else NODE_GONE
        if view.phase is Phase.RELEASING:
            return RELEASE_TIMEOUT
        if view.phase is Phase.GRANTED:
            return OPEN_TIMEOUT
        if memory.failed_term == view.term:
            return memory.reason
        term, reason, _ = memory.asked_back
        return reason if term == view.term else MOVED


def _camel(code: str) -> str:
    return "".join(part.capitalize() for part in code.split("_"))
