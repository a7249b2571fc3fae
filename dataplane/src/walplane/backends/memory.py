"""Topics in memory, for tests and scenario files. Layer: backends.

Contract: no threads, no clock, no randomness; everything happens in callbacks of the running loop,
in the order of the calls. The object is the storage: whoever uses it may vanish without closing
its session, the records stay. Appends are in flight until the loop's next turn; a writer fenced
by then has written nothing of them. A lower (term, open number) is refused, for ever.

    memory:                             records of up to 5 MiB
    memory:?max_record_bytes=65536      of up to 64 KiB
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

from walplane.backends.interface import Record, Start
from walplane.backends.sequenced import (
    FIRST,
    Bell,
    closed,
    fenced,
    first_to_read,
    given_up,
    missing,
    oversized,
    sequence_of,
    stale,
    truncated,
)
from walplane.message.ids import RecordID
from walplane.prompt import PromptFuture
from walplane.rpc.errors import ErrorCode, WalError

MAX_RECORD_BYTES = 5 << 20
_READ_RECORDS = 1024


async def open_backend(url: str) -> MemoryBackend:
    """An empty backend.

    Raises:
        WalError: INVALID_ARGUMENT when `url` has another option than max_record_bytes.
    """
    options = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    limit = options.pop("max_record_bytes", str(MAX_RECORD_BYTES))
    if options or not limit.isdecimal() or not int(limit):
        raise WalError(
            ErrorCode.INVALID_ARGUMENT, f"{url!r} is wrong: memory:[?max_record_bytes=NUMBER]"
        )
    return MemoryBackend(int(limit))


class _Topic:
    """Records, of which the first has the sequence number `earliest`, and who may write."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.records: list[bytes] = []
        self.earliest = FIRST
        self.highest = (-1, -1)
        self.writer: MemoryWriter | None = None
        self.bell = Bell()

    @property
    def end(self) -> int:
        return self.earliest + len(self.records)


