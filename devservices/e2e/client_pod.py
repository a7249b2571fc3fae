"""A pod with the `walplane` command, and loads that run in it."""

from __future__ import annotations

import io
import json
import secrets
import shlex
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devservices.kind import Kubectl

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "/tmp/lib"  # noqa: S108 - of the pod
NAME = "client"
_VERDICT_S = 120.0


class ClientPod:
    """A program's place in the cluster; `walplane` is what a user types there."""

    def __init__(self, kubectl: Kubectl, image: str) -> None:
        """Nothing runs yet."""
        self.kubectl = kubectl
        self._image = image

    def start(self) -> None:
        """Makes the pod anew, waits until it runs, and puts `devservices` into it."""
        self.kubectl("delete", "pod", NAME, "--ignore-not-found", "--wait=true", seconds=60)
        self.kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": NAME},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "containers": [
                        {
                            "name": NAME,
                            "image": self._image,
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["sleep", "infinity"],
                            "env": [{"name": "PYTHONPATH", "value": LIBRARY}],
                            # What grows without end shall end itself, not the machine.
                            "resources": {
                                "limits": {"memory": "3Gi"},
                                "requests": {"memory": "64Mi"},
                            },
                        }
                    ],
                },
            }
        )
        self.kubectl("wait", f"pod/{NAME}", "--for=condition=Ready", "--timeout=60s", seconds=70)
        self.unpack(ROOT / "devservices", LIBRARY)

    def __call__(self, *command: str, seconds: float = 120.0) -> str:
        """Runs a command in the pod; returns what it printed.

        Raises:
            KubectlError: it failed; the message is what it said.
        """
        return self.kubectl("exec", NAME, "--", *command, seconds=seconds)

    def popen(self, *command: str) -> subprocess.Popen[str]:
        """A command in the pod that goes on; its output is piped."""
        kubectl = ["kubectl", "--context", self.kubectl.context, "-n", self.kubectl.namespace]
        return subprocess.Popen(
            [*kubectl, "exec", NAME, "--", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def unpack(self, source: Path, target: str) -> None:
        """Copies a file or a folder of Python code into the pod, below the folder `target`."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
            archive.add(source, arcname=source.name, filter=_no_caches)
        command = ["kubectl", "--context", self.kubectl.context, "-n", self.kubectl.namespace]
        script = f"mkdir -p {target} && tar -xzf - -C {target}"
        exec_in = [*command, "exec", "-i", NAME, "--", "sh", "-c", script]
        subprocess.run(exec_in, input=packed.getvalue(), check=True, capture_output=True)

    @contextmanager
    def load(self, address: str, name: str, shards: int = 8) -> Iterator[Load]:
        """Appends to a new collection while the body runs, then judges; see `Load.faults`."""
        load = Load(self, f"{name}-{secrets.token_hex(3)}")
        load.start("load", "--shards", str(shards), address, load.name)
        try:
            yield load
        finally:
            load.stop()

    def hold(self, address: str, name: str, pod: str) -> HeldStreams:
        """Appends to a new collection straight to the node in `pod`, until that ends it."""
        held = HeldStreams(self, f"{name}-{secrets.token_hex(3)}")
        held.start("held_streams", address, held.name, pod)
        return held


class Program:
    """A module of the testkit that runs in the pod and outlives connections to the API server.

    It appends to a new collection, and tells in `state.json` of its own directory how that goes.

    Attributes:
        name: of its collection.
        final: its last state, once it is done.
    """

    def __init__(self, pod: ClientPod, name: str) -> None:
        """Does not run yet."""
        self._pod = pod
        self.name = name
        self._directory = f"/tmp/load-{name}"  # noqa: S108 - of the pod
        self.final: dict[str, Any] = {}

    def start(self, module: str, *arguments: str) -> None:
        """Starts it; returns once something was acknowledged on every VChannel.

        Args:
            module: of walplane.testkit.
            arguments: the module's, the directory excepted, which comes last.
        """
        run = ("python3", "-m", f"walplane.testkit.{module}", *arguments, self._directory)
        log = f"{self._directory}.log"
        self._pod("sh", "-c", f"nohup {shlex.join(run)} >{log} 2>&1 </dev/null &")
        try:
            self.more(1)
        except TimeoutError:
            told = self._pod("sh", "-c", f"cat {log} {self._directory}/state.json")
            raise TimeoutError(f"{module} did not start: {told}") from None

    def state(self) -> dict[str, Any]:
        """What it tells of itself."""
        found: dict[str, Any] = json.loads(self._pod("cat", f"{self._directory}/state.json"))
        return found

    def more(self, count: int, seconds: float = 60.0) -> None:
        """Returns once every VChannel has `count` more acknowledgements.

        Raises:
            TimeoutError: it takes longer.
        """
        wanted: list[int] = []

        def reached() -> bool:
            least = int(self.state()["least"])
            if not wanted:
                wanted.append(least + count)
            return least >= wanted[0]

        self._pod.kubectl.until(f"{count} more appends of {self.name}", reached, seconds)

    def wait(self) -> None:
        """Waits for its verdict."""
        try:
            self._pod.kubectl.until("a verdict", lambda: bool(self.state()["done"]), _VERDICT_S)
        except TimeoutError:
            log = self._pod("tail", "-n", "30", f"{self._directory}.log")
            raise TimeoutError(f"no verdict of {self.name}: {log}") from None
        self.final = self.state()


class HeldStreams(Program):
    """One `walplane.testkit.held_streams`: it clings to one node."""

    def faults(self, stopped: float) -> list[str]:
        """Prints what was seen; returns what was acknowledged and should not have been.

        What was sent before the stop may be: its answer may have been under way.

        Args:
            stopped: monotonic seconds of this machine, whose kernel the pods share, at which the
                node was stopped.
        """
        before = stopped - float(self.final["last_sent"])
        print(
            f"{self.name}: {self.final['acknowledged']:,} acknowledged by the old owner, the last "
            f"sent {before:.2f} s before it was stopped; then: " + "; ".join(self.final["ends"])
        )
        found: list[str] = list(self.final["missing"])
        if before < 0:
            found.append("the old owner acknowledged an append that was sent after its stop")
        return found


class Load(Program):
    """One `walplane.testkit.load`."""

    def mark(self) -> None:
        """Counts gaps from now on."""
        mark = f"{self._directory}/mark"
        self._pod("touch", mark)
        seen = ("sh", "-c", f"test ! -e {mark} && echo seen")
        self._pod.kubectl.until("the mark is seen", lambda: bool(self._pod(*seen)), 10)

    def stop(self) -> None:
        """Stops it, and waits for its verdict."""
        self._pod("touch", f"{self._directory}/stop")
        self.wait()

    def faults(self, gap: float | None = None) -> list[str]:
        """Prints what was seen; returns what was lost, doubled, reordered or refused.

        Args:
            gap: seconds that two acknowledgements of one VChannel may be apart at most, since
                the mark.
        """
        longest, told = float(self.final["longest_gap"]), "; ".join(self.final["gaps"])
        print(
            f"{self.name}: {self.final['acknowledged']:,} acknowledged, longest gap "
            f"{longest:.2f} s, {len(self.final['errors'])} errors ({told})"
        )
        found = [*self.final["violations"], *self.final["errors"]]
        if gap is not None and longest > gap:
            found.append(f"the longest gap is {longest:.2f} s, above {gap:g} s")
        return found


def _no_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in member.name else member
