"""The cluster that the end-to-end tests share; `devservices.e2e` made it and loaded the images."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from devservices.e2e.client_pod import ClientPod
from devservices.e2e.demo import Demo
from devservices.kind import KindCluster, Kubectl

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
RELEASE_NAMESPACE = "walplane"


def _variable(name: str) -> str:
    if name not in os.environ:
        pytest.skip("needs a kind cluster and images: run `make e2e`")
    return os.environ[name]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure is told with what the pods said: they are gone when anybody looks."""
    report = yield
    demo = getattr(item, "funcargs", {}).get("demo")
    if report.failed and demo is not None:
        report.sections += demo.story()
    return report


@pytest.fixture(scope="session")
def kind() -> KindCluster:
    return KindCluster(_variable("WALPLANE_E2E_NAME"))


@pytest.fixture(scope="session")
def image() -> str:
    return _variable("WALPLANE_E2E_IMAGE")


@pytest.fixture(scope="session")
def token() -> str:
    """For names of this run: a kept cluster has those of earlier runs."""
    return f"run-{secrets.token_hex(3)}"


@pytest.fixture(scope="session")
def kubectl(kind: KindCluster) -> Kubectl:
    return Kubectl(kind.context)


@pytest.fixture(scope="session")
def pulsar(kubectl: Kubectl) -> None:
    """The Pulsar of docs/examples/pulsar.yaml, Ready."""
    text = (EXAMPLES / "pulsar.yaml").read_text()
    wanted = _variable("WALPLANE_E2E_PULSAR_IMAGE")
    upstream = next(line.split()[-1] for line in text.splitlines() if "image:" in line)
    kubectl("apply", "-f", "-", stdin=text.replace(upstream, wanted))
    kubectl("rollout", "status", "statefulset/pulsar", "--timeout=180s", seconds=190)


@pytest.fixture(scope="session")
def helm(kind: KindCluster) -> Helm:
    return Helm(kind.context)


@pytest.fixture(scope="session")
def release(helm: Helm, image: str, kubectl: Kubectl) -> str:
    """`helm install walplane helm/walplane -n walplane --create-namespace`."""
    repository, tag = image.rsplit(":", 1)
    said = helm(
        *("upgrade", "--install", "walplane", str(ROOT / "helm" / "walplane")),
        *("-n", RELEASE_NAMESPACE, "--create-namespace"),
        *("--set", f"image.repository={repository}", "--set", f"image.tag={tag}"),
    )
    return said


@pytest.fixture(scope="session")
def client(kubectl: Kubectl, image: str) -> ClientPod:
    pod = ClientPod(kubectl, image)
    pod.start()
    return pod


@pytest.fixture(scope="session")
def demo(kubectl: Kubectl, pulsar: None, release: str, client: ClientPod) -> Demo:
    """The WALCluster of docs/examples/walcluster.yaml, applied; not yet Ready."""
    demo = Demo(kubectl, "demo")
    demo.apply(EXAMPLES / "walcluster.yaml")
    return demo


@pytest.fixture
def ready(demo: Demo) -> Iterator[Demo]:
    """The cluster `demo`, Ready before a test and after it."""
    demo.ready()
    yield demo
    demo.ready()


class Helm:
    """helm against the cluster."""

    def __init__(self, context: str) -> None:
        self._context = context

    def __call__(self, *arguments: str) -> str:
        """Runs `helm ARGUMENTS`; returns what it printed."""
        command = ["helm", "--kube-context", self._context, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout
