"""One reconcile after another on an API server in memory: what is written, and what is not."""

from __future__ import annotations

import asyncio
import copy
import json
from datetime import UTC, datetime, timedelta

import pytest

from walplane.testkit.kube_objects import UID, ClusterObjects, Object, walcluster
from walplane_operator.api import names
from walplane_operator.api.conditions import find
from walplane_operator.api.leases import PChannelLease, Session
from walplane_operator.apply.events import EventWriter
from walplane_operator.apply.kube import ApiError, object_path
from walplane_operator.apply.objects import Applier
from walplane_operator.apply.topics import Deleted
from walplane_operator.handlers import ending as ending_module
from walplane_operator.handlers.metrics import Metrics
from walplane_operator.handlers.reconcile import Reconciler, Tools
from walplane_operator.plan.sessions import SessionMonitor
from walplane_operator.testkit import MemoryKube

KEY = ("default", "demo")


class World:
    """A cluster, its API server and its operator."""

    def __init__(self, raw: Object | None = None) -> None:
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
        pytest.fail("it never comes to rest")

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
        return [raw for path, raw in sorted(self.kube.objects.items()) if "/demo-pch-" in path]

    def cluster(self) -> Object:
        return self.kube.objects[object_path(self.objects.cluster)]

    def condition(self, kind: str) -> Object:
        found = find(self.cluster()["status"]["conditions"], kind)
        assert found is not None
        return found

    def events(self) -> list[tuple[str, str]]:
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


async def test_from_nothing_to_service() -> None:
    world = World()
    await world.settle()
    assert world.cluster()["status"]["phase"] == "Pending"
    assert world.leases() == [], "nobody is there to hold anything"
    world.run_pods()
    await world.look()
    holders = [names.pod_of(raw["spec"]["holderIdentity"]) for raw in world.leases()]
    assert sorted(holders) == ["demo-node-0", "demo-node-0", "demo-node-1", "demo-node-1"]
    world.confirm()
    await world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert world.cluster()["status"]["pchannels"] == {"total": 4, "assigned": 4}
    pchannel = world.kube.objects["/apis/walplane.dev/v1alpha1/namespaces/default/pchannels/demo-3"]
    assert pchannel["status"]["state"] == "Assigned"


async def test_a_settled_cluster_is_not_written_to() -> None:
    world = await up()
    for _ in range(5):
        await world.look()
        assert world.kube.written() == []


async def test_an_operator_that_starts_anew_moves_nothing() -> None:
    world = await up()
    before = copy.deepcopy(world.leases())
    world.operator()
    await world.look()
    await world.settle()
    assert world.leases() == before
    statuses = [write for write in world.kube.written() if write.startswith("status")]
    assert statuses == []


async def test_nothing_is_written_without_the_lease() -> None:
    world = World()
    world.leading = False
    assert await world.look() == 1.0
    assert world.kube.writes == []


async def test_leases_are_written_before_anything_else() -> None:
    """PChannels wait for them."""
    world = await up()
    del world.kube.objects["/apis/coordination.k8s.io/v1/namespaces/default/leases/demo-node-0"]
    world.clock += 100
    await world.look()
    assert "/leases/demo-pch-" in world.kube.written()[0]


async def test_a_lease_that_somebody_else_wrote_is_left_as_it_is_and_looked_at_again() -> None:
    world = await up()
    del world.kube.objects["/apis/coordination.k8s.io/v1/namespaces/default/leases/demo-node-0"]
    path = next(
        path
        for path, raw in world.kube.objects.items()
        if "/demo-pch-" in path and raw["spec"]["holderIdentity"].startswith("demo-node-0")
    )
    world.kube.refusals[path] = ApiError(path, 409, "modified")
    before = copy.deepcopy(world.kube.objects[path])
    assert await world.look() == 0.0
    assert world.kube.objects[path] == before
    world.kube.refusals.clear()
    await world.look()
    assert world.kube.objects[path]["metadata"]["annotations"][names.ANNOTATION_TERM] == "2"


LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases/"
PCHANNELS = "/apis/walplane.dev/v1alpha1/namespaces/default/pchannels/"


