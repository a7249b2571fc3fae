"""What one WAL has under way. Layer: wal."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from walplane.prompt import when_done
from walplane.rpc.errors import ErrorCode, WalError

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")
_Task = TypeVar("_Task", bound=asyncio.Future[Any])


class Running:
    """Tasks that end by themselves, or all of them together."""

    def __init__(self) -> None:
        """None yet."""
        self._tasks: dict[asyncio.Future[Any], None] = {}  # in the order in which they began

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs `work` as a task."""
        return self.keep(asyncio.create_task(work))

    def keep(self, task: _Task) -> _Task:
        """Takes in a task that runs already."""
        self._tasks[task] = None
        when_done(task, self._ended)
        return task

    async def cancel(self) -> None:
        """Cancels all of them, and returns once they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        del self._tasks[task]


def failure_of(task: asyncio.Task[None], pchannel: str) -> WalError | None:
    """What a task of a log failed with, if it did; logged when nobody foresaw it."""
    error = None if task.cancelled() else task.exception()
    if error is None or isinstance(error, WalError):
        return error
    _log.error("failed", pchannel=pchannel, exc_info=error)
    return WalError(ErrorCode.INNER, f"{pchannel} failed here: {error!r}; see the log")


async def answer_of(append: asyncio.Future[_T], pchannel: str) -> _T:
    """What an append came to; cancelling the call does not take it back.

    Raises:
        WalError: ON_SHUTDOWN for one that its log cancelled, as the last of what it had under way.
            Bare, that cancellation would pass for the caller's own, and end the caller unnoticed.
    """
    try:
        return await asyncio.shield(append)
    except asyncio.CancelledError as error:
        caller = asyncio.current_task()
        if not append.cancelled() or (caller is not None and caller.cancelling()):
            raise
        raise WalError(
            ErrorCode.ON_SHUTDOWN, f"{pchannel} went away while this waited: ask discovery for it"
        ) from error
