"""What hurts: a process in a pod, the API server. Only what runs in the kind cluster is touched."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from devservices.kind.cluster import KindCluster
from devservices.kind.kubectl import Kubectl

_MANIFEST = "/etc/kubernetes/manifests/kube-apiserver.yaml"
_AWAY = "/etc/kubernetes/kube-apiserver.yaml"
_INSIDE_S = 60.0
_PROBE_POD = "probe-after-outage"


def signal_pod(kubectl: Kubectl, pod: str, number: str) -> None:
    """Sends a signal (`KILL`, `STOP`, `CONT`) to walplane's process in `pod`, from its worker."""
    worker = kubectl.get("pod", pod)["spec"]["nodeName"]
    script = (
        "for p in $(pgrep -f walplane); do "
        f"tr '\\0' '\\n' </proc/$p/environ 2>/dev/null | grep -qx HOSTNAME={pod} "
        f"&& kill -{number} $p && echo $p; done"
    )
    done = _inside(worker, script)
    if not done.strip():
        raise ProcessLookupError(f"no process of walplane runs in pod {pod} on {worker}")


@contextmanager
def api_server_away(cluster: KindCluster) -> Iterator[None]:
    """No API server while the body runs: its manifest is moved away and its process killed."""
    container = cluster.control_plane
    _inside(container, f"mv {_MANIFEST} {_AWAY} && pkill -KILL kube-apiserver", check=True)
    try:
        yield
    finally:
        _inside(container, f"test ! -e {_AWAY} || mv {_AWAY} {_MANIFEST}")


def way_into(kubectl: Kubectl, pod: str) -> Callable[..., str]:
    """Runs commands in `pod` from its worker: found while the API server is there, works without.

    What it returns takes the words of a command and returns what that printed.
    """
    found = kubectl.get("pod", pod)
    worker = found["spec"]["nodeName"]
    container = found["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")

    def run(*command: str) -> str:
        name = f"e2e-{secrets.token_hex(4)}"
        run_in = ["ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", name, container, *command]
        done = subprocess.run(
            ["docker", "exec", worker, *run_in],
            capture_output=True,
            text=True,
            timeout=_INSIDE_S,
            check=True,
        )
        return done.stdout

    return run


def settled_after_outage(kubectl: Kubectl, image: str) -> None:
    """Returns once the controllers work again: their Lease is renewed, and a new pod runs."""
    system = kubectl.at("kube-system")
    path = "jsonpath={.spec.renewTime}"
    lease = ("get", "lease", "kube-controller-manager", "-o", path)
    seen: set[str] = set()

    def renewed() -> bool:
        seen.add(system(*lease, seconds=5))
        return len(seen) > 1

    kubectl.until("the controller manager renews its Lease", renewed, 180)
    kubectl("delete", "pod", _PROBE_POD, "--ignore-not-found", "--wait=true")
    probe = ("run", _PROBE_POD, f"--image={image}", "--restart=Never", "--command", "--", "true")
    there = ("get", "pod", _PROBE_POD, "--ignore-not-found", "-o", "name")
    kubectl.until("a pod can be made", lambda: bool(kubectl(*there) or kubectl(*probe)), 60)
    phase = ("get", "pod", _PROBE_POD, "-o", "jsonpath={.status.phase}")
    kubectl.until("a new pod runs", lambda: kubectl(*phase) == "Succeeded", 180)
    kubectl("delete", "pod", _PROBE_POD, "--wait=false")


def _inside(container: str, script: str, *, check: bool = False) -> str:
    command = ["docker", "exec", container, "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=check).stdout
