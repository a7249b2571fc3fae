"""A deterministic asyncio event loop with virtual time. Layer: testkit.

Contract: nothing waits for real; when nothing is ready, time jumps to the next timer. What would
leave the simulation (a thread, a socket, `time.sleep`) fails loudly, and so does a run that makes
no progress. Callbacks run in the order in which they became ready, which asyncio promises and the
product relies on; timers due at about the same time fire in an order drawn from the seed. Futures
and tasks hash by number, so that sets of them iterate the same in every run.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any, NoReturn, TypeVar, TypeVarTuple
from unittest import mock

from walplane.testkit.sim.process import PROCESS

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")

_TIMER_JITTER_S = 50e-6  # timers are late by up to this much
_CHECK_EVERY = 4096  # steps between looks at the clock below

_cpu_s = time.process_time  # a machine that others use as well fails no seed


class SimulationError(Exception):
    """The simulation itself cannot go on: it left its world, or it stands still."""


def _number_of(awaitable: SimFuture | SimTask) -> int:
    """Its number; it takes the next one when it is asked for the first time."""
    try:
        return awaitable._number
    except AttributeError:
        loop: SimLoop = awaitable.get_loop()  # type: ignore[assignment]
        awaitable._number = next(loop.numbers)
        return awaitable._number


class SimFuture(asyncio.Future[Any]):
    """A future whose hash is its number."""

    __slots__ = ("_number",)
    _number: int
    __hash__ = _number_of


class SimTask(asyncio.Task[Any]):
    """A task whose hash is its number."""

    __slots__ = ("_number",)
    _number: int
    __hash__ = _number_of


class SimHandle(asyncio.TimerHandle):
    """A callback, at once or later, without what asyncio keeps for its debug mode."""

    __slots__ = ()
    _repr = _source_traceback = None

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: Sequence[Any],
        loop: SimLoop,
        context: Context | None,
    ) -> None:
        """As asyncio's own, which asks the loop for its mode and looks for a traceback."""
        self._when = when
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        """It is passed over when it comes up."""
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]


class SimLoop(asyncio.BaseEventLoop):
    """Use `run`.

    Attributes:
        steps: callbacks run so far.
        failures: what nobody caught: (message, exception).
        numbers: of futures and tasks.

    Args:
        seed: order of timers that are due together.
        max_steps: a run that takes more stands still.
        max_cpu_s: the same, of a processor's time.
    """

    def __init__(self, seed: int, *, max_steps: int = 3_000_000, max_cpu_s: float = 60.0) -> None:
        """At time zero."""
        super().__init__()
        self.steps = 0
        self.failures: list[tuple[str, BaseException | None]] = []
        self.numbers = itertools.count()
        self._now = 0.0
        self._jitter = random.Random(seed).random  # noqa: S311 - reproducible, not secret
        self._max_steps = max_steps
        self._deadline = _cpu_s() + max_cpu_s
        self._order = itertools.count()
        self._timers: list[tuple[float, int, SimHandle]] = []
        self._ready: deque[SimHandle] = deque()
        self._over = False
        self.set_exception_handler(lambda loop, context: self._note_failure(context))

    def run(self, main: Coroutine[Any, Any, _T]) -> _T:
        """Runs `main` to its end; whatever else is under way then never goes on.

        Raises:
            SimulationError: nothing can happen any more, or too much does.
        """
        with _no_real_time(), _no_list_of_tasks():
            try:
                return self.run_until_complete(main)
            finally:
                self._over = True
                self._ready.clear()
                self._timers.clear()

    # --- what asyncio calls ----------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    get_debug = bool  # False, without a frame of Python: every future asks for it

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See asyncio; fires up to 50 µs late."""
        timer = SimHandle(when, callback, args, self, context)
        if not self._over:
            due = when + self._jitter() * _TIMER_JITTER_S
            heapq.heappush(self._timers, (due, next(self._order), timer))
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As `call_at`, seconds from now; written out, since nearly all timers are set here."""
        when = self._now + delay
        timer = SimHandle(when, callback, args, self, context)
        if not self._over:
            due = when + self._jitter() * _TIMER_JITTER_S
            heapq.heappush(self._timers, (due, next(self._order), timer))
        return timer

    def call_soon_threadsafe(
        self,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """As `call_soon`; from another thread it fails, since there must be none."""
        if self._thread_id is not None and threading.get_ident() != self._thread_id:  # type: ignore[attr-defined]
            raise SimulationError(f"{callback!r} came from another thread")
        return self.call_soon(callback, *args, context=context)

    def create_future(self) -> SimFuture:
        """A future that hashes by its number."""
        return SimFuture(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[_T]:
        """A task that hashes by its number."""
        return SimTask(coro, loop=self, name=name, context=context)  # type: ignore[arg-type]

    def _asyncgen_firstiter_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """Nobody closes what is left of them: it never goes on."""

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:  # type: ignore[override]  # noqa: ANN401
        """Fails: there are no threads here."""
        raise SimulationError(f"{func!r} would block on a thread")

    def _run_once(self) -> None:
        """Runs until somebody calls `stop`: asyncio asks after each call."""
        timers, ready, process_of = self._timers, self._ready, PROCESS
        while not self._stopping:  # type: ignore[attr-defined]
            if not ready:
                self._jump()
            now = self._now
            while timers and timers[0][0] <= now:
                ready.append(heapq.heappop(timers)[2])
            for _ in range(len(ready)):
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                context = handle._context
                process = context.get(process_of)
                if process is not None and process.hindered and not process.takes(handle):
                    continue  # the process keeps it, so that nothing is freed in the middle
                self.steps += 1
                try:  # as Handle._run, which costs a call more
                    context.run(handle._callback, *handle._args)
                except Exception as error:
                    self._note_failure({"message": f"{handle!r} failed", "exception": error})
            if self.steps % _CHECK_EVERY < 8:
                self._check_progress()

    def _jump(self) -> None:
        """Time goes on to the next timer."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        if not timers:
            raise SimulationError("everything waits and nothing will ever happen")
        self._now = max(self._now, timers[0][0])

    def _check_progress(self) -> None:
        if self.steps > self._max_steps:
            raise SimulationError(f"{self.steps} steps by {self._now:.1f} s: something spins")
        if _cpu_s() > self._deadline:
            raise SimulationError(f"too slow: {self.steps} steps by {self._now:.1f} s")

    def call_soon(
        self,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """See asyncio."""
        handle = SimHandle(0.0, callback, args, self, context)
        if not self._over:
            self._ready.append(handle)
        return handle

    def resume(self, handles: list[SimHandle]) -> None:
        """Lets run what a process was kept from while it was stopped."""
        self._ready.extend(handles)

    def _note_failure(self, context: dict[str, Any]) -> None:
        if not self._over:
            self.failures.append((str(context["message"]), context.get("exception")))


def _sleeps(_seconds: float) -> NoReturn:
    raise SimulationError("time.sleep blocks the loop")


@contextmanager
def _no_list_of_tasks() -> Iterator[None]:
    """Keeps tasks out of asyncio's set of all: nobody asks for it, and it costs like a step."""
    everything: Any = asyncio.tasks._all_tasks  # type: ignore[attr-defined]
    everything.add = id  # takes one and does nothing
    try:
        yield
    finally:
        del everything.add


@contextmanager
def _no_real_time() -> Iterator[None]:
    with mock.patch("time.sleep", _sleeps):
        yield
