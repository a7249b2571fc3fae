"""More nodes, fewer nodes, more PChannels, other pods; no client sees an error."""

from __future__ import annotations

import pytest

from devservices.e2e.client_pod import ClientPod
from devservices.e2e.demo import Demo
from devservices.kind import Kubectl
from devservices.kind.kubectl import Object

pytestmark = pytest.mark.timeout(500)


def test_scale_down_drains_first_and_scale_up_spreads(
    ready: Demo, kubectl: Kubectl, client: ClientPod
) -> None:
    """`kubectl scale walcluster/demo --replicas=1`, then `--replicas=3`."""
    with client.load(ready.address, "scaled") as load:
        ready.scale(1)
        kubectl.until(
            "one node has everything",
            lambda: (
                ready.show()["status"]["nodes"]["summary"] == "1/1"
                and ready.spread() == {"demo-node-0": 16}
            ),
            180,
        )
        load.more(50)
        ready.scale(3)
        kubectl.until(
            "three nodes share evenly",
            lambda: sorted(ready.spread().values()) == [5, 5, 6] and ready.all_assigned(),
            180,
        )
        load.more(50)
    assert load.faults() == [], "no error with a deadline of 30 s"


def test_pchannels_may_grow(ready: Demo, kubectl: Kubectl, client: ClientPod) -> None:
    """`kubectl patch walcluster/demo` with a higher pchannels.count."""
    with client.load(ready.address, "grown") as load:
        ready.patch('{"spec": {"pchannels": {"count": 18}}}')
        kubectl.until(
            "18 PChannels are served",
            lambda: len(ready.channels()) == 18 and ready.all_assigned(),
            120,
        )
        ready.ready()
        load.more(20)
    assert load.faults() == []


def stays(pod: Object) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


def is_new(pod: Object) -> bool:
    return bool(pod["metadata"]["labels"].get("example.com/round") == "2")


def is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any((each["type"], each["status"]) == ("Ready", "True") for each in conditions)


def test_a_roll_out_replaces_drained_nodes(
    ready: Demo, kubectl: Kubectl, client: ClientPod
) -> None:
    """`kubectl patch walcluster/demo` with another pod label: one drained pod at a time."""

    away: list[int] = []  # how many were being replaced, at each look

    def rolled() -> bool:
        pods = kubectl.items("pods", "-l", "walplane.dev/component=node")
        away.append(3 - sum(not is_new(each) or is_ready(each) for each in pods if stays(each)))
        return away[-1] == 0 and all(map(is_new, pods))

    with client.load(ready.address, "rolled") as load:
        ready.patch('{"spec": {"podTemplate": {"labels": {"example.com/round": "2"}}}}')
        kubectl.until("every node has the new label", rolled, 240)
        ready.ready()
        load.more(20)
    assert load.faults() == []
    assert max(away) == 1, "one at a time"


def test_a_pinned_pchannel_moves_to_its_node(
    ready: Demo, kubectl: Kubectl, client: ClientPod
) -> None:
    """`kubectl patch pchannel demo-3` with `pinnedNode`; without it, the balance goes on."""
    here = ready.channels()["demo-3"].get("node")
    target = next(name for name in ready.spread() if name not in ("", here))
    with client.load(ready.address, "pinned") as load:
        pin = f'{{"spec": {{"pinnedNode": "{target}"}}}}'
        kubectl("patch", "pchannel", "demo-3", "--type=merge", "-p", pin)
        kubectl.until(
            "it is served there",
            lambda: (
                ready.channels()["demo-3"].get("node") == target
                and ready.channels()["demo-3"].get("state") == "Assigned"
            ),
        )
        load.more(20)
        kubectl("patch", "pchannel", "demo-3", "--type=merge", "-p", '{"spec":{"pinnedNode":null}}')
    assert load.faults() == []


def test_a_paused_cluster_is_left_alone(ready: Demo, kubectl: Kubectl) -> None:
    """`kubectl patch walcluster/demo` with `paused: true`: a scale waits until it is false."""
    ready.patch('{"spec": {"paused": true}}')
    kubectl.until("it says so", lambda: ready.show()["status"]["phase"] == "Paused", 20)
    assert ready.condition("Progressing")["reason"] == "Paused"
    try:
        ready.scale(2)
        generation = ready.show()["metadata"]["generation"]
        kubectl.until(
            "the new spec is seen",
            lambda: ready.show()["status"]["observedGeneration"] == generation,
            20,
        )
        assert kubectl.get("statefulset", "demo-node")["spec"]["replicas"] == 3
    finally:
        ready.scale(3)
        ready.patch('{"spec": {"paused": false}}')
    kubectl.until("it runs again", lambda: ready.show()["status"]["phase"] == "Running", 30)
