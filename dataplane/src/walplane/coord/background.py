"""Tasks that run beside something and end with it; one that ends before is told. Layer: coord."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from walplane.rpc.errors import ErrorCode, WalError

_log = structlog.get_logger(__name__)


class Background:
    """Owns tasks that should run until `stop`.

    Args:
        on_crash: told why when a task fails or is cancelled, before the others are stopped.
    """

    def __init__(self, on_crash: Callable[[WalError], None]) -> None:
        """Starts with no tasks."""
        self._on_crash = on_crash
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def start(self, name: str, job: Coroutine[Any, Any, None]) -> None:
        """Runs `job` as a task."""
        task = asyncio.create_task(job, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Cancels every task and waits for its end."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = self._cut_off(task) if task.cancelled() else task.exception()
        if error is None:
            return
        if isinstance(error, WalError):
            _log.error("a task of the coordinator ended", task=task.get_name(), error=str(error))
            self._on_crash(error)
        else:
            _log.error("a task of the coordinator crashed", task=task.get_name(), exc_info=error)
            self._on_crash(
                WalError(ErrorCode.INNER, f"{task.get_name()} crashed: {error!r}; restart it")
            )

    def _cut_off(self, task: asyncio.Task[None]) -> WalError | None:
        """Why a task counts as crashed that was cancelled; None when that is what was asked for."""
        if self._stopping:
            return None
        return WalError(ErrorCode.INNER, f"{task.get_name()} was cut off; restart it")
