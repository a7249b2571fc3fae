"""One reconcile after another on an API server in memory: what is written, and what is not."""

from __future__ import annotations

import copy
import json

import pytest

from walplane.testkit.kube_objects import UID, walcluster
from walplane_operator.api import names
from walplane_operator.api.leases import Session
from walplane_operator.apply.kube import ApiError, object_path
from walplane_operator.testkit import World, up


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


async def test_a_workload_that_was_deleted_comes_back_with_the_image_of_the_other() -> None:
    world = await up()
    world.tools.image = "walplane:newer"
    path = "/apis/apps/v1/namespaces/default/"
    for kind in ("statefulsets/demo-node", "deployments/demo-coord"):
        del world.kube.objects[path + kind]
        await world.look()
        (container,) = world.kube.objects[path + kind]["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "walplane:default"


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
