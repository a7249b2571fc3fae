"""NATS with JetStream that syncs every write: a nats-server found, or built from the Go proxy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devservices.peers.server import HOME, Peer, answers, free_port, running
from devservices.pulsar import PrerequisiteMissingError
from devservices.pulsar.locks import locked

VERSION = "2.15.1"
VARIABLE = "WALPLANE_NATS_SERVER"
_MODULE = f"github.com/nats-io/nats-server/v2@v{VERSION}"
_BUILD_TIMEOUT_S = 1800.0


@contextmanager
def nats_server(data: Path, log: Path) -> Iterator[Peer]:
    """A server on 127.0.0.1 whose streams lie in `data`, made here and removed afterwards.

    Raises:
        PrerequisiteMissingError: there is no nats-server, and none could be built.
        PeerError: it did not get ready.
    """
    program, port = _program(), free_port()
    data.mkdir(parents=True)
    configuration = data / "nats.conf"
    configuration.write_text(
        f'listen: "127.0.0.1:{port}"\n'
        f'jetstream {{ store_dir: "{data}/jetstream", sync_interval: always }}\n'
    )
    try:
        with running([program, "-c", str(configuration)], log, lambda: answers(port)):
            yield Peer(port, _version(program))
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _program() -> str:
    if chosen := os.environ.get(VARIABLE):
        return chosen
    found = shutil.which("nats-server")
    return found if found and _syncs(found) else str(_built())


def _version(program: str) -> str:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return told.stdout.strip().rpartition(" ")[2]


def _syncs(program: str) -> bool:
    """Whether it runs and knows `sync_interval`; that of Debian 12 does not."""
    try:
        numbers = re.findall(r"\d+", _version(program))
    except (OSError, subprocess.CalledProcessError):
        return False
    return tuple(map(int, numbers[:2])) >= (2, 10)


def _built() -> Path:
    """The server that the Go module proxy's source gives; built at the first call."""
    program = HOME / "nats" / VERSION / "nats-server"
    with locked(HOME / "nats.lock"):
        if program.is_file():
            return program
        go = shutil.which("go")
        if not go:
            raise PrerequisiteMissingError(
                f"no nats-server of 2.10 or newer on the PATH: install one, set {VARIABLE} to "
                "one, or install Go (apt-get install golang), with which it is built"
            )
        _install(go, program.parent)
    return program


def _install(go: str, directory: Path) -> None:
    command = [go, "install", _MODULE]
    environment = {**os.environ, "GOBIN": str(directory)}
    with tempfile.TemporaryDirectory() as outside:  # of any Go module
        try:
            built = subprocess.run(
                command,
                cwd=outside,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=_BUILD_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise PrerequisiteMissingError(
                f"go install {_MODULE} took longer than {_BUILD_TIMEOUT_S:.0f} s: run it once "
                f"with GOBIN={directory}"
            ) from None
    if built.returncode:
        last = (built.stderr.strip().splitlines() or ["no output"])[-1]
        raise PrerequisiteMissingError(
            f"go install {_MODULE} failed ({last}): install nats-server, or set {VARIABLE} to one"
        )
