"""A block that ends when something else does. Layer: embedded."""

from __future__ import annotations

import asyncio
from types import TracebackType

from walplane.rpc.errors import WalError


class Until:
    """Cancels its block once `ended` is done, and raises the error that it holds.

    As `asyncio.timeout` does it: the request to cancel is taken back when the block is left, and
    somebody else's request goes on as such. A block that swallows the cancellation, or was left in
    the same turn of the loop, raises the error too; one that raises another error raises that.
    """

    def __init__(self, ended: asyncio.Future[WalError]) -> None:
        """Nothing is cancelled outside the block."""
        self._ended = ended
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._fired = False

    async def __aenter__(self) -> None:
        """Begins to listen.

        Raises:
            RuntimeError: outside a task.
        """
        task = self._task = asyncio.current_task()
        if task is None:
            raise RuntimeError("such a block lies in a task")
        self._cancelling = task.cancelling()
        self._ended.add_done_callback(self._end)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Raises what `ended` says, if that is why the block was left."""
        task, self._task = self._task, None
        self._ended.remove_done_callback(self._end)
        mine = self._fired and task is not None and task.uncancel() <= self._cancelling
        if error is None:
            if self._ended.done():
                raise self._ended.result()
        elif mine and isinstance(error, asyncio.CancelledError):
            raise self._ended.result() from error

    def _end(self, _: asyncio.Future[WalError]) -> None:
        if self._task is not None:
            self._fired = True
            self._task.cancel()
