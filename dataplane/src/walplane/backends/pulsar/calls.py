"""Calls of pulsar-client that answer on its own threads, awaited on the loop. Layer: backends.

Only the asynchronous calls of the extension module are used: a blocking one that is under way while
its client is closed never returns. An answer may therefore come late or not at all. A late one is
handed to `abandon`, which lets go of it: nobody is left with a producer that no one knows of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pulsar

Callback = Callable[..., None]
"""Takes (result) or (result, value); runs on the client's thread, where it must not raise."""


class CallFailedError(Exception):
    """The client's answer was not Ok; `result` is its name."""

    def __init__(self, result: str) -> None:
        """`result` is the name of a `pulsar.Result`."""
        super().__init__(result)
        self.result = result


class Calls:
    """The calls of one client that are under way."""

    def __init__(self) -> None:
        """None yet."""
        self._waiting: set[asyncio.Future[Any]] = set()

    async def answer(
        self, start: Callable[[Callback], None], seconds: float, abandon: Callable[[Any], object]
    ) -> Any:  # noqa: ANN401 - the extension module has no types
        """Starts a call and returns the value it answers with.

        Args:
            start: is given the callback to pass on.
            seconds: how long to wait.
            abandon: is given a value that comes after the time or a cancellation; must not block.

        Raises:
            CallFailedError: the answer was not Ok, none came in time (Timeout), or the client was
                closed meanwhile (AlreadyClosed).
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def take(result: str, value: Any) -> None:  # noqa: ANN401
            if result != pulsar.Result.Ok.name:
                _fail(future, result)
            elif future.done():
                abandon(value)
            else:
                future.set_result(value)

        def answered(result: Any, value: Any = None) -> None:  # noqa: ANN401
            try:
                loop.call_soon_threadsafe(take, result.name, value)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

        self._waiting.add(future)
        try:
            async with asyncio.timeout(seconds):
                start(answered)
                return await future
        except BaseException as error:
            if future.done() and not future.cancelled() and future.exception() is None:
                abandon(future.result())  # it came in the very moment of the cancellation
            if isinstance(error, TimeoutError):
                raise CallFailedError(pulsar.Result.Timeout.name) from error
            raise
        finally:
            self._waiting.discard(future)

    def close(self) -> None:
        """Ends every wait with AlreadyClosed."""
        for future in self._waiting:
            _fail(future, pulsar.Result.AlreadyClosed.name)


def _fail(future: asyncio.Future[Any], result: str) -> None:
    if not future.done():
        future.set_exception(CallFailedError(result))