async def test_a_lease_that_lost_its_label_is_brought_back_and_its_holder_left_alone() -> None:
    """No list shows it, so it seems never to have been made."""
    world = await up()
    lease = world.kube.objects[f"{LEASES}demo-pch-1"]
    before = copy.deepcopy(lease)
    del lease["metadata"]["labels"][names.LABEL_CLUSTER]
    await world.look()
    await world.settle()
    after = world.kube.objects[f"{LEASES}demo-pch-1"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert world.condition("Assigned")["status"] == "True"


async def test_a_lease_that_lost_its_label_keeps_its_term_over_the_death_of_its_holder() -> None:
    world = await up()
    lease = world.kube.objects[f"{LEASES}demo-pch-1"]
    lease["metadata"]["annotations"][names.ANNOTATION_TERM] = "7"
    del lease["metadata"]["labels"][names.LABEL_CLUSTER]
    del world.kube.objects[LEASES + names.pod_of(lease["spec"]["holderIdentity"])]
    await world.look()
    await world.look()
    after = PChannelLease.read(world.kube.objects[f"{LEASES}demo-pch-1"])
    assert after.term == 8
    assert after.holder != lease["spec"]["holderIdentity"]


async def test_a_lease_that_lost_channel_or_owner_gets_them_back() -> None:
    world = await up()
    before = [copy.deepcopy(raw["metadata"]) for raw in world.leases()]
    first, second, *_ = world.leases()
    del first["metadata"]["annotations"][names.ANNOTATION_CHANNEL]
    second["metadata"]["ownerReferences"][0]["uid"] = "uid-of-the-cluster-before"
    await world.look()
    for raw, metadata in zip(world.leases(), before, strict=True):
        del raw["metadata"]["resourceVersion"], metadata["resourceVersion"]
        assert raw["metadata"] == metadata
    await world.settle()


async def test_a_lease_that_others_write_each_time_is_written_less_and_less_and_told() -> None:
    world = await up()
    del world.kube.objects[f"{LEASES}demo-node-0"]
    path = next(
        path
        for path, raw in world.kube.objects.items()
        if "/demo-pch-" in path and raw["spec"]["holderIdentity"].startswith("demo-node-0")
    )
    world.kube.refusals[path] = ApiError(path, 409, "modified")
    waits = []
    for _ in range(5):
        waits.append(wait := await world.look() or 0.0)
        world.clock += wait
    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0]
    index = path.rpartition("-")[2]
    status = world.kube.objects[f"{PCHANNELS}demo-{index}"]["status"]
    assert status["reason"] == "LeaseConflict"
    assert world.condition("Degraded")["reason"] == "ChannelsUnavailable"
    world.kube.refusals.clear()
    world.clock += 8
    await world.look()
    assert PChannelLease.read(world.kube.objects[path]).term == 2
    await world.look()
    assert "reason" not in world.kube.objects[f"{PCHANNELS}demo-{index}"]["status"]


async def test_what_was_deleted_comes_back() -> None:
    world = await up()
    for kind in ("statefulsets/demo-node", "deployments/demo-coord"):
        del world.kube.objects[f"/apis/apps/v1/namespaces/default/{kind}"]
    service = "/api/v1/namespaces/default/services/demo-coord"
    pchannel = "/apis/walplane.dev/v1alpha1/namespaces/default/pchannels/demo-1"
    del world.kube.objects[service]
    del world.kube.objects[pchannel]
    await world.look()
    assert "/apis/apps/v1/namespaces/default/statefulsets/demo-node" in world.kube.objects
    assert "/apis/apps/v1/namespaces/default/deployments/demo-coord" in world.kube.objects
    assert pchannel in world.kube.objects
    world.clock += 31
    await world.look()
    assert service in world.kube.objects, "now and then everything is applied again"


