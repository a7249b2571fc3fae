"""StreamingNodes are hurt; what was acknowledged is there once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from devservices.e2e.client_pod import ClientPod
from devservices.e2e.demo import Demo
from devservices.flights import flights_csv
from devservices.kind import Kubectl
from devservices.kind.faults import signal_pod

pytestmark = pytest.mark.timeout(400)

LEASE_S = 10.0
ROOT = Path(__file__).resolve().parent.parent


def test_flights_go_in_while_a_node_is_deleted_by_force(
    ready: Demo, kubectl: Kubectl, client: ClientPod, token: str
) -> None:
    """`walplane ingest` and `kubectl delete pod demo-node-1 --grace-period=0 --force`."""
    table = flights_csv(ROOT / ".demo" / "download")
    client.unpack(table, "/tmp")  # noqa: S108 - of the pod
    walplane, flights = ("walplane", "--address", ready.address), f"flights-{token}"
    client(*walplane, "collection", "create", flights, "--shards", "4")
    before = ready.terms()
    moving = ready.channels_of("demo-node-1")
    with client.load(ready.address, "forced") as load:
        ingest = client.popen(
            *(*walplane, "ingest", "/tmp/flights.csv", "--collection", flights),  # noqa: S108
            *("--key", "tailnum", "--batch-rows", "64"),
        )
        load.more(20)
        assert ingest.poll() is None, "the ingest ended before the node was deleted"
        kubectl("delete", "pod", "demo-node-1", "--grace-period=0", "--force")
        output, _ = ingest.communicate(timeout=200)
        print(output.strip().splitlines()[-1])
        assert ingest.returncode == 0, output
        load.more(50)
    assert load.faults(LEASE_S + 5) == []
    print(
        client(
            *("python3", "-m", "devservices.demo_check", ready.address, flights),
            *("/tmp/flights.csv", "--key", "tailnum"),  # noqa: S108
        )
    )
    after = ready.terms()
    grown = {name.replace("-pch-", "-") for name in before if after[name] > before[name]}
    assert moving <= grown, "what the dead node had is served under higher terms"


def test_a_killed_process_comes_back_as_another(
    ready: Demo, kubectl: Kubectl, client: ClientPod
) -> None:
    """kill -9 of the process in pod demo-node-0: same pod, new incarnation, new terms."""
    uid = kubectl.get("pod", "demo-node-0")["metadata"]["uid"]
    session = kubectl.get("lease", "demo-node-0")["spec"]["holderIdentity"]
    before, served = ready.terms(), ready.channels_of("demo-node-0")
    assert served
    with client.load(ready.address, "killed") as load:
        signal_pod(kubectl, "demo-node-0", "KILL")
        load.more(50)
        kubectl.until(
            "a new incarnation",
            lambda: kubectl.get("lease", "demo-node-0")["spec"]["holderIdentity"] != session,
        )
    assert load.faults(LEASE_S + 5) == []
    assert kubectl.get("pod", "demo-node-0")["metadata"]["uid"] == uid
    after = ready.terms()
    grown = {name.replace("-pch-", "-") for name in before if after[name] > before[name]}
    assert served <= grown


def test_a_stopped_owner_acknowledges_nothing_when_it_wakes(
    ready: Demo, kubectl: Kubectl, client: ClientPod
) -> None:
    """SIGSTOP of the process in pod demo-node-2 for three leases, then SIGCONT."""
    before, served = ready.terms(), ready.channels_of("demo-node-2")
    assert served
    with client.load(ready.address, "stopped") as load:
        held = client.hold(ready.address, "held", "demo-node-2")
        signal_pod(kubectl, "demo-node-2", "STOP")
        stopped = time.monotonic()
        try:
            load.more(50)
            time.sleep(max(0.0, 3 * LEASE_S - (time.monotonic() - stopped)))
        finally:
            signal_pod(kubectl, "demo-node-2", "CONT")
        load.more(100)
    held.wait()
    assert held.faults(stopped) == []
    assert load.faults(LEASE_S + 5) == [], "readers see one order, and it holds every append"
    after = ready.terms()
    assert all(after[name] >= before[name] for name in before)
    grown = {name.replace("-pch-", "-") for name in before if after[name] > before[name]}
    assert served <= grown
