"""Deleting topics by Pulsar's REST, by kmock: claims, failures, what is gone already."""

from __future__ import annotations

import kmock as kmocks
import pytest

from walplane.channel import CLAIM_PROPERTY
from walplane.testkit.kube_objects import UID, walcluster
from walplane_operator.api.spec import PulsarSpec, WALCluster
from walplane_operator.apply.topics import admin_root, delete_topics, describe
from walplane_operator.plan.deletion import topics

pytestmark = pytest.mark.kmock(cls=kmocks.RawHandler)
ROOT = "/admin/v2/persistent/public/walplane"


def cluster(kmock: kmocks.RawHandler) -> WALCluster:
    raw = walcluster(count=2)
    raw["spec"]["backend"]["pulsar"]["adminUrl"] = str(kmock.url).rstrip("/")
    return WALCluster(raw)


async def test_every_topic_is_deleted(kmock: kmocks.RawHandler) -> None:
    kmock["get"] << {CLAIM_PROPERTY: f"default/demo/{UID}"}
    kmock["delete"] << 204
    result = await delete_topics(cluster(kmock))
    assert sorted(result.done) == sorted(topics(cluster(kmock)))
    assert result.kept == []
    assert {request.url.path for request in kmock["delete"]} == {
        f"{ROOT}/{topic}" for topic in topics(cluster(kmock))
    }
    assert all(request.params == {"force": "true"} for request in kmock["delete"])


async def test_what_another_cluster_has_claimed_is_kept(kmock: kmocks.RawHandler) -> None:
    kmock[f"get {ROOT}/default-demo_0/properties"] << {CLAIM_PROPERTY: "default/demo/other"}
    kmock["get"] << {}
    kmock["delete"] << 204
    result = await delete_topics(cluster(kmock))
    assert [topic for topic, _ in result.kept] == ["default-demo_0"]
    assert "uid other" in describe(result.kept)
    assert f"{ROOT}/default-demo_0" not in {request.url.path for request in kmock["delete"]}


async def test_what_is_gone_counts_as_deleted(kmock: kmocks.RawHandler) -> None:
    kmock["get"] << 404
    kmock["delete"] << 404
    result = await delete_topics(cluster(kmock))
    assert (len(result.done), result.kept) == (5, [])


async def test_what_fails_is_named(kmock: kmocks.RawHandler) -> None:
    kmock["get"] << {}
    kmock["delete"] << 500 << b"bookies away"
    result = await delete_topics(cluster(kmock))
    assert len(result.kept) == 5
    assert "and 4 more topics" in describe(result.kept)
    assert "bookies away" in describe(result.kept)


async def test_a_pulsar_that_is_not_there_is_no_crash() -> None:
    raw = walcluster(count=1)
    raw["spec"]["backend"]["pulsar"]["adminUrl"] = "http://127.0.0.1:1"
    result = await delete_topics(WALCluster(raw))
    assert len(result.kept) == 3


@pytest.mark.parametrize(
    ("admin", "root"),
    [
        ("http://pulsar:8080", "http://pulsar.ns.svc:8080/admin/v2/persistent/public/walplane"),
        ("http://a.b:80/x/", "http://a.b:80/x/admin/v2/persistent/public/walplane"),
        ("https://pulsar.example", "https://pulsar.example/admin/v2/persistent/public/walplane"),
    ],
)
def test_a_bare_host_is_a_service_of_the_clusters_namespace(admin: str, root: str) -> None:
    """The operator runs in another one."""
    pulsar = PulsarSpec(service_url="pulsar://p:6650", admin_url=admin)
    assert admin_root(pulsar, "ns") == root
