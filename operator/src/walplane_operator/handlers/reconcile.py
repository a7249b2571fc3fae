"""One look at one WALCluster, and what follows. Layer: handlers.

Contract: level-triggered: everything is read anew, decided by `plan`, written by `apply`; running
it twice changes nothing. Leases come first, since PChannels wait for them. What the API server
refuses for good is told in conditions; everything else is raised, and tried again by the queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from walplane_operator.api import names
from walplane_operator.api.leases import Session
from walplane_operator.api.names import Object
from walplane_operator.api.spec import WALCluster
from walplane_operator.apply import leases
from walplane_operator.apply.events import Event, EventWriter
from walplane_operator.apply.kube import LEASES, Kube, path_of
from walplane_operator.apply.objects import Applier
from walplane_operator.handlers.ending import Ender
from walplane_operator.handlers.metrics import Metrics
from walplane_operator.handlers.telling import Teller
from walplane_operator.manifests.desired import pchannel, workloads
from walplane_operator.plan.assignment import Assignment, assign
from walplane_operator.plan.channels import ClusterMemory, look
from walplane_operator.plan.observed import Observed, Raw, read
from walplane_operator.plan.sessions import SessionMonitor
from walplane_operator.plan.workload import Workforce, decide

_log = structlog.get_logger(__name__)

ClusterKey = tuple[str, str]
"""(namespace, name)."""


@dataclass
class Tools:
    """What a reconcile works with."""

    kube: Kube
    monitor: SessionMonitor
    metrics: Metrics
    events: EventWriter
    applier: Applier
    image: str
    may_write: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))


class Reconciler:
    """Reconciles WALClusters, by key."""

    def __init__(self, tools: Tools) -> None:
        """Remembers nothing."""
        self._tools = tools
        self._memory: dict[ClusterKey, ClusterMemory] = {}
        self._teller = Teller(tools.kube, tools.events, tools.metrics)
        self._ender = Ender(tools.kube, tools.events)

    async def reconcile(self, key: ClusterKey) -> float | None:
        """One look; returns after how many seconds to look again, None = when something happens.

        Raises:
            ApiError: or a group of them; to be tried again.
        """
        if not self._tools.may_write():
            return 1.0  # the API server is away, or another operator leads
        with self._tools.metrics.seconds.time():
            try:
                again = await self._look(key)
            except BaseException:
                self._tools.metrics.reconciles.labels("failed").inc()
                raise
        self._tools.metrics.reconciles.labels("done").inc()
        return again

    async def close(self) -> None:
        """Ends what reconciles have begun beside themselves."""
        await self._ender.close()

    async def _look(self, key: ClusterKey) -> float | None:
        namespace, name = key
        path = path_of(names.API_VERSION, names.WALCLUSTER, namespace, name)
        raw = await self._tools.kube.get(path)
        if raw is None:
            await self._gone(key)
            return None
        cluster = WALCluster(raw)
        try:
            return await self._steps(key, cluster)
        except Exception as error:
            await self._teller.tell_failure(cluster, _first(error), self._tools.wall())
            raise

    async def _steps(self, key: ClusterKey, cluster: WALCluster) -> float | None:
        if await self._ender.settle_finalizer(cluster):
            return 0.0  # it has changed: look anew
        observed = await self._observe(cluster)
        if cluster.deleted_at:
            self._memory.pop(key, None)
            return await self._ender.end(observed)
        memory = self._memory.setdefault(key, ClusterMemory())
        return await self._act(observed, memory)

    async def _gone(self, key: ClusterKey) -> None:
        namespace, name = key
        self._memory.pop(key, None)
        self._teller.forget(key)
        self._ender.forget(key)
        self._tools.applier.forget(namespace, name)
        listed, _ = await self._tools.kube.list(
            path_of(names.API_VERSION, names.PCHANNEL, namespace)
        )
        for raw in listed:
            metadata = raw["metadata"]
            left_over = metadata.get("ownerReferences") or metadata.get("deletionTimestamp")
            if raw["spec"].get("clusterRef") == name and not left_over:
                why = f"there is no WALCluster {name} in namespace {namespace}: delete this object"
                self._tools.events.tell(
                    Event(raw, names.PCHANNEL, "Refused", why, "Warning"), self._tools.wall()
                )

    async def _observe(self, cluster: WALCluster) -> Observed:
        """Complete lists, all at once."""
        namespace, kube = cluster.namespace, self._tools.kube
        own = f"{names.LABEL_CLUSTER}={cluster.name}"
        node_set, coord = names.node_set(cluster.name), names.coord(cluster.name)
        async with asyncio.TaskGroup() as tasks:
            pchannels = tasks.create_task(
                kube.list(path_of(names.API_VERSION, names.PCHANNEL, namespace))
            )
            held = tasks.create_task(kube.list(path_of(LEASES, "Lease", namespace), own))
            pods = tasks.create_task(kube.list(path_of("v1", "Pod", namespace), own))
            nodes = tasks.create_task(
                kube.get(path_of("apps/v1", "StatefulSet", namespace, node_set))
            )
            coords = tasks.create_task(kube.get(path_of("apps/v1", "Deployment", namespace, coord)))
        raw = Raw(
            pchannels.result()[0],
            held.result()[0],
            nodes.result(),
            coords.result(),
            pods.result()[0],
        )

        def alive(session: Session) -> bool:
            return self._tools.monitor.alive(namespace, cluster.name, session)

        return read(cluster, raw, alive, self._tools.wall(), self._tools.clock())

    async def _act(self, observed: Observed, memory: ClusterMemory) -> float | None:
        cluster = observed.cluster
        views = look(observed, memory)
        workforce = decide(observed, views)
        wakes: list[float | None] = []
        refused = []
        if not cluster.spec.paused:
            if not cluster.embedded:
                step = assign(observed, views, memory, workforce.cordoned)
                wakes.append(step.wake_s)
                observed, conflicts = await self._write_leases(observed, step)
                wakes += [memory.clash(index, observed.clock) for index in conflicts]
                views = look(observed, memory)
            refused = await self._apply(observed, workforce)
            self._teller.refuse_foreign(observed)
        wakes.append(await self._teller.tell(observed, views, memory, workforce, refused))
        if workforce.replace is not None and not cluster.spec.paused:
            await self._replace(observed, workforce)
        return min((each for each in wakes if each is not None), default=None)

    async def _write_leases(
        self, observed: Observed, step: Assignment
    ) -> tuple[Observed, list[int]]:
        """What is there afterwards, and the PChannels whose Leases others wrote meanwhile."""
        cluster, now = observed.cluster, observed.now
        written = await leases.write(
            self._tools.kube, cluster, step.grants, step.releases, now, step.mends
        )
        metrics = self._tools.metrics
        for grant in written.grants:
            metrics.grants.labels(grant.reason).inc()
        for release in written.releases:
            metrics.releases.labels(release.reason).inc()
        metrics.conflicts.inc(len(written.conflicts))
        observed = observed.with_leases(written.leases)
        self._teller.tell_moves(observed, written)
        return observed, written.conflicts

    async def _apply(self, observed: Observed, workforce: Workforce) -> list[str]:
        """Manifests and PChannels; returns what was refused."""
        cluster = observed.cluster
        image = cluster.spec.image or self._present_image(observed) or self._tools.image
        missing = set()
        if observed.node_set is None or observed.node_set.replicas != workforce.replicas:
            missing.add("StatefulSet")
        if observed.coord is None:
            missing.add("Deployment")
        refused = await self._tools.applier.apply(
            workloads(cluster, image, workforce.replicas), frozenset(missing)
        )
        wanted = [
            pchannel(cluster, index)
            for index in range(cluster.spec.pchannels.count)
            if not _as_wanted(cluster, observed, index)
        ]
        return refused + await self._tools.applier.apply(wanted, frozenset({names.PCHANNEL}))

    @staticmethod
    def _present_image(observed: Observed) -> str:
        """What runs stays, so that an upgrade of the operator changes no image.

        The coordinator's when the StatefulSet was deleted by hand: that is no wish for an upgrade.
        """
        present = observed.node_set or observed.coord
        return present.image if present else ""

    async def _replace(self, observed: Observed, workforce: Workforce) -> None:
        """Deletes a pod for a roll-out, having read anew that it holds nothing."""
        pod, cluster = workforce.replace, observed.cluster
        if pod is None:
            return
        own = f"{names.LABEL_CLUSTER}={cluster.name},{names.LABEL_LEASE}={names.LEASE_PCHANNEL}"
        held, _ = await self._tools.kube.list(path_of(LEASES, "Lease", cluster.namespace), own)
        holders = {names.pod_of(one["spec"].get("holderIdentity") or "") for one in held}
        alone = cluster.spec.nodes.replicas == 1
        if pod.name in holders and not alone:
            return
        path = path_of("v1", "Pod", cluster.namespace, pod.name)
        if await self._tools.kube.delete(path, pod.uid):
            message = f"{pod.name} is replaced: its template is outdated"
            event = Event(cluster.raw, names.WALCLUSTER, "PodReplaced", message)
            self._tools.events.tell(event, observed.now)


def _as_wanted(cluster: WALCluster, observed: Observed, index: int) -> bool:
    """Whether PChannel `index` is there, labelled and owned by `cluster`."""
    found = observed.pchannels.get(index)
    if found is None:
        return False
    labels: Object = found.raw["metadata"].get("labels") or {}
    return cluster.uid in found.owners and labels.get(names.LABEL_CLUSTER) == cluster.name


def _first(error: Exception) -> Exception:
    """The first failure in groups of groups."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