class MemoryBackend:
    """A `Backend` that lives as long as the object does."""

    name = "memory"

    def __init__(self, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        """An empty backend that takes records of up to `max_record_bytes`."""
        self.max_record_bytes = max_record_bytes
        self.ack_timeout_s = 1.0
        self.topics: dict[str, _Topic] = {}
        self._sessions: set[MemorySession] = set()

    async def session(self) -> MemorySession:
        """A new session."""
        session = MemorySession(self)
        self._sessions.add(session)
        return session

    async def close(self) -> None:
        """Closes every session; the topics stay."""
        for session in list(self._sessions):
            await session.close()

    def forget(self, session: MemorySession) -> None:
        """Called by a session that closes."""
        self._sessions.discard(session)


class MemorySession:
    """A `BackendSession`."""

    def __init__(self, backend: MemoryBackend) -> None:
        """A session of `backend`."""
        self._backend = backend
        self._writers: list[MemoryWriter] = []
        self._scanners: dict[MemoryScanner, None] = {}  # a set that keeps its order
        self._closed = False

    async def ensure_topic(self, topic: str) -> None:
        """Makes `topic` if it is not there."""
        if self._closed:
            raise closed(topic)
        self._backend.topics.setdefault(topic, _Topic(topic))

    async def open_writer(self, topic: str, term: int, open_number: int) -> MemoryWriter:
        """Fences the present writer of `topic` and replaces it."""
        held = self._topic(topic)
        if (term, open_number) < held.highest:
            raise stale(topic, (term, open_number), held.highest)
        writer = MemoryWriter(held, term, open_number, self._backend.max_record_bytes)
        held.highest, held.writer = (term, open_number), writer
        self._writers.append(writer)
        return writer

    async def open_scanner(self, topic: str, start: Start) -> MemoryScanner:
        """A scanner at `start`."""
        held = self._topic(topic)
        position = first_to_read(topic, start, held.earliest, held.end)
        scanner = MemoryScanner(held, position, self._forget)
        self._scanners[scanner] = None
        return scanner

    async def last_record_id(self, topic: str) -> RecordID | None:
        """Id of the last record; None when there is none."""
        end = self._topic(topic).end
        return (end - 1,) if end > FIRST else None

    async def truncate(self, topic: str, record_id: RecordID) -> None:
        """Forgets every record below `record_id`, at most all but the last."""
        held = self._topic(topic)
        gone = min(sequence_of(topic, record_id), held.end - 1) - held.earliest
        if gone > 0:
            del held.records[:gone]
            held.earliest += gone

    async def close(self) -> None:
        """Ends pending appends as OUTCOME_UNKNOWN, and the scanners."""
        self._closed = True
        self._backend.forget(self)
        for writer in self._writers:
            writer.close()
        for scanner in list(self._scanners):
            await scanner.close()

    def _forget(self, scanner: MemoryScanner) -> None:
        """Called by a scanner that closes."""
        self._scanners.pop(scanner, None)

    def _topic(self, topic: str) -> _Topic:
        if self._closed:
            raise closed(topic)
        if topic not in self._backend.topics:
            raise missing(topic)
        return self._backend.topics[topic]


class MemoryWriter:
    """A `TopicWriter`."""

    def __init__(self, topic: _Topic, term: int, open_number: int, limit: int) -> None:
        """The writer of `topic` under (term, open_number), for records of up to `limit` bytes."""
        self._topic = topic
        self._opened = (term, open_number)
        self._limit = limit
        self._in_flight: list[tuple[bytes, PromptFuture[RecordID | None]]] = []
        self._closed = False

    def append(self, data: bytes) -> PromptFuture[RecordID | None]:
        """Hands over one record."""
        future: PromptFuture[RecordID | None] = PromptFuture()
        if self._closed:
            future.set_exception(closed(self._topic.name))
        elif len(data) > self._limit:
            future.set_exception(oversized(self._topic.name, len(data), self._limit))
        else:
            if not self._in_flight:
                asyncio.get_running_loop().call_soon(self._write)
            self._in_flight.append((data, future))
        return future

    def close(self) -> None:
        """Writes nothing of what is in flight, and nothing more."""
        self._closed = True
        for _, future in self._in_flight:
            if not future.done():
                future.set_exception(given_up(self._topic.name))
        self._in_flight.clear()

    def _write(self) -> None:
        """Puts what is in flight into the topic, unless a later opener came first."""
        in_flight, self._in_flight = self._in_flight, []
        for data, future in in_flight:
            if self._topic.writer is not self:
                if not future.done():
                    future.set_exception(fenced(self._topic.name, *self._opened))
                continue
            self._topic.records.append(data)
            if not future.done():
                future.set_result((self._topic.end - 1,))
        self._topic.bell.ring()


class MemoryScanner:
    """A `RecordScanner`."""

    def __init__(
        self, topic: _Topic, position: int, forget: Callable[[MemoryScanner], None]
    ) -> None:
        """A scanner of `topic` from `position`, a sequence number, that tells `forget` its end."""
        self._topic = topic
        self._position = position
        self._forget = forget
        self._closed = False

    async def read(self) -> list[Record]:
        """The next records, up to 1,024."""
        topic = self._topic
        while not self._closed and topic.earliest <= self._position == topic.end:
            await topic.bell.wait()
        if self._closed:
            raise closed(topic.name)
        if self._position < topic.earliest:
            raise truncated(topic.name, self._position, topic.earliest)
        at = self._position - topic.earliest
        records = topic.records[at : at + _READ_RECORDS]
        numbered = [Record((self._position + n,), data) for n, data in enumerate(records)]
        self._position += len(numbered)
        return numbered

    async def close(self) -> None:
        """Ends a waiting `read` with ON_SHUTDOWN."""
        self._closed = True
        self._forget(self)
        self._topic.bell.ring()
