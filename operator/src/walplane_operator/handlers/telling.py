"""Statuses and events of one WALCluster. Layer: handlers.

Contract: state changes are written at once, numbers within the cluster's budget; nothing is written
that is there already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from walplane_operator.api import names
from walplane_operator.api.conditions import Condition, find, merge
from walplane_operator.api.names import Object
from walplane_operator.api.spec import WALCluster
from walplane_operator.apply.events import Event, EventWriter
from walplane_operator.apply.kube import ApiError, Kube
from walplane_operator.apply.leases import Written
from walplane_operator.apply.statuses import Budget, write_status
from walplane_operator.handlers.metrics import Metrics
from walplane_operator.plan.channel_status import Change, change, channel_status
from walplane_operator.plan.channels import ChannelView, ClusterMemory
from walplane_operator.plan.cluster_status import Sight, cluster_status
from walplane_operator.plan.observed import Observed
from walplane_operator.plan.workload import Workforce

_AT_ONCE = 8
_TOLD = ("Ready", "Progressing", "Degraded", "BackendReachable")
_BAD = {("Ready", "False"), ("Degraded", "True"), ("BackendReachable", "False")}


class Teller:
    """Writes what people read."""

    def __init__(self, kube: Kube, events: EventWriter, metrics: Metrics) -> None:
        """Takes what it works with."""
        self._kube = kube
        self._events = events
        self._metrics = metrics
        self._budgets: dict[tuple[str, str], Budget] = {}

    def forget(self, key: tuple[str, str]) -> None:
        """The cluster is gone."""
        self._budgets.pop(key, None)

    async def tell(
        self,
        observed: Observed,
        views: Sequence[ChannelView],
        memory: ClusterMemory,
        workforce: Workforce,
        refused: Sequence[str],
    ) -> float | None:
        """Statuses and events; returns when numbers that had to wait may be written."""
        statuses = [channel_status(observed, v, memory.channels[v.index]) for v in views]
        wait = await self._write_channels(observed, views, statuses)
        sight = Sight(observed, statuses, workforce.progress, tuple(refused))
        status = cluster_status(sight)
        before = observed.cluster.status
        if status != before:
            await write_status(self._kube, observed.cluster.raw, names.WALCLUSTER, status)
            self._metrics.status_writes.labels(names.WALCLUSTER).inc()
            self._tell_conditions(observed, before, status)
        self._tell_nodes(observed, memory)
        return wait

    async def _write_channels(
        self, observed: Observed, views: Sequence[ChannelView], statuses: Sequence[Object]
    ) -> float | None:
        key = (observed.cluster.namespace, observed.cluster.name)
        budget = self._budgets.setdefault(key, Budget())
        urgent: list[tuple[Object, Object]] = []
        numbers: list[tuple[Object, Object]] = []
        for view, status in zip(views, statuses, strict=True):
            if view.pchannel is None:
                continue
            kind = change(view.pchannel.status, status, observed.now)
            if kind is Change.STATE:
                urgent.append((view.pchannel.raw, status))
            elif kind is Change.NUMBERS:
                numbers.append((view.pchannel.raw, status))
        numbers.sort(key=lambda pair: (pair[0].get("status") or {}).get("reportedAt", ""))
        allowed = [pair for pair in numbers if budget.take(observed.clock)]
        limit = asyncio.Semaphore(_AT_ONCE)

        async def write(raw: Object, status: Object) -> None:
            async with limit:
                await write_status(self._kube, raw, names.PCHANNEL, status)
                self._metrics.status_writes.labels(names.PCHANNEL).inc()

        async with asyncio.TaskGroup() as tasks:
            for raw, status in (*urgent, *allowed):
                tasks.create_task(write(raw, status))
        return budget.wait_s() if len(allowed) < len(numbers) else None

    def tell_moves(self, observed: Observed, written: Written) -> None:
        """Events on the PChannels that were granted or asked back."""
        for grant in written.grants:
            pchannel = observed.pchannels.get(grant.index)
            if pchannel is not None:
                message = f"term {grant.term} to {names.pod_of(grant.session)}: {grant.reason}"
                event = Event(pchannel.raw, names.PCHANNEL, "Granted", message)
                self._events.tell(event, observed.now)
        for release in written.releases:
            pchannel = observed.pchannels.get(release.index)
            if pchannel is not None:
                pod = names.pod_of(release.lease.holder)
                message = f"term {release.lease.term} asked back from {pod}: {release.reason}"
                event = Event(pchannel.raw, names.PCHANNEL, "Releasing", message)
                self._events.tell(event, observed.now)

    def refuse_foreign(self, observed: Observed) -> None:
        """Events on PChannels that name the cluster and are none of its own."""
        for pchannel, why in observed.foreign:
            if not pchannel.deleted_at:
                event = Event(pchannel.raw, names.PCHANNEL, "Refused", why, "Warning")
                self._events.tell(event, observed.now)

    async def tell_failure(self, cluster: WALCluster, error: Exception, now: datetime) -> None:
        """Tells, as condition and event, of a reconcile that failed and will be tried again.

        An API server that is away, or a conflict, is nothing to tell.
        """
        if isinstance(error, ApiError) and not error.refused:
            return
        what = str(error) if isinstance(error, ApiError) else f"{type(error).__name__}: {error}"
        message = f"{what} (tried again)"
        wanted = Condition("Degraded", "True", "ReconcileFailed", message)
        present = cluster.status.get("conditions") or []
        merged = merge(present, [wanted], cluster.generation, now)
        others = [one for one in present if one["type"] != wanted.type]
        status = {**cluster.status, "conditions": [*others, *merged]}
        event = Event(cluster.raw, names.WALCLUSTER, wanted.reason, message, "Warning")
        self._events.tell(event, now)
        with suppress(ApiError):
            await write_status(self._kube, cluster.raw, names.WALCLUSTER, status)

    def _tell_conditions(self, observed: Observed, before: Object, after: Object) -> None:
        """An event for every condition that has changed its status, or its reason if that tells."""
        for kind in _TOLD:
            old = find(before.get("conditions"), kind) or {}
            new = find(after["conditions"], kind) or {}
            same = old.get("status") == new["status"]
            if same and (old.get("reason") == new["reason"] or kind == "Ready"):
                continue
            bad = (kind, new["status"]) in _BAD and bool(old)
            message = f"{kind} is {new['status']}: {new['message'] or new['reason']}"
            event = Event(
                observed.cluster.raw,
                names.WALCLUSTER,
                new["reason"],
                message,
                "Warning" if bad else "Normal",
            )
            self._events.tell(event, observed.now)

    def _tell_nodes(self, observed: Observed, memory: ClusterMemory) -> None:
        """Nodes that came or went since the last look."""
        alive = {identity for identity, node in observed.nodes.items() if node.alive}
        about = observed.cluster.raw
        for identity in sorted(alive - memory.nodes):
            message = f"{names.pod_of(identity)} has a session: {identity}"
            event = Event(about, names.WALCLUSTER, "NodeJoined", message)
            self._events.tell(event, observed.now)
        for identity in sorted(memory.nodes - alive):
            silent = identity in observed.nodes
            why = "its session was not renewed in time" if silent else "its session is gone"
            message = f"{names.pod_of(identity)}: {why}: {identity}"
            event = Event(
                about,
                names.WALCLUSTER,
                "NodeExpired" if silent else "NodeLeft",
                message,
                "Warning" if silent else "Normal",
            )
            self._events.tell(event, observed.now)
        memory.nodes = alive
