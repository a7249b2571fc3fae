"""Reads one topic in log order, then tails it. Layer: backends.

A thread takes records from pulsar-client, whose `read_next` blocks, into a buffer bounded in bytes;
`read` takes all there is. Every record must be the successor of the one before: a repeat is
dropped, a gap is explained by the topic's truncation point or refused. That matters because a
reader whose position was trimmed silently goes on at the first survivor.
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
from walplane.backends.pulsar.client import PulsarClient
from walplane.backends.pulsar.failures import call_failure
from walplane.backends.pulsar.topics import Position, Topics
from walplane.rpc.errors import ErrorCode, WalError

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


class _Pump:
    """The thread that reads, and the buffer between it and the loop."""

    def __init__(self, topic: str, reader: Any) -> None:  # noqa: ANN401 - no types
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

    def peek(self) -> list[Record]:
        """What is there, not yet taken."""
        with self._space:
            return list(self._records)

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


class PulsarScanner:
    """One reader of one topic."""

    def __init__(
        self,
        client: PulsarClient,
        topics: Topics,
        topic: str,
        reader: Any,  # noqa: ANN401 - no types
        after: Position,
        expected: Position | None,
    ) -> None:
        """Starts to read at once.

        Args:
            client: made the reader.
            topics: explains gaps.
            topic: what is read.
            reader: stands at or before the first record above `after`; closed by `close`.
            after: the first record returned is the one that follows this position.
            expected: when given, the first record returned must be this one.
        """
        self._client = client
        self._reader = reader
        self._topics = topics
        self._topic = topic
        self._last = after
        self._expected = expected
        self._pump = _Pump(topic, reader)

    async def read(self) -> list[Record]:
        """See `RecordScanner.read`."""
        while True:
            await self._pump.wait()
            if self._pump.closed:
                raise WalError(ErrorCode.ON_SHUTDOWN, f"the scanner of {self._topic} is closed")
            records = self._pump.peek()
            if not records and self._pump.error is not None:
                raise self._pump.error
            run, taken = await self._judge(records)
            self._pump.drop(taken)  # nothing is awaited from here: a cancellation loses no record
            if run:
                last = run[-1].record_id
                self._last, self._expected = (last[0], last[1]), None
                return run

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._pump.closed

    async def close(self) -> None:
        """See `RecordScanner.close`."""
        if not self._pump.closed:
            await asyncio.gather(self._pump.close(), self._client.drop(self._reader))

    async def _judge(self, records: list[Record]) -> tuple[list[Record], int]:
        """The records to return, and how many of `records` that settles.

        A change of ledger is judged at the start of a run only, so that `read` returns what it
        has before it asks the admin service.
        """
        run: list[Record] = []
        ledger, entry = self._last
        for taken, record in enumerate(records):
            here = (record.record_id[0], record.record_id[1])
            if here <= (ledger, entry):
                continue  # sent again after a reconnect, or below the start
            if here != (ledger, entry + 1):
                if run:
                    return run, taken
                await self._explain(here)
            if not run and self._expected not in (None, here):
                raise self._truncated()
            run.append(record)
            ledger, entry = here
        return run, len(records)

    async def _explain(self, here: Position) -> None:
        """Returns when nothing is missing between the last record and `here`."""
        state, floor = await self._topics.floor(self._topic)
        # a topic without records moves to another ledger when it is unloaded, its floor with it
        moved = self._last[1] < 0 and floor == (here[0], -1)
        if state.follows(self._last, here) or floor == self._last or moved:
            return
        if floor > self._last:
            raise self._truncated()
        raise WalError(
            ErrorCode.UNRECOVERABLE,
            f"topic {self._topic} lacks what lies between {_text(self._last)} and {_text(here)}, "
            "though nobody truncated it",
        )

    def _truncated(self) -> WalError:
        return WalError(
            ErrorCode.DATA_TRUNCATED,
            f"topic {self._topic} was truncated above {_text(self._last)}: read from the earliest "
            "record",
        )


def _text(position: Position) -> str:
    return f"{position[0]}:{position[1]}"
