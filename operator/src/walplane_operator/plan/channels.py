"""Where every PChannel stands, seen from its Lease, the sessions and what was there before. Pure.

Contract: the Lease alone says who holds a PChannel under which term; what is remembered is only
since when, how often it failed and why, so that losing the memory costs time, never safety. A
failure is counted once a term. Layer: plan.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace

from walplane_operator.api import names
from walplane_operator.api.leases import ChannelReport, PChannelLease
from walplane_operator.api.names import Object
from walplane_operator.api.spec import PChannel
from walplane_operator.plan.observed import NodeSession, Observed

OPEN_DEADLINE_S = 90.0
"""A grant that its node neither opens nor confirms by then has failed.

An open under way has no deadline here: a replay takes as long as the log is, and begins anew on
every other node. The node itself gives up an open that gets no further, and reports that.
"""
RELEASE_DEADLINE_S = 30.0
"""A node that has not given a PChannel back by then is fenced by the next grant."""
SETTLED_S = 10.0
"""A number of VChannels that has not changed for so long is one to balance by."""
_RETRY_S = (1.0, 30.0)
_WAITS_FOR_A_PERSON_S = {"DataLoss": 300.0, "ClaimedByOther": 30.0}

INITIAL = "Initial"
LEASE_LOST = "LeaseLost"
MOVED = "Moved"
NODE_EXPIRED = "NodeExpired"
NODE_GONE = "NodeGone"
NODE_RESTARTED = "NodeRestarted"
OPEN_TIMEOUT = "OpenTimeout"
RELEASE_TIMEOUT = "ReleaseTimeout"
OPEN_FAILED = "OpenFailed"
LEASE_CONFLICT = "LeaseConflict"


class Phase(enum.Enum):
    """What the Lease of a PChannel says."""

    FREE = "nobody holds it"
    DEAD = "its holder does not live"
    GRANTED = "granted, and no word of it yet"
    OPENING = "its node reports that it opens it"
    RELEASING = "to be given back"
    SERVED = "confirmed"


@dataclass
class ChannelMemory:
    """What is remembered of one PChannel; times are monotonic seconds.

    Attributes:
        term: that `phase` and `since` speak of.
        attempts: failures since it was last served.
        failed_term: the latest term whose failure was counted.
        failed_pod: where it failed last.
        not_before: no grant earlier.
        granted_for: reason of the grant of each term, for its history.
        asked_back: the latest term asked back, why, and for which session (empty: any).
        vchannels: what balance goes by; follows what is reported once that has settled.
        reported: the latest report of VChannels, and since when it is the same.
        clashes: writes of its Lease in a row that somebody else was ahead of.
        clash_until: no write of its Lease earlier.
    """

    term: int = -1
    phase: Phase = Phase.FREE
    since: float = 0.0
    attempts: int = 0
    failed_term: int = -1
    failed_pod: str = ""
    reason: str = ""
    message: str = ""
    not_before: float = 0.0
    granted_for: dict[int, str] = field(default_factory=dict)
    asked_back: tuple[int, str, str] = (-1, "", "")
    vchannels: int = 0
    reported: tuple[int, float] = (0, 0.0)
    clashes: int = 0
    clash_until: float = 0.0


@dataclass(frozen=True)
class ChannelView:
    """One PChannel as it stands.

    Attributes:
        lease: None when there is none yet.
        holder: the session that the Lease names, when its Lease is there.
        report: what the holder says about the present term.
        since: when it came to this phase, monotonic seconds.
        failing: it could not be served lately, and may not be soon.
    """

    index: int
    name: str
    pchannel: PChannel | None
    lease: PChannelLease | None
    phase: Phase
    holder: NodeSession | None
    report: ChannelReport | None
    since: float
    failing: bool = False

    @property
    def term(self) -> int:
        """The highest term granted."""
        return self.lease.term if self.lease else 0

    @property
    def pod(self) -> str:
        """Pod of its holder; empty for nobody."""
        return names.pod_of(self.lease.holder) if self.lease else ""

    @property
    def known_term(self) -> int:
        """The highest term the API server knows of."""
        status: Object = self.pchannel.status if self.pchannel else {}
        return max(self.term, int(status.get("term") or 0))


class ClusterMemory:
    """What is remembered of one WALCluster between two reconciles.

    Attributes:
        balanced: what the balance policy was last asked about without wanting a move.
        nodes: sessions that lived at the last look, for events.
    """

    def __init__(self) -> None:
        """Remembers nothing."""
        self.channels: dict[int, ChannelMemory] = {}
        self.balanced: object = None
        self.nodes: set[str] = set()

    def clash(self, index: int, now: float) -> float:
        """Somebody else wrote a Lease first; seconds until the next attempt, none at first."""
        known = self.channels[index]
        known.clashes += 1
        pause = retry_pause(known.clashes, LEASE_CONFLICT)
        known.clash_until = now + pause
        return pause

    def rest(self, busy: Container[int], now: float) -> None:
        """Nothing is to be written now but to the Leases of `busy`: a row of clashes ends so."""
        for index, known in self.channels.items():
            if index not in busy and known.clash_until <= now:
                known.clashes = 0


def look(observed: Observed, memory: ClusterMemory) -> list[ChannelView]:
    """Every PChannel of the cluster, in order; `memory` takes in what is new."""
    views = []
    for index in range(observed.cluster.spec.pchannels.count):
        if index not in memory.channels:
            memory.channels[index] = _recalled(observed.pchannels.get(index))
        known = memory.channels[index]
        view = _view(observed, index, known)
        _note_failure(observed, view, known)
        _note_vchannels(observed, view, known)
        views.append(replace(view, failing=known.attempts > 0))
    return views


def floor_of(observed: Observed, channel: str) -> int:
    """The highest term that any node saw in the log of `channel`, or has it under."""
    reported = (each for _, each in _reports(observed, channel))
    return max((max(each.term, each.term_floor) for each in reported), default=0)


def retry_pause(attempts: int, reason: str) -> float:
    """Seconds before the next attempt: none after the first failure, another node may do."""
    if reason in _WAITS_FOR_A_PERSON_S:
        return _WAITS_FOR_A_PERSON_S[reason]
    first, most = _RETRY_S
    return 0.0 if attempts <= 1 else min(most, first * 2.0 ** min(attempts - 2, 10))


def _recalled(pchannel: PChannel | None) -> ChannelMemory:
    """What an earlier operator left in the status."""
    status: Object = pchannel.status if pchannel else {}
    vchannels = int(status.get("vchannels") or 0)
    attempts = int(status.get("attempts") or 0)
    if not attempts:
        return ChannelMemory(vchannels=vchannels, reported=(vchannels, 0.0))
    return ChannelMemory(
        vchannels=vchannels,
        reported=(vchannels, 0.0),
        attempts=attempts,
        failed_term=int(status.get("term") or 0),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
    )


def _view(observed: Observed, index: int, memory: ChannelMemory) -> ChannelView:
    lease = observed.leases.get(index)
    name = observed.cluster.channel(index)
    holder = observed.nodes.get(lease.holder) if lease else None
    term = lease.term if lease else 0
    report = holder.session.report.channels.get(name) if holder else None
    report = report if report is not None and report.term == term else None
    phase = _phase(lease, holder, report)
    if (memory.term, memory.phase) != (term, phase):
        memory.term, memory.phase, memory.since = term, phase, observed.clock
    return ChannelView(
        index=index,
        name=name,
        pchannel=observed.pchannels.get(index),
        lease=lease,
        phase=phase,
        holder=holder,
        report=report,
        since=memory.since,
    )


def _phase(
    lease: PChannelLease | None, holder: NodeSession | None, report: ChannelReport | None
) -> Phase:
    if lease is None or not lease.holder:
        return Phase.FREE
    if holder is None or not holder.alive:
        return Phase.DEAD
    if lease.release and lease.release == lease.term:
        return Phase.RELEASING
    if lease.ready:
        return Phase.SERVED
    return Phase.OPENING if report is not None and report.opening else Phase.GRANTED


def _note_failure(observed: Observed, view: ChannelView, memory: ChannelMemory) -> None:
    """Counts a failure of the present term, once; forgets all when it is served."""
    if view.phase is Phase.SERVED:
        memory.attempts, memory.reason, memory.message, memory.failed_pod = 0, "", "", ""
        memory.failed_term, memory.not_before = -1, 0.0
        return
    found = _failure(observed, view)
    if found is None or memory.failed_term == view.term:
        return
    memory.failed_pod, memory.reason, memory.message = found
    memory.failed_term = view.term
    memory.attempts += 1
    memory.not_before = observed.clock + retry_pause(memory.attempts, memory.reason)


def _note_vchannels(observed: Observed, view: ChannelView, memory: ChannelMemory) -> None:
    """Collections come shard by shard, and each node reports in its own time: wait for the end."""
    count = view.report.vchannels if view.report is not None else memory.reported[0]
    if count != memory.reported[0]:
        memory.reported = (count, observed.clock)
    elif observed.clock - memory.reported[1] >= SETTLED_S:
        memory.vchannels = count


def _failure(observed: Observed, view: ChannelView) -> tuple[str, str, str] | None:
    """(pod, reason, message) when the present term failed."""
    if view.phase is Phase.FREE and view.term > 0:
        for pod, report in _reports(observed, view.name):
            if report.term == view.term and report.last_error:
                return pod, report.reason or OPEN_FAILED, f"{pod}: {report.last_error}"
    if view.phase is Phase.GRANTED and observed.clock - view.since >= OPEN_DEADLINE_S:
        message = f"{view.pod} neither opened nor confirmed it within {OPEN_DEADLINE_S:g} s"
        if view.report is not None and view.report.last_error:
            message += f": {view.report.last_error}"
        return view.pod, OPEN_TIMEOUT, message
    return None


def _reports(observed: Observed, channel: str) -> Iterator[tuple[str, ChannelReport]]:
    for node in observed.nodes.values():
        report = node.session.report.channels.get(channel)
        if report is not None:
            yield node.session.pod, report
