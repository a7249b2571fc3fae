"""A WALCluster as tests see it: through kubectl alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from devservices.e2e.story import complaints, moves
from devservices.kind.kubectl import Kubectl, KubectlError, Object
from walplane_operator.api.names import LABEL_CLUSTER

READY_S = 90
_LOGS = ("--prefix", "--tail=1000", "--max-log-requests=50")


class Demo:
    """One WALCluster.

    Attributes:
        kubectl: in its namespace.
        name: of the WALCluster.
    """

    def __init__(self, kubectl: Kubectl, name: str) -> None:
        """Nothing is applied yet."""
        self.kubectl = kubectl
        self.name = name
        self.applied_at = 0.0

    def apply(self, manifest: Path | Object) -> None:
        """`kubectl apply -f`."""
        self.applied_at = time.monotonic()
        self.kubectl.apply(manifest)

    def ready(self, seconds: int = READY_S) -> None:
        """`kubectl wait walcluster/NAME --for=condition=Ready`."""
        wait = ("wait", f"walcluster/{self.name}", "--for=condition=Ready")
        self.kubectl(*wait, f"--timeout={seconds}s", seconds=seconds + 10)

    @property
    def address(self) -> str:
        """Where programs connect to."""
        return f"{self.name}-coord.{self.kubectl.namespace}.svc:7650"

    def show(self) -> Object:
        """The object itself."""
        return self.kubectl.get("walcluster", self.name)

    def condition(self, kind: str) -> Object:
        """One condition; empty when it is not there."""
        found = self.show().get("status", {}).get("conditions", [])
        matching: list[Object] = [each for each in found if each["type"] == kind]
        return matching[0] if matching else {}

    def uid(self) -> str:
        """Of the object."""
        uid: str = self.show()["metadata"]["uid"]
        return uid

    def story(self) -> list[tuple[str, str]]:
        """What a failure is told with, the most telling first; (title, text) each."""
        operators = ("-l", "app.kubernetes.io/name=walplane-operator", *_LOGS)
        own = ("-l", f"{LABEL_CLUSTER}={self.name}", *_LOGS)
        walplane = self.kubectl.at("walplane")
        return [
            ("terms of the PChannels", _told(lambda: moves(self.kubectl.items("pchannels")))),
            ("complaints of the operator", _told(lambda: complaints(walplane("logs", *operators)))),
            ("complaints of the pods", _told(lambda: complaints(self.kubectl("logs", *own)))),
        ]

    def patch(self, change: str) -> None:
        """`kubectl patch --type=merge`."""
        self.kubectl("patch", "walcluster", self.name, "--type=merge", "-p", change)

    def scale(self, replicas: int) -> None:
        """`kubectl scale walcluster/NAME --replicas=N`."""
        self.kubectl("scale", f"walcluster/{self.name}", f"--replicas={replicas}")

    def channels(self) -> dict[str, Object]:
        """Status of every PChannel, by the name of its object."""
        found = self.kubectl.items("pchannels")
        return {
            each["metadata"]["name"]: each.get("status", {})
            for each in found
            if each["spec"]["clusterRef"] == self.name
        }

    def terms(self) -> dict[str, int]:
        """Term of every PChannel, from its Lease, which alone decides."""
        leases = self.kubectl.items(
            "leases", "-l", f"walplane.dev/lease=pchannel,walplane.dev/cluster={self.name}"
        )
        return {
            each["metadata"]["name"]: int(each["metadata"]["annotations"]["walplane.dev/term"])
            for each in leases
        }

    def quiet(self, seconds: float = 20.0) -> dict[str, int]:
        """Waits until no PChannel has changed its term for so long; returns the terms.

        The balance policy waits for numbers that have settled: what a test does next must not be
        mistaken for the cause of a move that was due anyway.
        """
        last, since = self.terms(), time.monotonic()

        def unmoved() -> bool:
            nonlocal last, since
            now = self.terms()
            if now != last:
                last, since = now, time.monotonic()
            return time.monotonic() - since >= seconds

        self.kubectl.until("no PChannel moves any more", unmoved, 8 * seconds)
        return last

    def channels_of(self, pod: str) -> set[str]:
        """PChannels that a pod serves."""
        return {name for name, each in self.channels().items() if each.get("node") == pod}

    def spread(self) -> Counter[str]:
        """PChannels a node."""
        return Counter(str(each.get("node", "")) for each in self.channels().values())

    def all_assigned(self) -> bool:
        """Whether every PChannel says Assigned."""
        return all(each.get("state") == "Assigned" for each in self.channels().values())


def _told(text: Callable[[], str]) -> str:
    """`text()`; why not, when the API server does not say."""
    try:
        return text()
    except KubectlError as error:
        return str(error)
