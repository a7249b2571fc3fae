"""The thread that reads one topic, and the buffer between it and the loop. Layer: backends.

pulsar-client's `read_next` blocks, so a thread calls it. The buffer is bounded in bytes, and the
loop is woken once for a group of records, not for each.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import pulsar

from walplane.backends.interface import Record
from walplane.backends.pulsar.failures import call_failure
from walplane.rpc.errors import WalError

_BUFFER_BYTES = 8 * 1024 * 1024
_GROUP = 256
_GROUP_BYTES = 1024 * 1024
_POLL_MS = 500
_AWAY_S = 10.0
_EXIT_S = 2.0

_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


@atexit.register
def _join() -> None:
    """A thread that comes back from the client while the interpreter ends would abort it."""
    deadline = time.monotonic() + _EXIT_S
    for thread in list(_threads):
        thread.join(max(0.0, deadline - time.monotonic()))


class Pump:
    """Reads ahead from one reader.

    Attributes:
        error: why the thread ended by itself, once it has.
    """

    def __init__(self, topic: str, reader: Any) -> None:  # noqa: ANN401 - no types
        """Starts to read at once; `reader` is the caller's to close."""
        self._topic = topic
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._space = threading.Condition()
        self._records: deque[Record] = deque()
        self._bytes = 0
        self._closed = False
        self._waiting = False
        self._arrived = asyncio.Event()
        self.error: WalError | None = None
        self._ended = asyncio.Event()
        thread = threading.Thread(target=self._run, name=f"read-{topic}", daemon=True)
        _threads.add(thread)
        thread.start()

    async def wait(self) -> None:
        """Returns once there is a record, an error, or the end."""
        while True:
            self._arrived.clear()
            self._waiting = True  # before the look: what arrives from now on sets the event
            if self._records or self.error is not None or self._closed:
                self._waiting = False
                return
            await self._arrived.wait()

    def peek(self, most_bytes: int) -> list[Record]:
        """What is there, not yet taken: the first, and what follows up to `most_bytes` in all."""
        found: list[Record] = []
        with self._space:
            for record in self._records:
                most_bytes -= len(record.data)
                if found and most_bytes < 0:
                    break
                found.append(record)
        return found

    def drop(self, count: int) -> None:
        """Takes the first `count` records out."""
        with self._space:
            for _ in range(count):
                self._bytes -= len(self._records.popleft().data)
            self._space.notify()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    async def close(self) -> None:
        """Ends the thread, at once when its reader is closed, else within half a second."""
        with self._space:
            self._closed = True
            self._space.notify()
        self._arrived.set()
        await self._ended.wait()

    def _run(self) -> None:
        try:
            self._read()
        except pulsar.PulsarException as error:
            self.error = call_failure(f"reading topic {self._topic}", type(error).__name__)
        except Exception as error:  # the client's C++ throws others too, and a thread tells nobody
            self.error = call_failure(f"reading topic {self._topic}", repr(error))
        finally:
            self._call(self._arrived.set)
            self._call(self._ended.set)

    def _read(self) -> None:
        away_since: float | None = None
        while self._goes_on():
            try:
                first = self._reader.read_next(_POLL_MS)
            except pulsar.Timeout:
                if self._reader.is_connected():
                    away_since = None
                elif time.monotonic() - (away_since := away_since or time.monotonic()) > _AWAY_S:
                    raise
                continue
            away_since = None
            self._put(self._group(first))

    def _group(self, message: Any) -> list[Record]:  # noqa: ANN401 - no types
        """`message` and what the client has at hand, so that the loop is woken once for all."""
        group: list[Record] = []
        size = 0
        with contextlib.suppress(pulsar.Timeout):
            while True:
                place = message.message_id()
                data = message.data()
                group.append(Record((place.ledger_id(), place.entry_id()), data))
                size += len(data)
                if len(group) >= _GROUP or size >= _GROUP_BYTES:
                    break
                message = self._reader.read_next(0)
        return group

    def _goes_on(self) -> bool:
        return not self._closed and threading.main_thread().is_alive()

    def _put(self, group: list[Record]) -> None:
        with self._space:
            while self._bytes >= _BUFFER_BYTES and self._goes_on():
                self._space.wait(_POLL_MS / 1000)
            self._records.extend(group)
            self._bytes += sum(len(record.data) for record in group)
        if self._waiting:
            self._waiting = False
            self._call(self._arrived.set)

    def _call(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function)
