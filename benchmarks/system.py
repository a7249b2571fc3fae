"""Brings up what is measured: a standalone walplane process, a broker, load programs.

Contract: whatever was started is down again when its context ends, also after an error; what was
stored for a row is removed with it. Logs of the processes stay in the run's output directory.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from benchmarks.loads.common import cpu_s
from benchmarks.model import BenchmarkError, Sample, Setting
from devservices.peers.server import free_port
from devservices.pulsar import URL_VARIABLE, PrerequisiteMissingError, PulsarError, PulsarProcess

_ROOT = Path(__file__).resolve().parents[1]
_READY_TIMEOUT_S = 60.0
_REPLAY_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 30.0
_LOAD_GRACE_S = 120.0
_ADMIN_TIMEOUT_S = 60.0
_BROKER_DATA = _ROOT / ".devservices" / "pulsar" / "benchmarks"


@dataclass(frozen=True)
class Node:
    """A running standalone process.

    Attributes:
        address: where it listens.
        pid: of its process.
    """

    address: str
    pid: int

    @property
    def resident_mb(self) -> float:
        """Resident memory, in MB of 10^6 bytes.

        Raises:
            BenchmarkError: /proc does not tell.
        """
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError as error:
            raise BenchmarkError(f"resident memory needs Linux's /proc: {error}") from error
        (kib,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(kib) * 1024 / 1e6

    @property
    def cpu_s(self) -> float:
        """Processor seconds it has used; 0 where /proc does not tell."""
        return cpu_s(self.pid)


@contextmanager
def standalone(
    setting: Setting, row: str, backend: str | None, pchannels: int = 1
) -> Iterator[Node]:
    """A walplane process of its own; `backend` None is the embedded one.

    Raises:
        BenchmarkError: it did not get ready.
    """
    data = fresh_directory(setting.data / f"{row}-walplane")
    log = setting.out / f"{row}-walplane.log"
    options = ["--pchannels", str(pchannels), "--data", str(data)]
    with log.open("wb") as errors:
        address, process = _start(options, backend, errors)
        try:
            _wait_ready(process, log)
            yield Node(address, process.pid)
        finally:
            _stop(process)
            shutil.rmtree(data, ignore_errors=True)


def reopened(
    setting: Setting, row: str, data: Path, backend: str | None, prefix: str
) -> dict[str, float]:
    """Starts a walplane process on what another one left, and kills it once it is ready.

    Args:
        setting: where its log goes.
        row: names the log.
        data: its data directory.
        backend: URL; None: the embedded one, in `data`.
        prefix: of its one PChannel.

    Returns:
        Seconds as the process says them: `database_s` (0 where there is none), `open_s` of the
        PChannel, `replay_s` of that; `entries` replayed; `ready_s` from its start until it is
        ready, the interpreter and its imports included.

    Raises:
        BenchmarkError: it did not get ready.
    """
    log = setting.out / f"{row}-walplane.log"
    options = ["--pchannels", "1", "--data", str(data), "--prefix", prefix, "--log-format", "json"]
    with log.open("wb") as errors:
        began = time.monotonic()
        _, process = _start(options, backend, errors)
        try:
            _wait_ready(process, log, _REPLAY_TIMEOUT_S)
            ready_s = time.monotonic() - began
        finally:
            process.kill()
            _stop(process)
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    events = {line["event"]: line for line in lines}
    opened, database = events["opened"], events.get("database open", {"open_s": 0.0})
    return {
        "database_s": database["open_s"],
        "open_s": opened["open_s"],
        "replay_s": opened["replay_s"],
        "entries": opened["replayed"],
        "ready_s": ready_s,
    }


def _start(
    options: list[str], backend: str | None, errors: BinaryIO
) -> tuple[str, subprocess.Popen[bytes]]:
    """A standalone process, and where it is going to listen."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "walplane", "standalone", "--listen", address, *options]
    command += ["--backend", backend] if backend else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, cwd=_ROOT)
    return address, process


