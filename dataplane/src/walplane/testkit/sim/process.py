"""Processes of the simulation: which callback belongs to whom, and who may run. Layer: testkit.

Contract: a process is a context that its tasks and callbacks inherit. Killing it stops it between
two steps, for ever: no `finally` runs, nothing is said to anybody, as with kill -9. Stopping it
keeps its callbacks until it goes on, as SIGSTOP does.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any

from walplane.runtime import Runtime

if TYPE_CHECKING:
    from walplane.testkit.sim.loop import SimHandle, SimLoop

PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)
"""Whose callback runs; None is the world itself."""

_EPOCH_MS = 1_750_000_000_000


class State(enum.Enum):
    """What the machine does with a process."""

    RUNNING = enum.auto()
    STOPPED = enum.auto()
    DEAD = enum.auto()


class Process:
    """One incarnation of a program.

    Attributes:
        name: tells incarnations apart, such as `n1.2`.
        host: where it runs, such as `n1`: what partitions cut.
        context: of everything it runs.
        hindered: whether the loop has to ask `takes` before each step.
        skew_ms: how far its wall clock is off; may jump.
        stood_s: how long it was stopped so far, until it last went on.
        runtime: its clocks and randomness.
    """

    def __init__(self, loop: SimLoop, name: str, host: str, seed: int) -> None:
        """Runs nothing yet."""
        self.name = name
        self.host = host
        self.state = State.RUNNING
        self.hindered = False
        self.context = Context()
        self.context.run(PROCESS.set, self)
        self.skew_ms = 0
        self.stood_s = self._stopped_at = 0.0
        self.runtime = Runtime(
            lambda: _EPOCH_MS + self.skew_ms + int(loop.time() * 1000),
            loop.time,
            random.Random(seed),  # noqa: S311 - reproducible, not secret
        )
        self._loop = loop
        self._held: list[SimHandle] = []
        self._fuse = 0
        self._on_fuse: Callable[[], None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def alive(self) -> bool:
        """Whether it exists, stopped or not."""
        return self.state is not State.DEAD

    def start(self, work: Coroutine[Any, Any, Any], name: str = "main") -> asyncio.Task[Any]:
        """Runs `work` as a task of this process, which it keeps hold of."""
        task = self._loop.create_task(work, name=name, context=self.context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard, context=self.context)
        return task

    def soon(self, call: Callable[..., object], *args: object) -> None:
        """Runs `call` as a callback of this process."""
        self._loop.call_soon(call, *args, context=self.context)

    def takes(self, handle: SimHandle) -> bool:
        """Whether the loop is to run `handle` now; keeps it for later, or for nothing, if not."""
        if self._fuse:
            self._fuse -= 1
            if not self._fuse and self._on_fuse is not None:
                self._on_fuse()
        self.hindered = bool(self._fuse) or self.state is not State.RUNNING
        if self.state is State.RUNNING:
            return True
        self._held.append(handle)
        return False

    def burn(self, steps: int, then: Callable[[], None]) -> None:
        """Calls `then` just before the `steps`-th step from now."""
        self._fuse, self._on_fuse = steps, then
        self.hindered = True

    def stop(self) -> None:
        """SIGSTOP."""
        if self.state is State.RUNNING:
            self.state = State.STOPPED
            self.hindered = True
            self._stopped_at = self._loop.time()

    def resume(self) -> None:
        """SIGCONT."""
        if self.state is State.STOPPED:
            self.state = State.RUNNING
            self.stood_s += self._loop.time() - self._stopped_at
            held, self._held = self._held, []
            self._loop.resume(held)

    def kill(self) -> None:
        """SIGKILL."""
        self.state = State.DEAD
        self.hindered = True
