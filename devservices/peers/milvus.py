"""Milvus 2.3.5 on a given Pulsar, as the packages `milvus` and `pymilvus` bring it.

They want an older gRPC than walplane, so server and client live in an environment of their own.
Milvus cannot be told to listen on loopback only.
"""

from __future__ import annotations

import shutil
import signal
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devservices.peers.environment import python_with
from devservices.peers.server import Peer, answers, free_port, running

VERSION = "2.3.5"
VARIABLE = "WALPLANE_MILVUS_PYTHON"
_PACKAGES = (f"milvus=={VERSION}", "pymilvus==2.3.7", "marshmallow<4", "setuptools<80")
_NEEDS = "; they need Linux on x86-64 and Python 3.8 to 3.12"
_PORTS = (
    *("proxy", "proxy-internal", "etcd", "root-coord", "query-coord", "query-node"),
    *("index-coord", "index-node", "data-coord", "data-node"),
)
_READY_TIMEOUT_S = 300.0


@contextmanager
def milvus_server(data: Path, log: Path, service: str, namespace: str) -> Iterator[Peer]:
    """A standalone Milvus whose log is Pulsar, its files below `data`, which is removed afterwards.

    Args:
        data: its directory, not there yet.
        log: takes its output.
        service: URL of the Pulsar, pulsar://host:port.
        namespace: tenant/namespace of its topics.

    Raises:
        PrerequisiteMissingError: the packages could not be installed.
        PeerError: it did not get ready.
    """
    python = python_with(f"milvus/{VERSION}", _PACKAGES, VARIABLE, _NEEDS)
    ports = {name: free_port() for name in _PORTS}
    command = [python, "-c", "import milvus; milvus.main()", "--data", str(data)]
    for name, port in ports.items():
        command += [f"--{name}-port", str(port)]
    for key, value in _on_pulsar(service, namespace).items():
        command += ["--extra-config", f"{key}={value}"]

    def ready() -> bool:
        return b"Welcome" in log.read_bytes() and answers(ports["proxy"])

    environment = {"PYTHONUNBUFFERED": "1"}
    data.mkdir(parents=True)
    try:
        with running(
            command,
            log,
            ready,
            timeout_s=_READY_TIMEOUT_S,
            environment=environment,
            stop=signal.SIGINT,
        ):
            yield Peer(ports["proxy"], VERSION, python)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _on_pulsar(service: str, namespace: str) -> dict[str, str]:
    parts = urllib.parse.urlsplit(service)
    tenant, _, name = namespace.partition("/")
    return {
        "mq.type": "pulsar",
        "pulsar.address": str(parts.hostname),
        "pulsar.port": str(parts.port),
        "pulsar.tenant": tenant,
        "pulsar.namespace": name,
    }
