"""One broker on one data directory: start, stop, kill, restart.

Contract: every call is idempotent and safe against other processes that call it on the same
directory at the same time. Ports and handle stand in `state.json` of the data directory, so a later
process finds the broker again, and a restart takes the same ports.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

from devservices.pulsar.engines import HOME, SUPPORT, Layout, choose, wait_gone
from devservices.pulsar.locks import locked

DEFAULT_DATA = HOME / "data"
DEFAULT_PORTS = (6650, 8080)
_PORTS = range(15_000, 30_000)
READY_TIMEOUT = 120.0
_PORT_FREE_WITHIN = 20.0
STOP_TIMEOUT = 20.0


class PulsarError(Exception):
    """The broker did not come up, or another program has its port."""


class PulsarProcess:
    """A Pulsar broker with its own bookie, listening on loopback only."""

    def __init__(
        self, data: Path | None = None, port: int | None = None, admin_port: int | None = None
    ) -> None:
        """Names the broker; nothing is started.

        Args:
            data: its directory; default `.devservices/pulsar/data` of the repository.
            port: binary port; default the one used before, else 6650, else a free one.
            admin_port: admin port; default the one used before, else 8080, else a free one.
        """
        self.data = (data or DEFAULT_DATA).resolve()
        self._wanted = (port, admin_port)

    @property
    def url(self) -> str:
        """The backend URL of the broker, without a namespace."""
        layout = self._layout()
        return f"pulsar://127.0.0.1:{layout.port}?admin={_admin(layout)}"

    @property
    def running(self) -> bool:
        """Whether the broker's process lives (it may not be ready yet)."""
        layout, handle = self._state()
        return layout is not None and bool(handle) and choose().alive(handle, layout)

    @property
    def handle(self) -> str:
        """What names the broker's present life; empty when it was stopped or never started."""
        return self._state()[1]

    @property
    def log(self) -> Path:
        """The broker's log file."""
        return self._layout().log

    def start(self) -> str:
        """Starts the broker if it does not run, waits until it is ready, returns its URL.

        Raises:
            PrerequisiteMissingError: neither Java and Maven nor docker are here.
            PulsarError: a port is taken, or the broker did not get ready.
        """
        with self._lock():
            layout, handle = self._state()
            engine = choose()
            if layout is None or not handle or not engine.alive(handle, layout):
                layout = self._prepare(layout)
                handle = engine.start(layout)
                self._save(layout, handle)
            self._wait_ready(layout, handle)
        return self.url

    def stop(self) -> None:
        """Ends the broker in good order; by force after 20 s."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill -9: nothing is flushed or told to anybody."""
        self._end(signal.SIGKILL)

    def wipe(self) -> None:
        """Kills the broker and removes its data."""
        self.kill()
        with self._lock():
            shutil.rmtree(self.data, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        with self._lock():
            layout, handle = self._state()
            if layout is None or not handle:
                return
            engine = choose()
            engine.signal(handle, layout, number)
            if not wait_gone(engine, handle, layout, STOP_TIMEOUT):
                engine.signal(handle, layout, signal.SIGKILL)
                wait_gone(engine, handle, layout, STOP_TIMEOUT)
            self._save(layout, "")

    def dump_threads(self) -> None:
        """Asks the JVM to write what each of its threads does into its log; does not wait."""
        layout, handle = self._state()
        if layout is not None and handle:
            choose().signal(handle, layout, signal.SIGQUIT)

    def _layout(self) -> Layout:
        layout, _ = self._state()
        if layout is None:
            raise PulsarError(f"no Pulsar was ever started on {self.data}: start it first")
        return layout

    def _lock(self) -> AbstractContextManager[None]:
        return locked(self.data.parent / f"{self.data.name}.lock")

    def _state(self) -> tuple[Layout | None, str]:
        try:
            state = json.loads((self.data / "state.json").read_text())
        except FileNotFoundError:
            return None, ""
        layout = Layout(self.data, state["port"], state["admin_port"], state["bookie_port"])
        return layout, state["handle"]

    def _save(self, layout: Layout, handle: str) -> None:
        state = {
            "port": layout.port,
            "admin_port": layout.admin_port,
            "bookie_port": layout.bookie_port,
            "handle": handle,
        }
        (self.data / "state.json").write_text(json.dumps(state) + "\n")

    def _prepare(self, old: Layout | None) -> Layout:
        """Decides the ports and writes the configuration."""
        before = (old.port, old.admin_port) if old else (None, None)
        port, admin_port = (
            _pick(wanted, kept, default)
            for wanted, kept, default in zip(self._wanted, before, DEFAULT_PORTS, strict=True)
        )
        self.data.mkdir(parents=True, exist_ok=True)
        layout = Layout(self.data, port, admin_port, old.bookie_port if old else _free_port())
        text = (SUPPORT / "standalone.conf").read_text()
        for key, value in (("brokerServicePort", port), ("webServicePort", admin_port)):
            text = re.sub(rf"(?m)^{key}=.*$", f"{key}={value}", text)
        layout.conf.write_text(text)
        return layout

    def _wait_ready(self, layout: Layout, handle: str) -> None:
        engine = choose()
        deadline = time.monotonic() + READY_TIMEOUT
        while not _healthy(layout):
            if not engine.alive(handle, layout):
                raise PulsarError(f"Pulsar ended while starting: see {layout.log}")
            if time.monotonic() > deadline:
                raise PulsarError(f"Pulsar not ready in {READY_TIMEOUT:.0f} s: see {layout.log}")
            time.sleep(0.1)


def _admin(layout: Layout) -> str:
    return f"http://127.0.0.1:{layout.admin_port}"


def _healthy(layout: Layout) -> bool:
    """Whether it can be used: it calls itself healthy before it has made its first namespace."""
    if _answer(layout, "brokers/health") != b"ok":
        return False
    return b'"public/default"' in _answer(layout, "namespaces/public")


def _answer(layout: Layout, path: str) -> bytes:
    """What the admin service says; nothing when it does not, or refuses."""
    try:
        url = f"{_admin(layout)}/admin/v2/{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback
            return bytes(answer.read())
    except (urllib.error.URLError, OSError):
        return b""


def _pick(wanted: int | None, kept: int | None, default: int) -> int:
    if wanted is None and kept is None:
        return default if _is_free(default) else _free_port()
    port = wanted or kept or default
    deadline = time.monotonic() + _PORT_FREE_WITHIN
    while kept and not _is_free(port) and time.monotonic() < deadline:
        time.sleep(0.1)  # a killed broker's sockets may outlive its process for a moment
    if not _is_free(port):
        raise PulsarError(
            f"port {port} is taken by another program: stop it, choose another port, or set "
            "WALPLANE_PULSAR_URL to use the Pulsar that runs there"
        )
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    """A port below those that the system lends to outgoing connections.

    The broker is killed and started again on its port; a lent one could be taken meanwhile.
    """
    while not _is_free(port := secrets.choice(_PORTS)):
        continue
    return port
