"""Futures that are heard at once, and tasks that begin and go on at once.

Contract: what a `PromptFuture` tells its listeners happens in the step that completes it; a
`PromptTask` takes its first step when it is made, and the next ones in the steps that complete the
prompt futures it awaits. Both are futures of asyncio for everybody else. A listener must not begin
anew what its future was completed in: locks, budgets and signals are plain futures for that reason.

Each turn of the loop that this saves costs a lone append some 40 us: the loop, a poll of its
sockets, and code that has left the processor's caches while the backend wrote. Layer: lowest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

_T = TypeVar("_T")


class PromptFuture(asyncio.Future[_T]):
    """A future that tells its listeners in the step that completes it.

    Whoever completes it goes on when all of them have returned. Who awaits it or adds a callback
    hears of it in the loop's next turn, as with any future.
    """

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        """Of the running loop; not done, and nobody listens."""
        super().__init__(loop=asyncio.get_running_loop())
        self._listeners: list[Callable[[PromptFuture[_T]], object]] = []

    def listen(self, listener: Callable[[PromptFuture[_T]], object]) -> None:
        """Calls `listener` with this future once it is done; never before this returns."""
        if self.done():
            self.get_loop().call_soon(listener, self)
        else:
            self._listeners.append(listener)

    def set_result(self, result: _T) -> None:
        """See asyncio."""
        super().set_result(result)
        self._tell()

    def set_exception(self, exception: type[BaseException] | BaseException) -> None:
        """See asyncio."""
        super().set_exception(exception)
        self._tell()

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ANN401 - as asyncio has it
        """See asyncio."""
        cancelled = super().cancel(msg)
        if cancelled:
            self._tell()
        return cancelled

    def _tell(self) -> None:
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            try:
                listener(self)
            except Exception as error:  # whoever completed it has nothing to do with this
                self.get_loop().call_exception_handler(
                    {"message": f"{listener!r} failed", "exception": error, "future": self}
                )


def when_done(future: asyncio.Future[_T], listener: Callable[[asyncio.Future[_T]], object]) -> None:
    """Calls `listener` with `future` once it is done: at once if it is prompt; never in this."""
    if isinstance(future, PromptFuture):
        future.listen(listener)
    else:
        future.add_done_callback(listener)


class PromptTask(PromptFuture[_T]):
    """Runs a coroutine as a task does, without waiting for the loop where that can be helped.

    It is the current task while it runs, in a copy of its maker's context: whatever runs in a task
    runs in it, `asyncio.timeout` as well as what libraries do to the task they find. anyio, and
    httpx with it, looks into a task for two things that asyncio gives no public name to; they have
    asyncio's names here.
    """

    __slots__ = (
        "_context",
        "_coroutine",
        "_fut_waiter",
        "_go_on_later",
        "_must_cancel",
        "_name",
        "_requests",
    )

    def __init__(self, coroutine: Coroutine[Any, Any, _T]) -> None:
        """Runs `coroutine` up to where it waits first."""
        super().__init__()
        self._coroutine = coroutine
        self._context = copy_context()
        self._name = ""
        self._fut_waiter: asyncio.Future[Any] | None = None
        self._must_cancel = self._go_on_later = False
        self._requests = 0
        self._step()

    def get_coro(self) -> Coroutine[Any, Any, _T]:
        """See asyncio."""
        return self._coroutine

    def get_context(self) -> Context:
        """See asyncio."""
        return self._context

    def get_name(self) -> str:
        """See asyncio; made of the coroutine's until it is set."""
        return self._name or f"Prompt-{getattr(self._coroutine, '__qualname__', 'task')}"

    def set_name(self, value: object) -> None:
        """See asyncio."""
        self._name = str(value)

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ANN401 - as asyncio has it
        """Raises CancelledError where the coroutine waits, later; False once it is done.

        Later, as with any task: what cancels it may have something to note first, as
        `asyncio.timeout` has.
        """
        if self.done():
            return False
        self._requests += 1
        self._go_on_later = True
        if self._fut_waiter is None or not self._fut_waiter.cancel(msg):
            self._must_cancel = True
            self._cancel_message = msg  # which tells some libraries that it is a request of theirs
        self._go_on_later = False
        return True

    def cancelling(self) -> int:
        """Requests to cancel it that nobody took back."""
        return self._requests

    def uncancel(self) -> int:
        """Takes one request back; how many are left."""
        self._requests = max(self._requests - 1, 0)
        return self._requests

    def _step(self, _heard: object = None) -> None:
        if self._go_on_later:
            self.get_loop().call_soon(self._step)
            return
        self._fut_waiter = None
        try:
            awaited = self._run()
            if awaited is not None and (awaited is self or not asyncio.isfuture(awaited)):
                self._coroutine.close()
                raise RuntimeError(f"a prompt task cannot wait for {awaited!r}")  # noqa: TRY301
        except StopIteration as end:
            super().set_result(end.value)
        except asyncio.CancelledError as error:
            super().cancel(*error.args[:1])
        except BaseException as error:
            super().set_exception(error)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        else:
            self._wait_for(awaited)

    def _run(self) -> Any:  # noqa: ANN401 - a future, or None
        """Goes on with the coroutine, as the current task; what it waits for next."""
        loop = self.get_loop()
        outer = asyncio.current_task(loop)
        if outer is not None:
            asyncio.tasks._leave_task(loop, outer)
        asyncio.tasks._enter_task(loop, self)  # type: ignore[arg-type]  # as one
        try:
            if self._must_cancel:
                self._must_cancel = False
                error = self._make_cancelled_error()  # type: ignore[attr-defined]  # as tasks do
                return self._context.run(self._coroutine.throw, error)
            return self._context.run(self._coroutine.send, None)
        finally:
            asyncio.tasks._leave_task(loop, self)  # type: ignore[arg-type]
            if outer is not None:
                asyncio.tasks._enter_task(loop, outer)

    def _wait_for(self, awaited: asyncio.Future[Any] | None) -> None:
        if awaited is None:  # a bare yield, as of `asyncio.sleep(0)`
            self.get_loop().call_soon(self._step)
            return
        awaited._asyncio_future_blocking = False  # the contract between futures and tasks
        self._fut_waiter = awaited
        when_done(awaited, self._step)
        if self._must_cancel:
            self._must_cancel = False  # first: this may go on with the coroutine at once
            self._must_cancel = not awaited.cancel(self._cancel_message) or self._must_cancel
