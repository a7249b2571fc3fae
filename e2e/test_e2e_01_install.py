"""From nothing to a cluster that serves."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from devservices.e2e.demo import READY_S, Demo
from devservices.kind import Kubectl, KubectlError

pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
EXAMPLE = ROOT / "docs" / "examples" / "walcluster.yaml"


def test_a_cluster_is_ready_in_time(demo: Demo) -> None:
    """`kubectl apply -f docs/examples/walcluster.yaml`, `kubectl wait --for=condition=Ready`."""
    demo.ready()
    took = time.monotonic() - demo.applied_at
    print(f"Ready {took:.1f} s after kubectl apply")
    assert took < READY_S


def test_get_shows_every_column(ready: Demo, kubectl: Kubectl) -> None:
    """`kubectl get walclusters` and `kubectl get pchannels`, by all their names."""
    header, _ = kubectl("get", "walclusters").splitlines()
    assert header.split() == [
        *("NAME", "BACKEND", "PCHANNELS", "ASSIGNED", "NODES", "COORD", "ROLE", "PHASE", "AGE"),
    ]
    told = ["demo", "Pulsar", "16", "16", "3/3", "1/1", "PRIMARY", "Running"]

    def served() -> bool:
        *_, row = kubectl("get", "walclusters").splitlines()
        return row.split()[:-1] == told

    # A node that joined last is given its share behind Ready: some move in this moment.
    kubectl.until(f"all is served, and told so: {told}", served, 60)
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
    events = told.partition("\nEvents:")[2]
    for reason in ("NodeJoined", "Reachable", "Serving"):
        assert f" {reason} " in events, told


def test_helm_test_appends_and_reads_back(ready: Demo, helm: object) -> None:
    """`helm test walplane -n walplane --logs`."""
    assert callable(helm)
    assert "appended 100 messages, read 100" in helm("test", "walplane", "-n", "walplane", "--logs")


def test_a_second_look_changes_nothing(ready: Demo, kubectl: Kubectl) -> None:
    """`kubectl apply` of the same manifest again: no pod, Lease or PChannel is touched."""

    def versions() -> dict[str, str]:
        kinds = "statefulset,deployment,service,configmap,serviceaccount,role,rolebinding,pdb"
        kinds += ",pchannels"
        found = kubectl.items(kinds, "-l", "walplane.dev/cluster=demo")
        return {
            f"{each['kind']}/{each['metadata']['name']}": f"{each['metadata']['generation']}"
            if "generation" in each["metadata"]
            else each["metadata"]["resourceVersion"]
            for each in found
        }

    before, terms = versions(), ready.terms()
    ready.apply(EXAMPLE)
    operator = kubectl.at("walplane")
    operator("rollout", "restart", "deployment/walplane")  # one that remembers nothing
    operator("rollout", "status", "deployment/walplane", "--timeout=90s", seconds=100)
    assert ready.quiet() == terms
    assert versions() == before


def test_pods_are_restricted(ready: Demo, kubectl: Kubectl) -> None:
    """`kubectl label namespace default pod-security.kubernetes.io/enforce=restricted --dry-run`."""
    warned = kubectl.warnings(
        *("label", "--dry-run=server", "--overwrite", "namespace", "default"),
        "pod-security.kubernetes.io/enforce=restricted",
    )
    assert "client" in warned, "the warnings are there: this pod is not restricted"
    assert "demo-" not in warned


@pytest.mark.parametrize("component", ["node", "coord"])
def test_pods_may_do_little(ready: Demo, kubectl: Kubectl, component: str) -> None:
    """`kubectl auth can-i … --as=system:serviceaccount:default:demo-node`."""
    account = f"--as=system:serviceaccount:default:demo-{component}"
    assert kubectl("auth", "can-i", "update", "leases", account).strip() == "yes"
    for verb, kind in (
        *(("list", "secrets"), ("list", "configmaps"), ("create", "pods")),
        *(("patch", "walclusters"), ("patch", "pchannels"), ("patch", "leases")),
    ):
        with pytest.raises(KubectlError, match=r"^no\b"):  # kubectl ends with 1
            kubectl("auth", "can-i", verb, kind, account)