async def test_what_runs_keeps_its_image_when_the_operator_is_upgraded() -> None:
    world = await up()
    node_set = world.kube.objects["/apis/apps/v1/namespaces/default/statefulsets/demo-node"]
    world.tools.image = "walplane:newer"
    world.clock += 31
    await world.look()
    (container,) = node_set["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "walplane:default"
    world.cluster()["spec"]["image"] = "walplane:mine"
    await world.look()
    node_set = world.kube.objects["/apis/apps/v1/namespaces/default/statefulsets/demo-node"]
    (container,) = node_set["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "walplane:mine"


async def test_growth_makes_pchannels_and_their_leases() -> None:
    world = await up()
    world.cluster()["spec"]["pchannels"]["count"] = 6
    await world.look()
    assert len(world.leases()) == 6


async def test_a_paused_cluster_is_only_described() -> None:
    world = await up()
    world.cluster()["spec"]["paused"] = True
    del world.kube.objects["/apis/coordination.k8s.io/v1/namespaces/default/leases/demo-node-0"]
    del world.kube.objects["/api/v1/namespaces/default/services/demo-coord"]
    world.clock += 100
    await world.look()
    assert all(write.startswith("status") for write in world.kube.written())
    assert world.cluster()["status"]["phase"] == "Paused"
    world.cluster()["spec"]["paused"] = False
    await world.look()
    assert any("/demo-pch-" in write for write in world.kube.written())


async def test_a_refused_manifest_is_a_condition_and_assignment_goes_on() -> None:
    world = await up()
    path = "/apis/apps/v1/namespaces/default/statefulsets/demo-node"
    world.kube.refusals[path] = ApiError(path, 422, "cpu: quantity is wrong")
    world.cluster()["spec"]["nodes"]["resources"] = {"limits": {"cpu": "lots"}}
    del world.kube.objects["/apis/coordination.k8s.io/v1/namespaces/default/leases/demo-node-0"]
    await world.look()
    assert world.condition("Degraded")["reason"] == "Refused"
    assert "quantity is wrong" in world.condition("Degraded")["message"]
    assert any("/demo-pch-" in write for write in world.kube.written())


async def test_a_reconcile_that_is_forbidden_is_told_and_raised() -> None:
    world = await up()
    for ordinal in range(4):
        path = f"/apis/coordination.k8s.io/v1/namespaces/default/leases/demo-pch-{ordinal}"
        world.kube.refusals[path] = ApiError(path, 403, "leases is forbidden")
    del world.kube.objects["/apis/coordination.k8s.io/v1/namespaces/default/leases/demo-node-0"]
    with pytest.raises(ExceptionGroup):
        await world.look()
    assert world.condition("Degraded")["reason"] == "ReconcileFailed"
    assert "ReconcileFailed" in dict(world.events())
    world.kube.refusals.clear()
    await world.look()
    assert world.condition("Degraded")["status"] == "False"


async def test_foreign_pchannels_are_refused_and_left_alone() -> None:
    world = await up()
    foreign = copy.deepcopy(world.objects.pchannels[1])
    foreign["metadata"] |= {"name": "mine", "uid": "m", "ownerReferences": []}
    lonely = copy.deepcopy(foreign)
    lonely["metadata"] |= {"name": "lonely", "uid": "l"}
    lonely["spec"]["clusterRef"] = "nobody"
    world.kube.put(foreign)
    world.kube.put(lonely)
    await world.look()
    await world.reconciler.reconcile(("default", "nobody"))
    await world.tools.events.flush()
    refused = [message for reason, message in world.events() if reason == "Refused"]
    assert refused == [
        "PChannel 1 of WALCluster demo is the object demo-1: delete this",
        "there is no WALCluster nobody in namespace default: delete this object",
    ]
    assert "status" not in foreign


async def test_a_hand_made_pchannel_of_the_right_form_is_taken_over() -> None:
    world = World()
    made = copy.deepcopy(world.objects.pchannels[2])
    made["metadata"] |= {"ownerReferences": [], "labels": {}}
    made["spec"]["frozen"] = True
    world.kube.put(made)
    await world.settle()
    taken = world.kube.objects[object_path(made)]
    assert taken["metadata"]["ownerReferences"][0]["uid"] == UID
    assert taken["spec"]["frozen"] is True


async def test_nodes_that_come_and_go_are_told() -> None:
    world = await up()
    assert [reason for reason, _ in world.events()].count("NodeJoined") == 2
    silent = Session.read(
        world.kube.objects["/apis/coordination.k8s.io/v1/namespaces/default/leases/demo-node-1"]
    )
    monitor = world.tools.monitor
    others = [(names.pod_of(raw["spec"]["holderIdentity"]), raw) for raw in world.leases()]
    assert others
    known = [Session.read(raw) for raw in world.objects.leases.values()]
    monitor.listed([("default", "demo", each) for each in known], 0.0)
    for now in range(1, 12):
        monitor.proved(now)
        for each in known:
            if each.pod != silent.pod:
                moved = copy.copy(each)
                object.__setattr__(moved, "version", f"{each.version}.{now}")
                monitor.changed("default", "demo", moved, now)
        monitor.expire()
    await world.look()
    expired = [message for reason, message in world.events() if reason == "NodeExpired"]
    assert len(expired) == 1
    assert "demo-node-1" in expired[0]


def delete(world: World, policy: str) -> None:
    world.cluster()["spec"]["deletionPolicy"] = policy
    world.cluster()["metadata"]["deletionTimestamp"] = world.now.isoformat()


async def test_a_retained_cluster_has_no_finalizer_and_is_let_go() -> None:
    world = await up()
    assert not world.cluster()["metadata"].get("finalizers")
    delete(world, "Retain")
    assert await world.look() is None
    assert world.kube.written() == []


async def test_deletion_stops_pods_deletes_topics_and_lets_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await up()
    world.cluster()["spec"]["deletionPolicy"] = "Delete"
    await world.settle()
    assert world.cluster()["metadata"]["finalizers"] == [names.FINALIZER]
    results = [Deleted([], [("default-demo_0", "Pulsar answered 500")]), Deleted(["all"], [])]

    async def delete_topics(_cluster: object) -> Deleted:
        return results.pop(0)

    monkeypatch.setattr(ending_module, "delete_topics", delete_topics)
    delete(world, "Delete")
    assert await world.look() is not None
    assert not any("statefulsets" in path for path in world.kube.objects)
    assert len(results) == 2, "a pod may still write"
    held = [one for one in map(PChannelLease.read, world.leases()) if one.holder]
    assert held
    assert all(lease.release == lease.term for lease in held), "nobody else takes them over"
    for pod in world.objects.pods.values():
        del world.kube.objects[object_path(pod)]
    assert await world.look() is not None, "what failed is tried again"
    assert "DeletingTopics" in dict(world.events())
    assert world.cluster()["metadata"]["finalizers"] == [names.FINALIZER]
    await world.look()
    assert world.cluster()["metadata"]["finalizers"] == []


async def test_a_backend_that_is_gone_holds_a_namespace_for_two_minutes_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await up()
    world.cluster()["spec"]["deletionPolicy"] = "Delete"
    await world.settle()

    async def delete_topics(_cluster: object) -> Deleted:
        await asyncio.sleep(60)
        raise AssertionError("cut off before")

    monkeypatch.setattr(ending_module, "delete_topics", delete_topics)
    monkeypatch.setattr(ending_module, "_TOPICS_TIMEOUT_S", 0.05)
    delete(world, "Delete")
    for path in [p for p in world.kube.objects if "/pods/" in p or "/apis/apps/" in p]:
        del world.kube.objects[path]
    assert await world.look() is not None
    assert world.cluster()["metadata"]["finalizers"] == [names.FINALIZER]
    world.now += timedelta(seconds=120)
    await world.look()
    assert world.cluster()["metadata"]["finalizers"] == []
    assert "DataKept" in dict(world.events())


async def test_an_outdated_pod_is_deleted_once_it_holds_nothing() -> None:
    world = await up()
    node_set = world.kube.objects["/apis/apps/v1/namespaces/default/statefulsets/demo-node"]
    node_set["status"]["updateRevision"] = "newer"
    world.clock += 100
    pod = "/api/v1/namespaces/default/pods/demo-node-1"
    await world.look()
    assert pod in world.kube.objects
    for raw in world.leases():
        annotations = raw["metadata"]["annotations"]
        if annotations.pop(names.ANNOTATION_RELEASE, None):
            raw["spec"]["holderIdentity"] = ""
            del annotations[names.ANNOTATION_READY_TERM]
    await world.look()
    assert pod in world.kube.objects, "granted, not yet confirmed"
    world.confirm()
    await world.look()
    assert pod not in world.kube.objects
    assert "PodReplaced" in dict(world.events())


async def test_numbers_are_copied_within_their_budget() -> None:
    world = World(walcluster(count=20, nodes=1))
    await world.settle()
    world.run_pods()
    await world.look()
    world.confirm()
    await world.settle()

    def report(vchannels: int) -> None:
        channels = {
            world.objects.channel(i): {"term": 1, "vchannels": vchannels, "timeTick": 1}
            for i in range(20)
        }
        for ordinal in range(2):
            lease = world.objects.leases[f"demo-node-{ordinal}"]
            lease["metadata"]["annotations"][names.ANNOTATION_REPORT] = json.dumps(
                {"channels": channels}
            )
            world.kube.put(lease)

    report(3)
    wait = await world.look()
    assert len(world.kube.written()) == 5
    assert wait is not None
    assert 0 < wait <= 0.2
    for _ in range(3):
        await world.look()
    assert len(world.kube.written()) == 15
    await world.look()
    assert world.kube.written() == []
