"""From what the watches tell to keys in the queue. Layer: handlers.

Contract: whatever may change a decision pokes its WALCluster at once; numbers of a report poke it
later; a renewal alone feeds the clock of its session and nothing else. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from walplane_operator.api import names
from walplane_operator.api.leases import ChannelReport, Report, Session
from walplane_operator.api.names import Object
from walplane_operator.apply.kube import WatchEvent
from walplane_operator.handlers.metrics import Metrics
from walplane_operator.handlers.reconcile import ClusterKey
from walplane_operator.handlers.watching import Listeners
from walplane_operator.plan.sessions import SessionMonitor

_log = structlog.get_logger(__name__)

NUMBERS_DELAY_S = 5.0
_DELETED = "DELETED"

Poke = Callable[[ClusterKey, float], None]


def cluster_key(raw: Object) -> ClusterKey | None:
    """The WALCluster that an object is labelled with."""
    labels = raw["metadata"].get("labels") or {}
    name = labels.get(names.LABEL_CLUSTER)
    return (raw["metadata"]["namespace"], name) if name else None


class WorkloadTriggers:
    """Pods, StatefulSets, Deployments: any change pokes."""

    def __init__(self, poke: Poke, kind: str, metrics: Metrics) -> None:
        """Takes the queue."""
        self._poke = poke
        self._kind = kind
        self._metrics = metrics

    @property
    def listeners(self) -> Listeners:
        """What a `Watcher` tells."""
        return Listeners(self._listed, self._event, lambda: None)

    def _listed(self, items: list[Object], _asked: float) -> None:
        self._metrics.watch_restarts.labels(self._kind).inc()
        for raw in items:
            if key := cluster_key(raw):
                self._poke(key, 0.0)

    def _event(self, event: WatchEvent, _now: float) -> None:
        if event.type != "BOOKMARK" and (key := cluster_key(event.object)):
            self._poke(key, 0.0)


class LeaseTriggers:
    """Leases: sessions feed the monitor, assignments poke."""

    def __init__(self, poke: Poke, monitor: SessionMonitor, metrics: Metrics) -> None:
        """Takes queue and monitor."""
        self._poke = poke
        self._monitor = monitor
        self._metrics = metrics
        self._reports: dict[tuple[str, str], tuple[str, Report]] = {}

    @property
    def listeners(self) -> Listeners:
        """What a `Watcher` tells."""
        return Listeners(self._listed, self._event, self._monitor.interrupted)

    def expire(self) -> None:
        """Pokes the clusters of sessions that were found dead."""
        for namespace, cluster, pod in self._monitor.expire():
            self._metrics.expired.inc()
            _log.warning("session expired", namespace=namespace, cluster=cluster, pod=pod)
            self._poke((namespace, cluster), 0.0)

    def _listed(self, items: list[Object], asked: float) -> None:
        self._metrics.watch_restarts.labels("Lease").inc()
        sessions = []
        self._reports.clear()
        for raw in items:
            key = cluster_key(raw)
            if key is None:
                continue
            self._poke(key, 0.0)
            if _kind(raw) == names.LEASE_SESSION:
                session = Session.read(raw)
                sessions.append((*key, session))
                self._reports[key[0], session.pod] = (session.identity, session.report)
        self._monitor.listed(sessions, asked)

    def _event(self, event: WatchEvent, now: float) -> None:
        raw, key = event.object, None
        if event.type != "BOOKMARK":
            key = cluster_key(raw)
        if key is None:
            self._monitor.proved(now)  # a bookmark, or our own heartbeat
        elif _kind(raw) == names.LEASE_SESSION:
            self._session(event.type, raw, key, now)
        else:
            self._monitor.proved(now)
            if _kind(raw) == names.LEASE_PCHANNEL:
                self._poke(key, 0.0)
        self.expire()

    def _session(self, type_: str, raw: Object, key: ClusterKey, now: float) -> None:
        session = Session.read(raw)
        slot = (key[0], session.pod)
        if type_ == _DELETED:
            self._monitor.deleted(*key, session.pod, now)
            self._reports.pop(slot, None)
            self._poke(key, 0.0)
            return
        self._monitor.changed(*key, session, now)
        identity, report = self._reports.get(slot, ("", Report()))
        self._reports[slot] = (session.identity, session.report)
        if identity != session.identity or _weighty(report) != _weighty(session.report):
            self._poke(key, 0.0)
        elif report != session.report:
            self._poke(key, NUMBERS_DELAY_S)


def _kind(raw: Object) -> str:
    labels = raw["metadata"].get("labels") or {}
    return str(labels.get(names.LABEL_LEASE, ""))


def _weighty(report: Report) -> object:
    """What of a report may change a decision."""

    def of(channel: ChannelReport) -> object:
        return (channel.term, channel.term_floor, channel.last_error, channel.reason)

    channels = {name: of(channel) for name, channel in report.channels.items()}
    return (report.draining, report.leading, report.backend, report.errors, channels)


class KopfTriggers:
    """WALClusters and PChannels, as kopf tells them; and whether it still does.

    Every resync compares what a list shows with what kopf told: an object that kopf has not
    mentioned in its present version for `patience_s` means that its watch is dead.
    """

    def __init__(self, poke: Poke, patience_s: float = 60.0) -> None:
        """Takes the queue."""
        self._poke = poke
        self._patience_s = patience_s
        self._marks: dict[str, object] = {}
        self._versions: dict[str, str] = {}
        self._missed: dict[str, float] = {}

    def told(self, kind: str, type_: str | None, raw: Object) -> None:
        """An object that kopf tells of; status changes alone poke nobody."""
        metadata = raw["metadata"]
        uid = metadata["uid"]
        key = _key_of(kind, raw)
        self._missed.pop(uid, None)
        if type_ == _DELETED:
            self._marks.pop(uid, None)
            self._versions.pop(uid, None)
            self._poke(key, 0.0)
            return
        self._versions[uid] = metadata["resourceVersion"]
        mark = tuple(
            repr(metadata.get(part))
            for part in (
                "generation",
                "annotations",
                "labels",
                "finalizers",
                "ownerReferences",
                "deletionTimestamp",
            )
        )
        if self._marks.get(uid) != mark:
            self._marks[uid] = mark
            self._poke(key, 0.0)

    def listed(self, items: list[Object]) -> None:
        """A complete list of WALClusters, read otherwise than through kopf."""
        now = asyncio.get_running_loop().time()
        present = {}
        for raw in items:
            uid = raw["metadata"]["uid"]
            if self._versions.get(uid) != raw["metadata"]["resourceVersion"]:
                present[uid] = self._missed.get(uid, now)
        self._missed = present

    def dead(self, now: float) -> bool:
        """Whether kopf has stopped telling."""
        return any(now - since > self._patience_s for since in self._missed.values())


def _key_of(kind: str, raw: Object) -> ClusterKey:
    namespace = raw["metadata"]["namespace"]
    if kind == names.WALCLUSTER:
        return namespace, raw["metadata"]["name"]
    return namespace, raw["spec"].get("clusterRef", "")
