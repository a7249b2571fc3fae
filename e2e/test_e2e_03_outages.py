"""The operator or the API server is away; appends and reads go on."""

from __future__ import annotations

import time

import pytest

from devservices.e2e.client_pod import ClientPod
from devservices.e2e.demo import Demo
from devservices.kind import KindCluster, Kubectl, KubectlError
from devservices.kind.faults import api_server_away, settled_after_outage, way_into

pytestmark = pytest.mark.timeout(500)

OPERATOR_AWAY_S = 60
API_SERVER_AWAY_S = 30
_PAUSE_S = 15.0
"""The longest pause that any fault may cause: a lease and five seconds."""


def operators(kubectl: Kubectl) -> list[str]:
    """Pods of the operator; the pod of `helm test` is none of them."""
    return [
        each["metadata"]["name"]
        for each in kubectl.items("pods")
        if each["metadata"].get("ownerReferences")
    ]


def leader(kubectl: Kubectl) -> str:
    """Which operator works."""
    found: str = kubectl.get("lease", "walplane-operator")["spec"]["holderIdentity"]
    return found


def test_a_minute_without_the_operator(ready: Demo, kubectl: Kubectl, client: ClientPod) -> None:
    """`kubectl -n walplane scale deployment/walplane --replicas=0`, and back after a minute."""
    operator = kubectl.at("walplane")
    with client.load(ready.address, "no-operator") as load:
        before = ready.quiet()
        load.mark()
        led = leader(operator)
        operator("scale", "deployment/walplane", "--replicas=0")
        kubectl.until("no operator runs", lambda: not operators(operator))
        away = time.monotonic()
        load.more(100)
        read = client("walplane", "--address", ready.address, "tail", load.name, "-o", "json")
        assert read.count("INSERT") >= 800
        time.sleep(max(0.0, OPERATOR_AWAY_S - (time.monotonic() - away)))
        load.more(20)
        operator("scale", "deployment/walplane", "--replicas=2")
        kubectl.until("another operator leads", lambda: leader(operator) not in ("", led))
        assert ready.quiet() == before
    assert load.faults(_PAUSE_S) == []


def test_half_a_minute_without_the_api_server(
    ready: Demo, kind: KindCluster, kubectl: Kubectl, client: ClientPod, image: str
) -> None:
    """The API server is killed for 30 s; no PChannel changes its term."""
    with client.load(ready.address, "no-api-server") as load:
        before = ready.quiet()
        load.mark()
        load.more(100)
        inside = way_into(kubectl, "client")
        with api_server_away(kind):
            away = time.monotonic()
            read = inside("walplane", "--address", ready.address, "tail", load.name, "-o", "json")
            assert read.count("INSERT") >= 800
            time.sleep(max(0.0, API_SERVER_AWAY_S - (time.monotonic() - away)))
            with pytest.raises(KubectlError):
                kubectl("get", "--raw", "/livez", seconds=5)
        settled_after_outage(kubectl, image)
        ready.ready()
        assert ready.quiet() == before
    assert load.faults(_PAUSE_S) == []
