"""kubectl as tests type it: one call, one answer, one deadline."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
_CALL_S = 60.0
_POLL_S = 0.5


class KubectlError(Exception):
    """kubectl ended with an error; the message is what it said."""


class Kubectl:
    """kubectl against one cluster, in one namespace."""

    def __init__(self, context: str, namespace: str = "default") -> None:
        """Nothing is called yet."""
        self.context = context
        self.namespace = namespace

    def at(self, namespace: str) -> Kubectl:
        """The same cluster, another namespace."""
        return Kubectl(self.context, namespace)

    def __call__(self, *arguments: str, stdin: str | None = None, seconds: float = _CALL_S) -> str:
        """Runs `kubectl ARGUMENTS`; returns what it printed, warnings left out.

        Raises:
            KubectlError: it failed, or did not end within `seconds`.
        """
        return self._run(arguments, stdin, seconds).stdout

    def warnings(self, *arguments: str) -> str:
        """Runs `kubectl ARGUMENTS`; returns the warnings that it printed."""
        return self._run(arguments, None, _CALL_S).stderr

    def _run(
        self, arguments: Sequence[str], stdin: str | None, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", "--context", self.context, "-n", self.namespace, *arguments]
        try:
            done = subprocess.run(
                command,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise KubectlError(f"{' '.join(arguments)}: no answer in {seconds:g} s") from None
        if done.returncode:
            raise KubectlError((done.stderr or done.stdout).strip())
        return done

    def apply(self, *manifests: Path | Object) -> str:
        """`kubectl apply -f` of files or objects."""
        said = []
        for each in manifests:
            text = each.read_text() if isinstance(each, Path) else yaml.safe_dump(each)
            said.append(self("apply", "-f", "-", stdin=text))
        return "".join(said)

    def get(self, *arguments: str) -> Object:
        """`kubectl get … -o json`."""
        found: Object = json.loads(self("get", *arguments, "-o", "json"))
        return found

    def items(self, *arguments: str) -> list[Object]:
        """Objects of a listing."""
        found: list[Object] = self.get(*arguments)["items"]
        return found

    def until(self, what: str, true: Callable[[], bool], seconds: float = 60.0) -> float:
        """Waits until `true()`; an error of kubectl counts as false. Returns how long it took.

        Raises:
            TimeoutError: it stays false; the message is `what`.
        """
        began = time.monotonic()
        while True:
            try:
                if true():
                    return time.monotonic() - began
            except KubectlError:
                pass
            if time.monotonic() - began > seconds:
                raise TimeoutError(f"not within {seconds:g} s: {what}")
            time.sleep(_POLL_S)
