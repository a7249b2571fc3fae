"""An Azure Blob Storage that keeps its objects in memory: Azurite, from npm."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

from devservices.peers.server import HOME, Peer, PeerError, answers, free_port, running
from devservices.pulsar import PrerequisiteMissingError
from devservices.pulsar.locks import locked

VERSION = "3.37.0"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The well-known pair of the emulator; it takes no other."""

_INSTALL_TIMEOUT_S = 900.0
_API_VERSION = "2021-08-06"


def credentials(port: int) -> dict[str, str]:
    """What clients are to have in their environment."""
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "AZURE_ENDPOINT": f"http://127.0.0.1:{port}/{ACCOUNT}",
        "AZURE_ALLOW_HTTP": "true",
    }


@contextmanager
def azure_server(log: Path, container: str) -> Iterator[Peer]:
    """A server on 127.0.0.1 with the empty container `container`; `log` takes its output.

    Raises:
        PrerequisiteMissingError: Node or the package could not be had.
        PeerError: it did not get ready.
    """
    program, port = installed(), free_port()
    command = [str(program), "--inMemoryPersistence", "--skipApiVersionCheck"]
    command += ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    with running(command, log, lambda: answers(port)):
        _make(container, port, log)
        yield Peer(port, VERSION)


def installed() -> Path:
    """The program, installed at the first call: some 20 seconds.

    Raises:
        PrerequisiteMissingError: as `azure_server`.
    """
    directory = HOME / "azurite" / VERSION
    program, complete = directory / "node_modules" / ".bin" / "azurite-blob", directory / "complete"
    with locked(HOME / "azurite.lock"):
        if complete.is_file():
            return program
        npm = shutil.which("npm")
        if npm is None:
            raise PrerequisiteMissingError(
                "no npm on the PATH, which Azurite comes from: apt-get install nodejs npm"
            )
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(directory)]
        try:
            subprocess.run(
                [*command, f"azurite@{VERSION}"],
                capture_output=True,
                text=True,
                check=True,
                timeout=_INSTALL_TIMEOUT_S,
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise PrerequisiteMissingError(f"npm cannot install Azurite: {error}") from error
        complete.touch()
    return program


def _make(container: str, port: int, log: Path) -> None:
    """Creates a container, in a request signed as the service's REST reference says."""
    at = f"/{ACCOUNT}/{container}"
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": _API_VERSION}
    named = "".join(f"{name}:{value}\n" for name, value in headers.items())
    # Empty, in this order: eleven standard headers of the request.
    text = "PUT\n" + "\n" * 11 + f"{named}/{ACCOUNT}{at}\nrestype:container"
    signed = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signed).decode()}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("PUT", f"{at}?restype=container", headers=headers)
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != http.client.CREATED:
        raise PeerError(f"Azurite made no container {container!r} (HTTP {status}): see {log}")
