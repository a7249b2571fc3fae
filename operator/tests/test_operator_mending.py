"""Leases that lost something, and Leases that somebody else writes."""

from __future__ import annotations

import copy

from walplane_operator.api import names
from walplane_operator.api.leases import PChannelLease
from walplane_operator.apply.kube import ApiError
from walplane_operator.testkit import up

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases/"
PCHANNELS = "/apis/walplane.dev/v1alpha1/namespaces/default/pchannels/"


async def test_a_lease_that_lost_its_label_is_brought_back_and_its_holder_left_alone() -> None:
    """No list shows it, so it seems never to have been made."""
    world = await up()
    lease = world.kube.objects[f"{LEASES}demo-pch-1"]
    before = copy.deepcopy(lease)
    del lease["metadata"]["labels"][names.LABEL_CLUSTER]
    await world.look()
    assert world.condition("Assigned")["status"] == "True", "it was served all the time"
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
