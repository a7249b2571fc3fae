"""An S3 that keeps its objects in memory: moto's server, in an environment of its own.

Its client packages want an older python-dateutil than Kubernetes' do.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devservices.peers.environment import python_with
from devservices.peers.server import Peer, PeerError, answers, free_port, running

VERSION = "5.2.5"
VARIABLE = "WALPLANE_MOTO_PYTHON"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "walplane",
    "AWS_SECRET_ACCESS_KEY": "walplane",
    "AWS_REGION": "us-east-1",
}
"""What clients are to have in their environment; anything but the region will do."""

_PACKAGES = (f"moto[s3,server]=={VERSION}",)
_MAIN = "import sys; from moto.server import main; main(sys.argv[1:])"


def installed() -> str:
    """The interpreter that has it, installed at the first call: some 30 seconds.

    Raises:
        PrerequisiteMissingError: the package could not be installed.
    """
    return python_with(f"moto/{VERSION}", _PACKAGES, VARIABLE)


@contextmanager
def s3_server(log: Path, bucket: str) -> Iterator[Peer]:
    """A server on 127.0.0.1 with the empty bucket `bucket`; `log` takes its output.

    Raises:
        PrerequisiteMissingError: the package could not be installed.
        PeerError: it did not get ready.
    """
    python, port = installed(), free_port()
    command = [python, "-c", _MAIN, "-H", "127.0.0.1", "-p", str(port)]
    with running(command, log, lambda: answers(port)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("PUT", f"/{bucket}")
        if (status := connection.getresponse().status) != http.client.OK:
            raise PeerError(f"moto made no bucket {bucket!r} (HTTP {status}): see {log}")
        connection.close()
        yield Peer(port, VERSION)
