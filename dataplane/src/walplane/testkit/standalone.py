"""A `walplane standalone` process under test: started, killed, restarted, stopped. Layer: testkit.

Contract: address and data directory stay the same over restarts; standard error is appended to one
log file. Only the process started here is ever signalled.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
_LOG_TAIL_BYTES = 2000


class StandaloneProcess:
    """One cluster in one process.

    Attributes:
        data: its directory.
        address: host:port it listens on.
        log: file with everything it wrote to standard error.
    """

    def __init__(
        self,
        data: Path,
        *,
        pchannels: int = 4,
        backend: str = "rocksdb",
        port: int | None = None,
        prefix: str = "wal",
        segments: Path | str | None = None,
    ) -> None:
        """Nothing is started; `port` is a free one, and segments go nowhere, unless given.

        `prefix` is that of the PChannels: those who share a backend have one each.
        """
        self.data = data
        self.address = f"127.0.0.1:{port or free_port()}"
        self.log = data.with_name(f"{data.name}.log")
        self._options = ["--pchannels", str(pchannels), "--backend", backend]
        self._options += ["--prefix", prefix]
        if segments is not None:
            self._options += ["--segment-store", str(segments)]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> float:
        """Starts the process; returns once it is ready, with the seconds that took.

        Raises:
            RuntimeError: it ended, or was not ready in time.
        """
        began = time.monotonic()
        await self.spawn()
        await self.ready()
        return time.monotonic() - began

    async def spawn(self, failpoint: str = "") -> None:
        """Starts the process; `failpoint` says where it is to kill itself (`cli.failpoints`)."""
        command = ["standalone", "--data", str(self.data), "--listen", self.address]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "walplane", *command, *self._options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=dict(os.environ, PYTHONUNBUFFERED="1", WALPLANE_FAILPOINT=failpoint),
            )

    async def ready(self) -> None:
        """Waits until it serves.

        Raises:
            RuntimeError: it ended, or was not ready in time.
        """
        if self._process is None or self._process.stdout is None:
            raise RuntimeError("walplane standalone was not started")
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line.startswith(b"ready"):
            await self.kill()
            raise RuntimeError(f"walplane standalone is not ready: {self.log_tail()}")

    @property
    def pid(self) -> int:
        """Of the running process."""
        if self._process is None:
            raise RuntimeError("walplane standalone was not started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.returncode is None

    async def ended(self) -> None:
        """Waits until it has ended by itself."""
        if self._process is not None:
            await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL: it gets no chance to do anything; returns when it is gone."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to drain; returns its exit code.

        Raises:
            TimeoutError: it did not end within `STOP_TIMEOUT_S`; it is killed then.
        """
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                return await self._process.wait()
        finally:
            await self.kill()

    def log_tail(self) -> str:
        """The end of what it wrote to standard error."""
        if not self.log.exists():
            return "no log"
        return self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def loopbacks() -> list[str]:
    """This machine's own addresses, as they stand in a URL: IPv4, and IPv6 where it is on."""
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return ["127.0.0.1"]
    return ["127.0.0.1", "[::1]"]
