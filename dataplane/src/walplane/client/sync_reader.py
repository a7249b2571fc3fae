"""A `Reader` for programs without an event loop. Layer: client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent import futures
from contextlib import suppress
from types import TracebackType
from typing import Any

from walplane.client.blocking import Blocking, Wait
from walplane.client.reader import Reader
from walplane.message.ids import ResumeToken
from walplane.message.txn_view import AnyBatch
from walplane.message.view import ImmutableMessage
from walplane.rpc.errors import WalError

Submit = Callable[[Coroutine[Any, Any, None]], "futures.Future[None]"]
"""Starts a coroutine on the client's loop, and waits for nothing."""

Tell = Callable[[], Coroutine[Any, Any, None]]
"""Raises what ended the client, if a read came to its end for that."""


class SyncReader(Blocking[Reader]):
    """Made by `SyncStreamingClient.reader`; a context manager and an iterable of messages.

    As with a `Reader`, an iteration that a `break` has left is gone on with by the next one, and
    two at once are refused, also in two threads.
    """

    def __init__(self, inner: Reader, wait: Wait, submit: Submit, tell: Tell) -> None:
        """Use `SyncStreamingClient.reader`."""
        super().__init__(inner, wait)
        self._submit = submit
        self._tell = tell
        self._iteration = 0  # number of the latest; those before it are over
        self._left: Iterator[ImmutableMessage] = iter(())  # of the batch that is handed out
        self._ending: futures.Future[None] | None = None  # the iteration before

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes it."""
        self.close()

    @property
    def token(self) -> ResumeToken | None:
        """As `Reader.token`."""
        self._wait_for_end()
        return self._inner.token

    @property
    def watermark(self) -> int:
        """As `Reader.watermark`."""
        return self._inner.watermark

    @property
    def held_bytes(self) -> int:
        """As `Reader.held_bytes`."""
        return self._inner.held_bytes

    def close(self) -> None:
        """As `Reader.close`; ends a read under way in another thread too."""
        self._left = iter(())
        with suppress(WalError):  # the client is closed: the read has ended with it
            self._wait(self._inner.close())

    def __iter__(self) -> Iterator[ImmutableMessage]:
        """The messages, one by one; as iterating a `Reader`."""
        iteration = self._begin()
        for message in self._left:
            yield message
            self._check(iteration)
        for batch in self.batches():
            self._left, iteration = iter(batch), self._iteration
            for message in self._left:
                yield message
                self._check(iteration)

    def batches(self) -> Iterator[AnyBatch]:
        """As `Reader.batches`; Ctrl-C while it waits loses nothing, and ends the iteration."""
        self._begin()
        self._left = iter(())
        pulled = _Pulled(self._inner)
        self._wait_for_end()
        try:
            while (batch := self._wait(pulled.next())) is not None:
                pulled.given = None  # taken: no call in between, or Ctrl-C might come there
                yield batch
            self._wait(self._tell())
        finally:
            self._release(pulled)

    def _begin(self) -> int:
        self._iteration += 1
        return self._iteration

    def _check(self, iteration: int) -> None:
        if self._iteration != iteration:
            raise self._inner._two_at_once()

    def _wait_for_end(self) -> None:
        """Returns once the iteration before has ended, and what it gave in vain is given back."""
        if self._ending is not None and not self._ending.done():
            with suppress(WalError):  # closed: it has ended with the client
                self._wait(_ended(self._ending))

    def _release(self, pulled: _Pulled) -> None:
        """Has an iteration ended, and waits for nothing.

        The garbage collector may come here, on whatever thread it runs: also on the loop's own.
        """
        with suppress(WalError):  # closed: the read has ended with it
            self._ending = self._submit(pulled.close())


class _Pulled:
    """One iteration, on the loop: what was interrupted there has ended before it is closed.

    Attributes:
        given: the latest batch, until the caller's thread has taken it, and says so.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._batches = reader.batches()
        self._turn = asyncio.Lock()
        self.given: AnyBatch | None = None

    async def next(self) -> AnyBatch | None:
        async with self._turn:
            self.given = await anext(self._batches, None)
            return self.given

    async def close(self) -> None:
        try:
            async with self._turn:
                closing = getattr(self._batches, "aclose", None)
                if closing is not None:
                    await closing()
        finally:
            if self.given is not None:
                self._reader._give_back(self.given)


async def _ended(ending: futures.Future[None]) -> None:
    wrapped = asyncio.wrap_future(ending)
    await asyncio.wait([wrapped])
    wrapped.cancelled() or wrapped.exception()  # whoever begins anew does not ask for it
