"""The end of a WALCluster: what the finalizer holds it for, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from walplane_operator.api import names
from walplane_operator.api.leases import PChannelLease
from walplane_operator.apply.kube import object_path
from walplane_operator.apply.topics import Deleted
from walplane_operator.handlers import ending as ending_module
from walplane_operator.testkit import World, up


def delete(world: World, policy: str) -> None:
    world.cluster()["spec"]["deletionPolicy"] = policy
    world.cluster()["metadata"]["deletionTimestamp"] = world.now.isoformat()


async def looks_until(world: World, reached: Callable[[], bool]) -> None:
    for _ in range(20):
        assert await world.look() is not None or reached()
        if reached():
            return
    raise AssertionError("it never came to that")


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
    await looks_until(world, lambda: "DeletingTopics" in dict(world.events()))
    assert world.cluster()["metadata"]["finalizers"] == [names.FINALIZER]
    await looks_until(world, lambda: not world.cluster()["metadata"]["finalizers"])
    assert results == [], "what failed was tried again"


async def test_a_backend_that_hangs_holds_up_no_reconcile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A few such clusters would take all workers, and with them the takeovers of all others."""
    world = await up()
    world.cluster()["spec"]["deletionPolicy"] = "Delete"
    await world.settle()
    begun, ended = asyncio.Event(), asyncio.Event()

    async def delete_topics(_cluster: object) -> Deleted:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError("it hangs")

    monkeypatch.setattr(ending_module, "delete_topics", delete_topics)
    delete(world, "Delete")
    for path in [p for p in world.kube.objects if "/pods/" in p or "/apis/apps/" in p]:
        del world.kube.objects[path]
    async with asyncio.timeout(10):
        await world.look()
        await begun.wait()
        await world.look()
        assert not ended.is_set()
        await world.reconciler.close()
    assert ended.is_set(), "it goes on no longer than the operator leads"


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
    world.clock += 120
    await world.look()
    assert world.cluster()["metadata"]["finalizers"] == []
    assert "DataKept" in dict(world.events())


@pytest.mark.parametrize("hours", [-1, 1])
async def test_the_api_servers_clock_may_differ(hours: int) -> None:
    """An operator behind it must not hold a namespace, one ahead of it not keep the topics."""
    world = await up()
    world.cluster()["spec"]["deletionPolicy"] = "Delete"
    await world.settle()
    delete(world, "Delete")
    deleted = world.now + timedelta(hours=hours)
    world.cluster()["metadata"]["deletionTimestamp"] = deleted.isoformat()
    for _ in range(119):
        await world.look()
        assert world.cluster()["metadata"]["finalizers"], "its pods have not ended"
    await world.look()
    await world.look()
    assert not world.cluster()["metadata"]["finalizers"]
