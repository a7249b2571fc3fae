"""From nothing to a cluster that serves."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from devservices.e2e.demo import READY_S, Demo
from devservices.kind import Kubectl

pytestmark = pytest.mark.timeout(400)

README = Path(__file__).resolve().parent.parent / "README.md"


def test_a_cluster_is_ready_in_time(demo: Demo) -> None:
    """`kubectl apply -f docs/examples/walcluster.yaml`, `kubectl wait --for=condition=Ready`."""
    demo.ready()
    took = time.monotonic() - demo.applied_at
    print(f"Ready {took:.1f} s after kubectl apply")
    assert took < READY_S


def test_get_shows_every_column(ready: Demo, kubectl: Kubectl) -> None:
    """`kubectl get walclusters` and `kubectl get pchannels`, by all their names."""
    header, row = kubectl("get", "walclusters").splitlines()
    assert header.split() == [
        *("NAME", "BACKEND", "PCHANNELS", "ASSIGNED", "NODES", "COORD", "ROLE", "PHASE", "AGE"),
    ]
    assert row.split()[:-1] == ["demo", "Pulsar", "16", "16", "3/3", "1/1", "PRIMARY", "Running"]
    for alias in ("wal", "wals"):
        assert kubectl("get", alias).splitlines()[0] == header

    def lags() -> bool:
        return all(each.get("timeTickLag") for each in ready.channels().values())

    kubectl.until("every PChannel tells its lag", lags, 30)
    header, *rows = kubectl("get", "pch").splitlines()
    assert header.split() == [
        *("NAME", "CHANNEL", "NODE", "TERM", "STATE", "VCHANNELS", "TIMETICK-LAG"),
        *("CHECKPOINT-LAG", "AGE"),
    ]
    assert len(rows) == 16
    for each in rows:
        name, channel, node, term, state, vchannels, lag, *_ = each.split()
        assert channel == f"default-demo_{name.removeprefix('demo-')}"
        assert node in {"demo-node-0", "demo-node-1", "demo-node-2"}
        assert int(term) >= 1
        assert int(vchannels) >= 0
        assert lag.endswith("s")
        assert state == "Assigned"
    assert "REPORTED" in kubectl("get", "pch", "-o", "wide").splitlines()[0]


def test_readme_shows_what_kubectl_prints(ready: Demo, kubectl: Kubectl) -> None:
    """Every `kubectl get` of the README."""
    shown = re.findall(r"```shell-session\n(.*?)```", README.read_text(), re.DOTALL)
    found = re.findall(r"\$ kubectl (get \S+).*\n((?:[^$].*\n)+)", "".join(shown))
    assert [each[0] for each in found] == ["get walclusters", "get pchannels"]
    for command, output in found:
        header, row, *_ = output.splitlines()
        printed, first, *_ = kubectl(*command.split()).splitlines()
        assert printed.split() == header.split()
        same = [word for word in first.split() if not any(map(str.isdigit, word))]
        assert same == [word for word in row.split() if not any(map(str.isdigit, word))]


def test_describe_tells_the_story(ready: Demo, kubectl: Kubectl) -> None:
    """`kubectl describe walcluster/demo`."""
    told = kubectl("describe", "walcluster/demo")
    for word in ("Ready", "Progressing", "Degraded", "BackendReachable", "Assigned"):
        assert ready.condition(word)["observedGeneration"] == ready.show()["metadata"]["generation"]
        assert word in told
    for reason in ("NodeJoined", "Reachable", "Serving"):
        assert reason in told, told


def test_helm_test_appends_and_reads_back(ready: Demo, helm: object) -> None:
    """`helm test walplane -n walplane --logs`."""
    assert callable(helm)
    assert "appended 100 messages, read 100" in helm("test", "walplane", "-n", "walplane", "--logs")


def test_a_second_look_changes_nothing(ready: Demo, kubectl: Kubectl) -> None:
    """`kubectl apply` of the same manifest again: no pod, Lease or PChannel is touched."""

    def versions() -> dict[str, str]:
        kinds = "statefulset,deployment,service,configmap,serviceaccount,role,rolebinding,pdb"
        found = kubectl.items(kinds, "-l", "walplane.dev/cluster=demo")
        return {
            f"{each['kind']}/{each['metadata']['name']}": f"{each['metadata']['generation']}"
            if "generation" in each["metadata"]
            else each["metadata"]["resourceVersion"]
            for each in found
        }

    before, terms = versions(), ready.terms()
    kubectl("annotate", "walcluster/demo", "example.com/poke=1", "--overwrite")
    resync = kubectl("-n", "walplane", "get", "pods", "-o", "name").split()
    assert resync, "the operator runs"
    time.sleep(8)  # nothing is to happen: there is no condition to wait for
    assert versions() == before
    assert ready.terms() == terms


def test_pods_are_restricted(ready: Demo, kubectl: Kubectl) -> None:
    """`kubectl label namespace default pod-security.kubernetes.io/enforce=restricted --dry-run`."""
    told = kubectl(
        *("label", "--dry-run=server", "--overwrite", "namespace", "default"),
        "pod-security.kubernetes.io/enforce=restricted",
    )
    assert "demo-" not in told
    pods = kubectl.items("pods", "-l", "walplane.dev/cluster=demo")
    assert {each["spec"]["automountServiceAccountToken"] for each in pods} <= {True, False}
    for component, other in (("node", "secrets"), ("node", "pods"), ("coord", "configmaps")):
        account = f"system:serviceaccount:default:demo-{component}"
        try:
            answer = kubectl("auth", "can-i", "list", other, f"--as={account}")
        except Exception as error:
            answer = str(error)
        assert "no" in answer.split(), (component, other, answer)
