"""A kind cluster: made, found again, loaded with images, deleted.

Contract: the node image is `WALPLANE_KIND_IMAGE`, by default upstream's. Where no registry can be
reached, a folder with kind's archive and its `start.sh` (`WALPLANE_KIND_LOCAL`, by default
`../shared/kind`) supplies image, tools and Docker; then `local` is true, and other images have to
be made on this machine as well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from devservices.pulsar.locks import locked

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).resolve().parent / "three-nodes.yaml"
NODE_IMAGE = "kindest/node:v1.34.0"
_LOCAL_DEFAULT = ROOT.parent / "shared" / "kind"
_LOCK = ROOT / ".devservices" / "kind.lock"
_HINTS = {
    "docker": "apt-get install docker.io",
    "kind": "https://kind.sigs.k8s.io/docs/user/quick-start",
    "kubectl": "https://kubernetes.io/docs/tasks/tools",
    "helm": "https://helm.sh/docs/intro/install",
}


class ToolMissingError(Exception):
    """A tool is not there, or does not work; the message says how to get it."""


class KindCluster:
    """One control plane and two workers."""

    def __init__(self, name: str) -> None:
        """Names the cluster; nothing is started."""
        self.name = name

    @property
    def context(self) -> str:
        """Its name in the kubeconfig."""
        return f"kind-{self.name}"

    @property
    def control_plane(self) -> str:
        """Container of the control plane."""
        return f"{self.name}-control-plane"

    @property
    def local(self) -> bool:
        """Whether image and tools come from the local folder."""
        return (_local() / "start.sh").is_file() and "WALPLANE_KIND_IMAGE" not in os.environ

    def up(self) -> None:
        """Makes the cluster if it is not there; returns once it serves.

        Raises:
            ToolMissingError: docker, kind, kubectl or helm are missing.
            subprocess.CalledProcessError: kind failed; what it said was printed.
        """
        with locked(_LOCK):
            if self.local:
                subprocess.run(["bash", _local() / "start.sh", self.name, CONFIG], check=True)
                return
            self._check_tools()
            if self.name in _output("kind", "get", "clusters").split():
                subprocess.run(["kind", "export", "kubeconfig", "--name", self.name], check=True)
                return
            image = os.environ.get("WALPLANE_KIND_IMAGE", NODE_IMAGE)
            made = ["kind", "create", "cluster", "--name", self.name, "--image", image]
            subprocess.run([*made, "--config", str(CONFIG), "--wait", "180s"], check=True)

    def down(self) -> None:
        """Deletes the cluster, if it is there; without a docker there is none."""
        if shutil.which("kind") and _docker_answers():
            subprocess.run(["kind", "delete", "cluster", "--name", self.name], check=True)

    def workers(self) -> list[str]:
        """Containers of the nodes that pods run on."""
        nodes = _output("kind", "get", "nodes", "--name", self.name).split()
        return sorted(node for node in nodes if node != self.control_plane)

    def load(self, *images: str) -> None:
        """Loads images of this machine's docker into the workers."""
        nodes = ["--nodes", ",".join(self.workers())]
        command = ["kind", "load", "docker-image", *images, "--name", self.name, *nodes]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)

    @staticmethod
    def _check_tools() -> None:
        for tool, hint in _HINTS.items():
            if not shutil.which(tool):
                raise ToolMissingError(f"{tool} is missing: {hint}")
        if not _docker_answers():
            raise ToolMissingError("no docker answers: start dockerd, or join the group docker")


def _docker_answers() -> bool:
    return not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode


def _local() -> Path:
    return Path(os.environ.get("WALPLANE_KIND_LOCAL", _LOCAL_DEFAULT))


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
