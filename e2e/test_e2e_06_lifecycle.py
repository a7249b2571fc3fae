"""Clusters end and come back; nothing hangs; topics stay, or go when asked to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from devservices.e2e.client_pod import ClientPod
from devservices.e2e.demo import Demo
from devservices.kind import Kubectl
from devservices.kind.kubectl import Object

pytestmark = pytest.mark.timeout(400)

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
PULSAR = "pulsar.default.svc.cluster.local"
TOPICS = f"http://{PULSAR}:8080/admin/v2/persistent/public/walplane"


STORED_ROWS = """
import json, pathlib, pyarrow.parquet
rows = []
for whole in pathlib.Path("/data/segments").rglob("segment.json"):
    for part in sorted(whole.parent.glob("*.parquet")):
        rows += pyarrow.parquet.ParquetFile(part).read().column("payload").to_pylist()
print(json.dumps([row.decode() for row in rows]))
"""


def topics(client: ClientPod, prefix: str) -> list[str]:
    """Topics of a cluster, from Pulsar itself."""
    script = f"import httpx; print(httpx.get('{TOPICS}', timeout=20).text)"
    found: list[str] = json.loads(client("python3", "-c", script))
    return [each for each in found if f"/{prefix}_" in each]


def rows(client: ClientPod, address: str, collection: str) -> int:
    told = client("walplane", "--address", address, "tail", collection, "-o", "json")
    return sum(json.loads(line)["type"] == "INSERT" for line in told.splitlines())


def append(client: ClientPod, address: str, collection: str, count: int) -> None:
    lines = f"seq 1 {count} | walplane --address {address} append --collection {collection}"
    client("sh", "-c", lines)


def pulsar_cluster(name: str, namespace: str, **spec: object) -> Object:
    backend = {"serviceUrl": f"pulsar://{PULSAR}:6650", "adminUrl": f"http://{PULSAR}:8080"}
    return {
        "apiVersion": "walplane.dev/v1alpha1",
        "kind": "WALCluster",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"backend": {"pulsar": backend}, "pchannels": {"count": 2}, **spec},
    }


def test_deleted_and_made_again_over_the_kept_topics(
    ready: Demo, kubectl: Kubectl, client: ClientPod, token: str
) -> None:
    """`kubectl delete walcluster demo`, apply again, and `walplane.dev/adopt: <old uid>`."""
    walplane, kept = ("walplane", "--address", ready.address), f"kept-{token}"
    client(*walplane, "collection", "create", kept, "--shards", "4")
    append(client, ready.address, kept, 100)
    old, terms, count = ready.uid(), ready.terms(), len(ready.channels())
    kubectl("delete", "walcluster", "demo", "--timeout=90s", seconds=100)
    gone = ("get", "pods,pchannels,leases", "-l", "walplane.dev/cluster=demo", "-o", "name")
    kubectl.until("everything of it is gone", lambda: kubectl(*gone) == "", 90)
    assert len(topics(client, "default-demo")) >= 2 * count

    ready.apply(EXAMPLES / "walcluster.yaml")
    ready.patch(f'{{"spec": {{"pchannels": {{"count": {count}}}}}}}')
    kubectl.until(
        "the old claim is in the way",
        lambda: ready.condition("BackendReachable").get("reason") == "ClaimedByOther",
    )
    assert old in ready.condition("BackendReachable")["message"]
    kubectl("annotate", "walcluster/demo", f"walplane.dev/adopt={old}")
    ready.ready(120)
    after = ready.terms()
    assert all(after[name] > terms[name] for name in terms), "terms go on"
    assert rows(client, ready.address, kept) == 100
    append(client, ready.address, kept, 50)
    assert rows(client, ready.address, kept) == 150


def test_deletion_policy_delete_takes_the_topics_along(
    ready: Demo, kubectl: Kubectl, client: ClientPod
) -> None:
    """`deletionPolicy: Delete` and `kubectl delete walcluster`."""
    cluster = Demo(kubectl, "brief")
    cluster.apply(pulsar_cluster("brief", "default", deletionPolicy="Delete"))
    cluster.ready()
    assert topics(client, "default-brief")
    kubectl("delete", "walcluster", "brief", "--timeout=120s", seconds=130)
    assert topics(client, "default-brief") == []
    assert topics(client, "default-demo"), "another cluster's topics stay"


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_a_namespace_can_be_deleted(
    policy: str, ready: Demo, kubectl: Kubectl, client: ClientPod, token: str
) -> None:
    """`kubectl delete namespace other`: nothing hangs, topics stay or go as the policy says."""
    namespace = f"other-{policy.lower()}"
    kubectl("create", "namespace", namespace)
    other = Demo(kubectl.at(namespace), "small")
    other.apply(pulsar_cluster("small", namespace, deletionPolicy=policy))
    other.ready()
    client("walplane", "--address", other.address, "collection", "create", token)
    assert topics(client, f"{namespace}-small")
    kubectl("delete", "namespace", namespace, "--timeout=120s", seconds=130)
    assert bool(topics(client, f"{namespace}-small")) == (policy == "Retain")


def test_the_embedded_example(ready: Demo, kubectl: Kubectl, client: ClientPod, token: str) -> None:
    """`kubectl apply -f docs/examples/walcluster-embedded.yaml`; its pod may be deleted."""
    solo = Demo(kubectl, "solo")
    solo.apply(EXAMPLES / "walcluster-embedded.yaml")
    solo.ready()
    client("walplane", "--address", solo.address, "collection", "create", token)
    append(client, solo.address, token, 10)
    uid = kubectl.get("pod", "solo-node-0")["metadata"]["uid"]
    kubectl("delete", "pod", "solo-node-0", "--timeout=60s", seconds=70)
    kubectl.until(
        "a new pod",
        lambda: kubectl.get("pod", "solo-node-0")["metadata"]["uid"] != uid,
    )
    solo.ready()
    kubectl.until("its rows are there", lambda: rows(client, solo.address, token) == 10)
    kubectl("delete", "walcluster", "solo", "--timeout=60s", seconds=70)


def test_segments_on_the_volume_of_the_embedded_example(
    ready: Demo, kubectl: Kubectl, client: ClientPod, token: str
) -> None:
    """The embedded example with `segmentStore.url: file:///data/segments`; `collection flush`."""
    manifest: Object = yaml.safe_load((EXAMPLES / "walcluster-embedded.yaml").read_text())
    manifest["metadata"]["name"] = "shelf"
    manifest["spec"]["segmentStore"] = {"url": "file:///data/segments"}
    shelf, stored = Demo(kubectl, "shelf"), f"stored-{token}"
    shelf.apply(manifest)
    try:
        shelf.ready()
        walplane = ("walplane", "--address", shelf.address)
        client(*walplane, "collection", "create", stored)
        append(client, shelf.address, stored, 100)
        client(*walplane, "collection", "flush", stored)
        read = ("exec", "shelf-node-0", "--", "python3", "-c", STORED_ROWS)
        kubectl.until("the segment is stored", lambda: kubectl(*read).strip() != "[]")
        assert json.loads(kubectl(*read)) == [str(number) for number in range(1, 101)]
    finally:
        kubectl("delete", "walcluster", "shelf", "--timeout=60s", seconds=70)
        # Else a kept cluster has the rows of this run in the next one.
        volume = ("pvc", "data-shelf-node-0", "--ignore-not-found")
        kubectl("delete", *volume, "--timeout=60s", seconds=70)
