"""Redis that syncs its append-only file at every write."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devservices.peers.server import Peer, answers, free_port, running
from devservices.pulsar import PrerequisiteMissingError

VARIABLE = "WALPLANE_REDIS_SERVER"


@contextmanager
def redis_server(data: Path, log: Path) -> Iterator[Peer]:
    """A server on 127.0.0.1 whose file lies in `data`, made here and removed afterwards.

    It never rewrites its file and never snapshots: both would only slow it down.

    Raises:
        PrerequisiteMissingError: there is no redis-server.
        PeerError: it did not get ready.
    """
    program, port = _program(), free_port()
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    version = re.search(r"v=(\S+)", shown.stdout)
    data.mkdir(parents=True)
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(data)]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    command += ["--auto-aof-rewrite-percentage", "0"]
    try:
        with running(command, log, lambda: answers(port)):
            yield Peer(port, version.group(1) if version else shown.stdout.strip())
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _program() -> str:
    found = os.environ.get(VARIABLE) or shutil.which("redis-server")
    if not found:
        raise PrerequisiteMissingError(
            f"no redis-server on the PATH: apt-get install redis-server, or set {VARIABLE} to one"
        )
    return found
