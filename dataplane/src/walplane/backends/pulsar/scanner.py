"""Reads one topic in log order, then tails it. Layer: backends.

A thread takes records from pulsar-client, whose `read_next` blocks, into a buffer bounded in bytes;
`read` takes all there is. Every record must be the successor of the one before: a repeat is
dropped, a gap is explained by the topic's truncation point or refused. That matters because a
reader whose position was trimmed silently goes on at the first survivor.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from typing import Any

import pulsar

from walplane.backends.interface import Record
from walplane.backends.pulsar.failures import call_failure
from walplane.backends.pulsar.offload import offload, spawn
from walplane.backends.pulsar.topics import Position, Topics
from walplane.rpc.errors import ErrorCode, WalError

_BUFFER_BYTES = 8 * 1024 * 1024
_POLL_MS = 500
_AWAY_S = 10.0
_CLOSE_S = 2.0


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
        self._thread = spawn(f"read-{topic}", self._run)

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
        """Ends the thread and the reader; bounded in time."""
        if not self._closed:
            self.stop()
            self._arrived.set()
            with contextlib.suppress(TimeoutError):
                await offload(self._end, _CLOSE_S, lambda _: None)

    def stop(self) -> None:
        """Makes the thread end at its next record or within half a second; any thread may call."""
        with self._space:
            self._closed = True
            self._space.notify()

    def _end(self) -> None:
        with contextlib.suppress(pulsar.PulsarException, ValueError):
            self._reader.close()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        away_since: float | None = None
        while not self._closed:
            try:
                message = self._reader.read_next(_POLL_MS)
            except pulsar.Timeout:
                away_since = self._away_since(away_since)
                if away_since is None or time.monotonic() - away_since < _AWAY_S:
                    continue
                self._fail(TimeoutError())
                return
            except pulsar.PulsarException as error:
                self._fail(error)
                return
            away_since = None
            place = message.message_id()
            self._put(Record((place.ledger_id(), place.entry_id()), message.data()))

    def _away_since(self, since: float | None) -> float | None:
        return None if self._reader.is_connected() else since or time.monotonic()

    def _fail(self, error: Exception) -> None:
        self.error = call_failure(f"reading topic {self._topic}", error)
        self._wake()

    def _put(self, record: Record) -> None:
        with self._space:
            self._space.wait_for(lambda: self._bytes < _BUFFER_BYTES or self._closed)
            self._records.append(record)
            self._bytes += len(record.data)
        self._wake()

    def _wake(self) -> None:
        if self._waiting:
            self._waiting = False
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._arrived.set)


class PulsarScanner:
    """One reader of one topic."""

    def __init__(
        self,
        topics: Topics,
        topic: str,
        reader: Any,  # noqa: ANN401 - no types
        after: Position,
        expected: Position | None,
    ) -> None:
        """Starts to read at once.

        Args:
            topics: explains gaps.
            topic: what is read.
            reader: stands at or before the first record above `after`; closed by `close`.
            after: the first record returned is the one that follows this position.
            expected: when given, the first record returned must be this one.
        """
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

    def stop(self) -> None:
        """Ends the thread, when the process ends without `close`."""
        self._pump.stop()

    async def close(self) -> None:
        """See `RecordScanner.close`."""
        await self._pump.close()

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
