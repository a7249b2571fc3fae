"""What is wrong is refused with the way out, and the running cluster is untouched."""

from __future__ import annotations

import pytest

from devservices.e2e.client_pod import ClientPod
from devservices.e2e.demo import Demo
from devservices.kind import Kubectl, KubectlError
from devservices.kind.kubectl import Object

pytestmark = pytest.mark.timeout(400)

_NOTICED_S = 5.0
"""Longest pause of appends that a user would not call an outage."""

PULSAR = {"serviceUrl": "pulsar://pulsar:6650", "adminUrl": "http://pulsar:8080"}


def walcluster(name: str, **spec: object) -> Object:
    return {
        "apiVersion": "walplane.dev/v1alpha1",
        "kind": "WALCluster",
        "metadata": {"name": name},
        "spec": {"backend": {"pulsar": PULSAR}, **spec},
    }


WRONG = [
    (
        walcluster("wrong", backend={"pulsar": PULSAR, "embedded": {}}),
        "name exactly one backend, spec.backend.pulsar or spec.backend.embedded",
    ),
    (walcluster("wrong", nodes={"replicas": 0}), "nodes.replicas must be at least 1"),
    (
        walcluster("wrong", backend={"pulsar": {**PULSAR, "serviceUrl": "http://pulsar"}}),
        "serviceUrl must look like pulsar://host:6650",
    ),
    (walcluster("wrong", nodes={"repplicas": 3}), 'unknown field "spec.nodes.repplicas"'),
    (
        walcluster("wrong", backend={"embedded": {}}, nodes={"replicas": 2}),
        "nodes.replicas must be 1",
    ),
    (
        walcluster("wrong", segmentStore={"url": "file:///data/segments"}),
        "segmentStore.url may be file:// only with backend.embedded",
    ),
    (
        walcluster("wrong", backend={"embedded": {}}, segmentStore={"url": "file:///tmp/segments"}),
        "below its volume, like file:///data/segments",
    ),
]

STORE_CHANGES = [
    ('{"spec": {"segmentStore": null}}', "segmentStore cannot be taken away"),
    ('{"spec": {"segmentStore": {"url": "s3://b/other"}}}', "segmentStore.url cannot change"),
]


@pytest.mark.parametrize(("manifest", "sentence"), WRONG, ids=[each[1][:20] for each in WRONG])
def test_wrong_resources_are_refused(
    ready: Demo, kubectl: Kubectl, manifest: Object, sentence: str
) -> None:
    """`kubectl apply -f wrong.yaml`."""
    with pytest.raises(KubectlError) as refused:
        kubectl.apply(manifest)
    assert sentence in str(refused.value)


def test_a_cluster_cannot_be_scaled_to_nothing(ready: Demo) -> None:
    """`kubectl scale walcluster/demo --replicas=0`."""
    with pytest.raises(KubectlError) as refused:
        ready.scale(0)
    assert "nodes.replicas must be at least 1" in str(refused.value)


def test_pchannels_cannot_shrink(ready: Demo) -> None:
    """`kubectl patch walcluster/demo` with a lower pchannels.count."""
    terms = ready.terms()
    with pytest.raises(KubectlError) as refused:
        ready.patch('{"spec": {"pchannels": {"count": 4}}}')
    assert "pchannels.count may only grow" in str(refused.value)
    assert ready.terms() == terms


def test_a_segment_store_stays(ready: Demo, kubectl: Kubectl) -> None:
    """`kubectl patch walcluster` with another segmentStore.url, or without segmentStore."""
    stored = Demo(kubectl, "stored")  # paused: no pod of it ever starts
    stored.apply(walcluster("stored", paused=True, segmentStore={"url": "s3://b/stored"}))
    try:
        for change, sentence in STORE_CHANGES:
            with pytest.raises(KubectlError) as refused:
                stored.patch(change)
            assert sentence in str(refused.value)
        assert stored.show()["spec"]["segmentStore"]["url"] == "s3://b/stored"
    finally:
        kubectl("delete", "walcluster", "stored", "--timeout=60s", seconds=70)


def test_a_backend_that_is_not_there_is_a_condition(ready: Demo, kubectl: Kubectl) -> None:
    """`kubectl apply` of a WALCluster whose Pulsar does not exist."""
    nowhere = {"serviceUrl": "pulsar://nowhere:6650", "adminUrl": "http://nowhere:8080"}
    lost = Demo(kubectl, "lost")
    lost.apply(walcluster("lost", backend={"pulsar": nowhere}, pchannels={"count": 2}))
    try:
        kubectl.until(
            "the condition says so",
            lambda: lost.condition("BackendReachable").get("status") == "False",
        )
        condition = lost.condition("BackendReachable")
        print(condition["reason"], condition["message"])
        assert condition["reason"] == "Unreachable"
        assert "nowhere" in condition["message"]
    finally:
        kubectl("delete", "walcluster", "lost", "--timeout=60s", seconds=70)


def test_a_second_cluster_on_the_same_prefix_is_refused(
    ready: Demo, kubectl: Kubectl, client: ClientPod
) -> None:
    """`kubectl apply` of a second WALCluster with the first one's `pchannels.prefix`."""
    rival = Demo(kubectl, "rival")
    with client.load(ready.address, "claimed") as load:
        before = ready.quiet()
        load.mark()
        count = len(before)
        rival.apply(walcluster("rival", pchannels={"count": count, "prefix": "default-demo"}))
        try:
            kubectl.until(
                "the claim is refused",
                lambda: rival.condition("BackendReachable").get("reason") == "ClaimedByOther",
            )
            message = rival.condition("BackendReachable")["message"]
            print(message)
            assert ready.uid() in message
            load.more(50)
        finally:
            kubectl("delete", "walcluster", "rival", "--timeout=60s", seconds=70)
    assert load.faults(_NOTICED_S) == [], "the rightful owner notices nothing"
    assert ready.terms() == before


def test_a_foreign_pchannel_is_refused_with_an_event(ready: Demo, kubectl: Kubectl) -> None:
    """`kubectl apply` of a hand-made PChannel that no WALCluster asks for."""
    spec = {"clusterRef": "demo", "index": 900, "channel": "default-demo_900"}
    foreign: Object = {
        "apiVersion": "walplane.dev/v1alpha1",
        "kind": "PChannel",
        "metadata": {"name": "stray"},
        "spec": spec,
    }
    kubectl.apply(foreign)
    try:
        kubectl.until(
            "an event says so",
            lambda: bool(kubectl.items("events", "--field-selector", "involvedObject.name=stray")),
            40,
        )
        assert len(ready.terms()) == len(ready.channels()) - 1
    finally:
        kubectl("delete", "pchannel", "stray")