def load(
    program: str,
    *arguments: str,
    seconds: float,
    node: Node | None = None,
    python: str = sys.executable,
) -> Sample:
    """Runs one load program; with `node`, its processor time is one of the figures.

    Args:
        program: name of its module.
        arguments: for it.
        seconds: how long it is to measure.
        node: whose processor time is taken.
        python: interpreter with what the program imports.

    Raises:
        BenchmarkError: the program failed, or did not end in time.
    """
    before = node.cpu_s if node else 0.0
    timed = (*arguments, "--seconds", str(seconds))
    limit_s = seconds + _LOAD_GRACE_S
    figures = run_program(program, *timed, timeout_s=limit_s, python=python)
    if node:
        figures["node_cpu_s"] = node.cpu_s - before
    return Sample(figures)


def run_program(
    program: str, *arguments: str, timeout_s: float, python: str = sys.executable
) -> dict[str, float]:
    """Runs one program of `benchmarks.loads`; the figures that it prints.

    Raises:
        BenchmarkError: the program failed, or did not end within `timeout_s`.
    """
    command = [python, "-m", f"benchmarks.loads.{program}", *arguments]
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"load {program} did not end within {timeout_s:.0f} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise BenchmarkError(f"load {program} failed: {lines[-1]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def fresh_directory(path: Path) -> Path:
    """`path`, which is not there yet; its parents are."""
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@dataclass(frozen=True)
class Broker:
    """A Pulsar with two namespaces of our own.

    Attributes:
        service: URL for pulsar-client.
        admin: URL of its REST interface.
        namespace: tenant/namespace for walplane, which makes it.
        reference: tenant/namespace for the reference, with the broker's defaults.
    """

    service: str
    admin: str
    namespace: str
    reference: str

    @property
    def backend(self) -> str:
        """URL for walplane."""
        query = urllib.parse.urlencode(
            {"admin": self.admin, "namespace": self.namespace}, safe=":/"
        )
        return f"{self.service}?{query}"

    def topic(self, name: str) -> str:
        """Full name of a topic of the reference."""
        return f"persistent://{self.reference}/{name}"

    def version(self) -> str:
        """The broker's version."""
        return _request("GET", f"{self.admin}/admin/v2/brokers/version").strip('"')


@contextmanager
def broker() -> Iterator[Broker]:
    """The Pulsar that WALPLANE_PULSAR_URL names, else one of our own, started for the while.

    Raises:
        BenchmarkError: there is none to be had.
    """
    own = None if os.environ.get(URL_VARIABLE) else PulsarProcess(_BROKER_DATA)
    try:
        with _namespaces(_url(own)) as ours:
            yield ours
    finally:
        if own:
            own.wipe()


def _url(own: PulsarProcess | None) -> str:
    try:
        return own.start() if own else os.environ[URL_VARIABLE]
    except (PrerequisiteMissingError, PulsarError) as error:
        raise BenchmarkError(str(error)) from error


@contextmanager
def _namespaces(url: str) -> Iterator[Broker]:
    parts = urllib.parse.urlsplit(url)
    given = urllib.parse.parse_qs(parts.query).get("admin")
    admin = given[0] if given else f"http://{parts.hostname}:8080"
    name = f"public/walplane-benchmark-{uuid.uuid4().hex[:12]}"
    made = Broker(f"pulsar://{parts.netloc}", admin, name, f"{name}-reference")
    _request("PUT", f"{admin}/admin/v2/namespaces/{made.reference}")
    try:
        yield made
    finally:
        for namespace in (made.namespace, made.reference):
            with suppress(BenchmarkError):
                _request("DELETE", f"{admin}/admin/v2/namespaces/{namespace}?force=true")


def _request(method: str, url: str) -> str:
    request = urllib.request.Request(url, method=method)  # noqa: S310 - the user's own broker
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=_ADMIN_TIMEOUT_S) as answer:  # noqa: S310
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError) as error:
        raise BenchmarkError(f"{method} {url} failed: {error}; is the broker up?") from error


def _wait_ready(
    process: subprocess.Popen[bytes], log: Path, within_s: float = _READY_TIMEOUT_S
) -> None:
    lines: list[bytes] = []
    reader = threading.Thread(target=_first_ready_line, args=(process, lines), daemon=True)
    reader.start()
    reader.join(within_s)
    if not lines:
        raise BenchmarkError(f"walplane standalone did not get ready: see {log}")


def _first_ready_line(process: subprocess.Popen[bytes], lines: list[bytes]) -> None:
    if process.stdout is None:
        return
    for line in process.stdout:
        if line.startswith(b"ready"):
            lines.append(line)
            return


def _stop(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()
