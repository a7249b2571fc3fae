"""One server process of another system: started, waited for, ended with all its children."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_POLL_S = 0.05
_STOP_TIMEOUT_S = 20.0

HOME = Path(__file__).resolve().parents[2] / ".devservices"
"""What is fetched stays below it."""


class PeerError(Exception):
    """The server did not get ready."""


@dataclass(frozen=True)
class Peer:
    """A running server.

    Attributes:
        port: where it listens on 127.0.0.1.
        version: its own word.
        python: interpreter that has its client; None where it is a package like others.
    """

    port: int
    version: str
    python: str | None = None


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    ready: Callable[[], bool],
    *,
    timeout_s: float = 60.0,
    environment: Mapping[str, str] | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[None]:
    """Runs `command` in a session of its own until the context ends.

    Args:
        command: the server.
        log: takes its output.
        ready: whether it can be used; asked again and again.
        timeout_s: how long it may take to get ready.
        environment: added to this process's own.
        stop: how it is asked to end; by force after 20 s.

    Raises:
        PeerError: it ended, or was not ready in time.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        _wait(process, command[0], log, ready, timeout_s)
        yield
    finally:
        _end(process, stop)


def answers(port: int) -> bool:
    """Whether anybody accepts connections on 127.0.0.1:`port`."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(
    process: subprocess.Popen[bytes],
    name: str,
    log: Path,
    ready: Callable[[], bool],
    timeout_s: float,
) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None:
            raise PeerError(f"{name} ended while starting: see {log}")
        if time.monotonic() > deadline:
            raise PeerError(f"{name} not ready in {timeout_s:.0f} s: see {log}")
        time.sleep(_POLL_S)


def _end(process: subprocess.Popen[bytes], stop: signal.Signals) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.send_signal(stop)
        process.wait(_STOP_TIMEOUT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its session: what it may have left behind too
    process.wait()
