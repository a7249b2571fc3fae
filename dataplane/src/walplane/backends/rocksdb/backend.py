"""The embedded backend: sessions and writers over one database. Layer: backends.

Contract: belongs to the event loop it was opened on. The loop never blocks: the committer's thread
writes, the database's own threads read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import structlog

from walplane.backends.interface import Start
from walplane.backends.rocksdb.commands import (
    Append,
    Barrier,
    Command,
    Directory,
    EnsureTopic,
    OpenWriter,
    Ticket,
    Topic,
    Truncate,
)
from walplane.backends.rocksdb.committer import Committer
from walplane.backends.rocksdb.database import Database
from walplane.backends.rocksdb.scanner import RocksScanner
from walplane.backends.sequenced import (
    FIRST,
    closed,
    first_to_read,
    given_up,
    missing,
    oversized,
    sequence_of,
)
from walplane.message.ids import RecordID
from walplane.prompt import PromptFuture
from walplane.rpc.errors import ErrorCode, WalError

_log = structlog.get_logger(__name__)

MAX_RECORD_BYTES = 16 << 20
CALL_SECONDS = 30.0
"""Time limit of every call but `append` and `read`, which wait for the disk and for records."""

_READ_THREADS = 2

T = TypeVar("T")


class RocksBackend:
    """A `Backend` over one directory.

    Attributes:
        database: what it stands on, for inspection.
    """

    name = "rocksdb"
    max_record_bytes = MAX_RECORD_BYTES
    ack_timeout_s = 60.0  # a slow disk is no sick client: opening again would not help it

    def __init__(self, database: Database, threads: ThreadPoolExecutor) -> None:
        """Serves `database`, reading on `threads`; both are closed with the backend."""
        self.database = database
        self._threads = threads
        self._directory = Directory(database.topics)
        self._committer = Committer(database, self._wake_all)
        self._sessions: set[RocksSession] = set()
        self._closing: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, path: str) -> RocksBackend:
        """Opens the database in the directory `path`; it is not held when this is cancelled.

        Raises:
            WalError: as `Database` does.
        """
        began = time.monotonic()
        threads = ThreadPoolExecutor(_READ_THREADS, "walplane-read")
        opening = threads.submit(Database, path)
        try:
            backend = cls(await asyncio.wrap_future(opening), threads)
        except BaseException:
            closing = asyncio.wrap_future(threads.submit(_close_unused, opening))
            await asyncio.wait({closing}, timeout=CALL_SECONDS)
            threads.shutdown(wait=False)
            raise
        _log.info("database open", path=path, open_s=round(time.monotonic() - began, 4))
        return backend

    async def session(self) -> RocksSession:
        """A new session.

        Raises:
            WalError: ON_SHUTDOWN when the backend is closed.
        """
        if self._closing is not None:
            raise WalError(ErrorCode.ON_SHUTDOWN, f"{self.database.path} is closed: open it again")
        session = RocksSession(
            self.database, self._threads, self._directory, self._committer, self._sessions.discard
        )
        self._sessions.add(session)
        return session

    async def close(self) -> None:
        """Closes every session, then the database; its lock is free when this returns.

        Raises:
            WalError: UNRECOVERABLE when the storage failed, then or before, the lock is free all
                the same; INNER when the disk does not answer, the lock is held until it does.
        """
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for session in list(self._sessions):
            await session.close()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await self._committer.close()
        except TimeoutError:
            raise _dead(f"closing {self.database.path}", self.database.path) from None
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self.database.close)

    def _wake_all(self) -> None:
        """Lets waiting scanners see that nothing more will come."""
        for topic in self._directory.visible.values():
            topic.bell.ring()


class RocksSession:
    """A `BackendSession`."""

    def __init__(
        self,
        database: Database,
        threads: ThreadPoolExecutor,
        directory: Directory,
        committer: Committer,
        forget: Callable[[RocksSession], None],
    ) -> None:
        """A session that calls `forget` when it closes."""
        self._database = database
        self._threads = threads
        self._directory = directory
        self._committer = committer
        self._forget = forget
        self._tickets: list[Ticket] = []
        self._writers: list[RocksWriter] = []
        self._scanners: set[RocksScanner] = set()
        self._closed = False

    async def ensure_topic(self, topic: str) -> None:
        """Makes `topic` if it is not there."""
        self._check_open(topic)
        if topic not in self._directory.visible:
            await self._call(EnsureTopic(_future(), self._directory, topic), f"making {topic}")

    async def open_writer(self, topic: str, term: int, open_number: int) -> RocksWriter:
        """Fences the present writer of `topic` and replaces it."""
        ticket = Ticket(self._topic(topic), term, open_number)
        self._tickets.append(ticket)
        try:
            await self._call(OpenWriter(_future(), ticket), f"opening {topic}")
        except BaseException:
            ticket.closed = True
            raise
        if self._closed:
            raise closed(topic)
        writer = RocksWriter(self._committer, ticket)
        self._writers.append(writer)
        return writer

    async def open_scanner(self, topic: str, start: Start) -> RocksScanner:
        """A scanner at `start`."""
        held = self._topic(topic)
        position = first_to_read(topic, start, held.entry.earliest, held.end)
        scanner = RocksScanner(
            self._database,
            self._threads,
            held,
            position,
            lambda: self._committer.failure,
            self._scanners.discard,
        )
        self._scanners.add(scanner)
        return scanner

    async def last_record_id(self, topic: str) -> RecordID | None:
        """Id of the last durable record; None when there is none."""
        end = self._topic(topic).end
        return (end - 1,) if end > FIRST else None

    async def truncate(self, topic: str, record_id: RecordID) -> None:
        """Lets go of every record below `record_id`, at most all but the last."""
        held = self._topic(topic)
        below = sequence_of(topic, record_id)
        await self._call(Truncate(_future(), held, below), f"truncating {topic}")

    async def close(self) -> None:
        """Ends pending appends as OUTCOME_UNKNOWN, and the scanners; idempotent."""
        self._closed = True
        self._forget(self)
        for ticket in self._tickets:
            ticket.closed = True
        for scanner in list(self._scanners):
            await scanner.close()
        if any(writer.in_flight for writer in self._writers):
            try:
                await self._call(Barrier(_future()), "closing a session")
            except WalError:
                for writer in self._writers:
                    writer.give_up()

    async def _call(self, command: Command[T], what: str) -> T:
        """The result of `command`; `what` is being done."""
        self._committer.submit(command)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await command.future
        except TimeoutError:
            raise _dead(what, self._database.path) from None

    def _topic(self, topic: str) -> Topic:
        self._check_open(topic)
        if topic not in self._directory.visible:
            raise missing(topic)
        return self._directory.visible[topic]

    def _check_open(self, topic: str) -> None:
        if self._closed:
            raise closed(topic)


class RocksWriter:
    """A `TopicWriter`."""

    def __init__(self, committer: Committer, ticket: Ticket) -> None:
        """The writer that `ticket` made."""
        self._committer = committer
        self._ticket = ticket
        self.in_flight: set[PromptFuture[RecordID | None]] = set()

    def append(self, data: bytes) -> PromptFuture[RecordID | None]:
        """Hands over one record."""
        future: PromptFuture[RecordID | None] = PromptFuture()
        topic = self._ticket.topic.name
        if self._ticket.closed:
            future.set_exception(closed(topic))
        elif len(data) > MAX_RECORD_BYTES:
            future.set_exception(oversized(topic, len(data), MAX_RECORD_BYTES))
        else:
            self.in_flight.add(future)
            future.listen(self.in_flight.discard)
            self._committer.submit(Append(future, self._ticket, data))
        return future

    def give_up(self) -> None:
        """Ends what is in flight as OUTCOME_UNKNOWN."""
        for future in list(self.in_flight):  # each leaves when it is done
            if not future.done():
                future.set_exception(given_up(self._ticket.topic.name))


def _future() -> asyncio.Future[T]:
    return asyncio.get_running_loop().create_future()


def _dead(what: str, path: str) -> WalError:
    return WalError(
        ErrorCode.INNER, f"{what} took more than {CALL_SECONDS:.0f} s: is the disk of {path} alive?"
    )


def _close_unused(opening: Future[Database]) -> None:
    """Waits for a database that is opened for nobody, and lets go of it."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
