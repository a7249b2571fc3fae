"""Blocking calls of pulsar-client on threads: bounded in time, never forgotten. Layer: backends.

A call that outlives its caller cannot be stopped. So its result, should it come, is handed to
`abandon`, which lets go of it: nobody is left with a producer that no one knows of.

A thread that comes back from pulsar-client while the interpreter ends aborts the process; hence the
process waits at its end for the threads made here.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_EXIT_S = 5.0
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


async def offload(call: Callable[[], T], seconds: float, abandon: Callable[[T], object]) -> T:
    """Runs `call` on a thread of its own and returns what it returns.

    Args:
        call: blocks; may raise.
        seconds: how long to wait for it.
        abandon: is given a result that comes after the time or after a cancellation; runs on a
            thread; what it raises is dropped.

    Raises:
        TimeoutError: no answer in time.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def let_go(result: T) -> None:
        spawn("pulsar-abandon", lambda: abandon(result))

    def take(result: T | None, error: Exception | None) -> None:
        if error is not None:
            if not future.done():
                future.set_exception(error)
        elif future.done():
            let_go(result)  # type: ignore[arg-type]
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        failure: Exception | None = None
        try:
            result = call()
        except Exception as error:  # it belongs to the caller, whatever it is
            failure = error
        try:
            loop.call_soon_threadsafe(take, result, failure)
        except RuntimeError:  # the loop is closed: nobody waits any more
            if failure is None:
                let_go(result)  # type: ignore[arg-type]

    spawn("pulsar-call", run)
    try:
        async with asyncio.timeout(seconds):
            return await future
    except (asyncio.CancelledError, TimeoutError):
        if future.done() and not future.cancelled() and future.exception() is None:
            let_go(future.result())  # it came in the very moment of the cancellation
        raise


def spawn(name: str, run: Callable[[], object]) -> threading.Thread:
    """Runs `run` on a new thread; what it raises is dropped."""

    def quiet() -> None:
        try:
            run()
        except Exception:  # noqa: S110 - the caller is gone, or `run` has told it
            pass

    # a daemon: a call that hangs must not keep the process alive
    thread = threading.Thread(target=quiet, name=name, daemon=True)
    _threads.add(thread)
    thread.start()
    return thread


@atexit.register
def _outlive() -> None:
    deadline = time.monotonic() + _EXIT_S
    for thread in list(_threads):
        thread.join(max(0.0, deadline - time.monotonic()))
