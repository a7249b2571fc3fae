"""An API server in memory and a cluster on it, for tests; the operator never imports it."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import cast

from kubernetes.aio import client

from walplane.testkit.kube_objects import ClusterObjects, Object, walcluster
from walplane_operator.api import names
from walplane_operator.api.conditions import find
from walplane_operator.api.leases import Session
from walplane_operator.api.spec import WALCluster
from walplane_operator.apply.events import EventWriter
from walplane_operator.apply.kube import ApiError, Kube, object_path
from walplane_operator.apply.objects import Applier
from walplane_operator.handlers.metrics import Metrics
from walplane_operator.handlers.reconcile import Reconciler, Tools
from walplane_operator.plan.assignment import Assignment, assign
from walplane_operator.plan.channels import ClusterMemory, look
from walplane_operator.plan.observed import Raw, read
from walplane_operator.plan.sessions import SessionMonitor


class MemoryKube(Kube):
    """Objects by path, with resourceVersions; refuses what it is told to refuse."""

    def __init__(self) -> None:
        """Empty."""
        super().__init__(cast(client.ApiClient, None))
        self.objects: dict[str, Object] = {}
        self.writes: list[str] = []
        self.refusals: dict[str, ApiError] = {}
        self._version = 10_000

    def put(self, raw: Object) -> None:
        """Puts an object there as somebody else would."""
        self.objects[object_path(raw)] = raw

    def written(self) -> list[str]:
        """What was written since the last call, events aside."""
        found = [write for write in self.writes if "/events/" not in write]
        self.writes.clear()
        return found

    async def get(self, path: str) -> Object | None:
        """See `Kube`."""
        return copy.deepcopy(self.objects.get(path))

    async def list(self, path: str, selector: str = "") -> tuple[list[Object], str]:
        """See `Kube`."""
        wanted = dict(term.split("=") for term in selector.split(",") if term)
        found = [
            copy.deepcopy(raw)
            for key, raw in self.objects.items()
            if key.rpartition("/")[0] == path
            and wanted.items() <= (raw["metadata"].get("labels") or {}).items()
        ]
        return found, str(self._version)

    async def create(self, path: str, body: Object) -> Object:
        """See `Kube`."""
        key = f"{path}/{body['metadata']['name']}"
        if key in self.objects:
            raise ApiError(key, 409, "exists")
        return self._store("create", key, body)

    async def replace(self, body: Object) -> Object:
        """See `Kube`."""
        key = object_path(body)
        present = self.objects.get(key)
        if present is None:
            raise ApiError(key, 404, "gone")
        if present["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise ApiError(key, 409, "modified")
        return self._store("replace", key, body)

    async def apply(self, body: Object, subresource: str = "") -> Object:
        """See `Kube`."""
        key = object_path(body)
        present = copy.deepcopy(self.objects.get(key))
        if subresource:
            if present is None:
                raise ApiError(key, 404, "gone")
            present["status"] = body["status"]
            return self._store("status", key, present)
        merged = (present or {}) | body
        if present:
            merged["metadata"] = present["metadata"] | body["metadata"]
            merged["spec"] = present.get("spec", {}) | body.get("spec", {})
        merged["metadata"].setdefault("uid", f"uid-of-{body['metadata']['name']}")
        return self._store("apply", key, merged)

    async def patch(self, path: str, body: Object) -> Object:
        """See `Kube`."""
        present = copy.deepcopy(self.objects[path])
        present["metadata"] |= body.get("metadata", {})
        return self._store("patch", path, present)

    async def delete(self, path: str, uid: str = "") -> bool:
        """See `Kube`."""
        present = self.objects.get(path)
        if present is None or (uid and present["metadata"]["uid"] != uid):
            return False
        self.writes.append(f"delete {path}")
        del self.objects[path]
        return True

    def _store(self, verb: str, key: str, body: Object) -> Object:
        if key in self.refusals:
            raise self.refusals[key]
        self._version += 1
        body = copy.deepcopy(body)
        body["metadata"]["resourceVersion"] = str(self._version)
        self.objects[key] = body
        self.writes.append(f"{verb} {key}")
        return copy.deepcopy(body)


_NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = ("default", "demo")
"""Of the cluster that `World` has."""


class World:
    """A cluster, its API server and its operator."""

    def __init__(self, raw: Object | None = None) -> None:
        """With nothing made yet; `raw` is the WALCluster."""
        self.kube = MemoryKube()
        self.objects = ClusterObjects(raw or walcluster(count=4, nodes=2))
        self.leading = True
        self.clock = 1000.0
        self.now = datetime(2026, 1, 2, 3, 4, 7, tzinfo=UTC)
        self.kube.put(self.objects.cluster)
        self.metrics = Metrics()
        self.operator()

    def operator(self) -> None:
        """A new one, which remembers nothing."""
        self.tools = Tools(
            kube=self.kube,
            monitor=SessionMonitor(),
            metrics=self.metrics,
            events=EventWriter(self.kube, "me"),
            applier=Applier(self.kube, lambda: self.clock),
            image="walplane:default",
            may_write=lambda: self.leading,
            clock=lambda: self.clock,
            wall=lambda: self.now,
        )
        self.reconciler = Reconciler(self.tools)

    async def look(self) -> float | None:
        """One reconcile, a second later."""
        self.clock += 1
        self.now += timedelta(seconds=1)
        try:
            return await self.reconciler.reconcile(KEY)
        finally:
            await self.tools.events.flush()

    async def settle(self) -> None:
        """Reconciles until nothing is written any more."""
        for _ in range(10):
            await self.look()
            if not self.kube.written():
                return
        raise AssertionError("it never comes to rest")

    def run_pods(self) -> None:
        """What the kubelets and the processes would do."""
        self.objects.coordinator()
        for ordinal in range(2):
            self.objects.node(ordinal)
        for raw in (*self.objects.pods.values(), *self.objects.leases.values()):
            self.kube.put(raw)
        for kind in ("statefulsets/demo-node", "deployments/demo-coord"):
            workload = self.kube.objects[f"/apis/apps/v1/namespaces/default/{kind}"]
            replicas = workload["spec"]["replicas"]
            counts = dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas"), replicas)
            workload["status"] = {**counts, "updateRevision": "new"}

    def confirm(self) -> None:
        """Every holder serves what it was granted."""
        for raw in self.leases():
            annotations = raw["metadata"]["annotations"]
            annotations[names.ANNOTATION_READY_TERM] = annotations[names.ANNOTATION_TERM]

    def leases(self) -> list[Object]:
        """Those of the PChannels, as they are stored."""
        return [raw for path, raw in sorted(self.kube.objects.items()) if "/demo-pch-" in path]

    def cluster(self) -> Object:
        """The WALCluster, as it is stored."""
        return self.kube.objects[object_path(self.objects.cluster)]

    def condition(self, kind: str) -> Object:
        """One of the WALCluster."""
        found = find(self.cluster()["status"]["conditions"], kind)
        if found is None:
            raise AssertionError(f"there is no condition {kind}")
        return found

    def events(self) -> list[tuple[str, str]]:
        """(reason, message) of each."""
        return [
            (raw["reason"], raw["message"])
            for path, raw in self.kube.objects.items()
            if "/events/" in path
        ]


async def up() -> World:
    """A cluster that serves."""
    world = World()
    await world.settle()
    world.run_pods()
    await world.look()
    world.confirm()
    await world.settle()
    return world


class Scene(ClusterObjects):
    """A cluster whose operator takes one step after another."""

    def __init__(self, count: int = 6, nodes: int = 3, *, coordinator: bool = True) -> None:
        """With a coordinator that leads, unless said otherwise; no node is there."""
        super().__init__(walcluster(count=count, nodes=nodes))
        self.dead: set[str] = set()
        self.memory = ClusterMemory()
        self.clock = 1000.0
        if coordinator:
            self.coordinator()

    def step(self, *cordoned: str) -> Assignment:
        """What the operator does now; `cordoned` are emptied."""
        cluster = WALCluster(self.cluster)

        def alive(session: Session) -> bool:
            return session.identity not in self.dead

        observed = read(cluster, Raw(**self.lists()), alive, _NOW, self.clock)
        self.views = look(observed, self.memory)
        return assign(observed, self.views, self.memory, frozenset(cordoned))

    def serve(self, count: int, *identities: str, term: int = 1) -> None:
        """PChannels 0 .. count - 1, served in turn, long ago."""
        for index in range(count):
            self.grant(index, identities[index % len(identities)], term)
        self.step()
        self.clock += 100

    def fail(self, index: int, ordinal: int, term: int, **report: object) -> None:
        """The node reported a failed open and gave the PChannel back."""
        self.node(ordinal, channels={index: {"term": term, "lastError": "disk", **report}})
        self.grant(index, "", term)


def targets(step: Assignment) -> dict[int, str]:
    """Who is granted what."""
    return {grant.index: grant.session for grant in step.grants}
