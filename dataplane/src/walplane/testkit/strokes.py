"""What is done to a standalone process under load. Layer: testkit.

Contract: a stroke returns when the server is ready again, with the seconds that took from the
moment it was hurt, or from the end of what hurt it.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from walplane.testkit.chaos_load import ChaosLoad
from walplane.testkit.standalone import StandaloneProcess

_DIES_WITHIN_S = 120.0


class Stroke(Protocol):
    """One way to hurt a server."""

    @property
    def name(self) -> str:
        """For reports."""
        ...

    async def hit(self, server: StandaloneProcess, load: ChaosLoad) -> float:
        """Hurts it and has it serve again; seconds until it was ready."""
        ...


@dataclass(frozen=True)
class Kill:
    """SIGKILL while appends are in flight; `idle`: while none is."""

    idle: bool = False

    @property
    def name(self) -> str:
        """For reports."""
        return "kill while idle" if self.idle else "kill"

    async def hit(self, server: StandaloneProcess, load: ChaosLoad) -> float:
        """See `Stroke`."""
        if self.idle:
            await load.pause()
        killed = time.monotonic()
        await server.kill()
        await server.start()
        recovered = time.monotonic() - killed
        if self.idle:
            load.go_on(killed)
        return recovered


@dataclass(frozen=True)
class FailPoint:
    """The server kills itself when it reaches a named point for the `count`-th time."""

    point: str
    count: int

    @property
    def name(self) -> str:
        """For reports."""
        return f"kill {self.point}, time {self.count}"

    async def hit(self, server: StandaloneProcess, load: ChaosLoad) -> float:
        """See `Stroke`; it is started anew to be given the point, which is no part of the time."""
        await server.kill()
        await server.spawn(failpoint=f"{self.point}:{self.count}")
        async with asyncio.timeout(_DIES_WITHIN_S):
            if self.point != "mid-open":
                await server.ready()
                load.count_gaps()
            await server.ended()
        died = time.monotonic()
        await server.start()
        return time.monotonic() - died


@dataclass(frozen=True)
class Stop:
    """SIGSTOP for some seconds, then SIGCONT."""

    seconds: float

    @property
    def name(self) -> str:
        """For reports."""
        return f"stop for {self.seconds:g} s"

    async def hit(self, server: StandaloneProcess, load: ChaosLoad) -> float:
        """See `Stroke`."""
        server.send(signal.SIGSTOP)
        await asyncio.sleep(self.seconds)
        server.send(signal.SIGCONT)
        resumed = time.monotonic()
        await load.acknowledged_more(1)
        return time.monotonic() - resumed


@dataclass(frozen=True)
class Restart:
    """Something else, such as the backend, is killed and started again."""

    what: str
    restart: Callable[[], Awaitable[None]]

    @property
    def name(self) -> str:
        """For reports."""
        return f"restart of {self.what}"

    async def hit(self, server: StandaloneProcess, load: ChaosLoad) -> float:
        """See `Stroke`."""
        await self.restart()
        restarted = time.monotonic()
        await load.acknowledged_more(1)
        return time.monotonic() - restarted


def at_failpoints(times: int, seed: int) -> list[Stroke]:
    """Every named point so often, in an order of their own, each at a count of its own."""
    draw = random.Random(seed)  # noqa: S311 - choices of a test, to be repeated
    counts = {
        "mid-append": 2000,
        "written-not-acked": 2000,
        "mid-open": 4,
        "mid-checkpoint": 4,
        "mid-truncate": 4,
    }
    strokes: list[Stroke] = [Kill(idle=True)] * times
    for point, most in counts.items():
        strokes += [FailPoint(point, draw.randint(1, most)) for _ in range(times)]
    draw.shuffle(strokes)
    return strokes
