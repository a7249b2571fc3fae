"""A queue of keys: each once, one worker a key, its own backoff. Layer: handlers.

Contract: a key that is poked while it waits is worked on once; one that is poked while it is worked
on is worked on again. A key that fails waits longer each time and holds up no other; pokes do not
shorten that wait. Two runs of one key are at least `pause_s` apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

_log = structlog.get_logger(__name__)

Key = TypeVar("Key", bound=Hashable)

_BACKOFF_S = (0.5, 30.0)


@dataclass
class _State:
    due: float | None = None
    running: bool = False
    failures: int = 0
    not_before: float = 0.0


class WorkQueue(Generic[Key]):
    """Runs `work(key)`; what that returns is when to look again, seconds, or None."""

    def __init__(
        self, work: Callable[[Key], Awaitable[float | None]], workers: int, pause_s: float = 0.1
    ) -> None:
        """Starts nothing; see `run`."""
        self._work = work
        self._workers = workers
        self._pause_s = pause_s
        self._states: dict[Key, _State] = {}
        self._news = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Keys that wait."""
        return sum(state.due is not None for state in self._states.values())

    def poke(self, key: Key, delay_s: float = 0.0) -> None:
        """`key` is to be worked on, in `delay_s` at the latest."""
        state = self._states.setdefault(key, _State())
        due = asyncio.get_running_loop().time() + delay_s
        if state.due is None or due < state.due:
            state.due = due
            self._news.set()

    async def run(self) -> None:
        """Works until cancelled."""
        limit = asyncio.Semaphore(self._workers)
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._news.clear()
                await limit.acquire()
                key, wait = self._next()
                if key is not None:
                    self._begin(key)
                    tasks.create_task(self._one(key, limit))
                    continue
                limit.release()
                try:
                    async with asyncio.timeout(wait):
                        await self._news.wait()
                except TimeoutError:
                    continue

    def _next(self) -> tuple[Key | None, float | None]:
        """A key that is due, or how long until there is one."""
        now = asyncio.get_running_loop().time()
        soonest: float | None = None
        for key, state in self._states.items():
            if state.due is None or state.running:
                continue
            due = max(state.due, state.not_before)
            if due <= now:
                return key, None
            soonest = due if soonest is None else min(soonest, due)
        return None, None if soonest is None else soonest - now

    def _begin(self, key: Key) -> None:
        state = self._states[key]
        state.due, state.running = None, True

    async def _one(self, key: Key, limit: asyncio.Semaphore) -> None:
        state = self._states[key]
        try:
            again = await self._work(key)
            state.failures, pause = 0, self._pause_s
        except Exception:
            first, most = _BACKOFF_S
            pause = again = min(most, first * 2.0 ** min(state.failures, 10))
            state.failures += 1
            _log.warning("failed", key=key, failures=state.failures, retry_s=again, exc_info=True)
        finally:
            limit.release()
            state.running = False
            self._news.set()
        state.not_before = asyncio.get_running_loop().time() + pause
        if again is not None:
            self.poke(key, again)
        elif state.due is None:
            del self._states[key]
