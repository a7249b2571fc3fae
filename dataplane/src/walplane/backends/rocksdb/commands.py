"""What sessions ask of the committer, and the topics they ask it of. Layer: backends.

A command is staged on the committer's thread, in the order of the calls, and published on the
event loop once it is durable. That one thread is the mutex of the fence: an append is staged
either before its topic's next opener or after it, and after it is refused.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from walplane.backends.rocksdb import layout
from walplane.backends.rocksdb.batch import Batch
from walplane.backends.sequenced import FIRST, Bell, closed, fenced, given_up, stale
from walplane.message.ids import RecordID

T = TypeVar("T")


class Topic:
    """One topic while the database is open.

    Attributes:
        name: its name.
        entry: what is kept of it; the committer's thread replaces it.
        next: sequence number of the next append; the committer's thread alone.
        end: one above the last durable record; the event loop alone.
        writer: who may append; the committer's thread alone.
        bell: rings when `end` grows.
    """

    def __init__(self, name: str, entry: layout.TopicEntry, end: int) -> None:
        """The topic `name` whose last record is below `end`."""
        self.name = name
        self.entry = entry
        self.next = self.end = end
        self.writer: Ticket | None = None
        self.bell = Bell()


class Directory:
    """All topics: `visible` to the event loop, `staged` on the committer's thread."""

    def __init__(self, topics: list[tuple[str, layout.TopicEntry, int]]) -> None:
        """The directory of the topics that were found."""
        self.visible = {name: Topic(name, entry, end) for name, entry, end in topics}
        self.staged = dict(self.visible)


class Ticket:
    """One opening of a topic: the topic's writer until a later ticket replaces it."""

    def __init__(self, topic: Topic, term: int, open_number: int) -> None:
        """The opening of `topic` under (term, open_number)."""
        self.topic = topic
        self.opened = (term, open_number)
        self.closed = False


class Command(ABC, Generic[T]):
    """One request; `future` gets its result on the event loop."""

    __slots__ = ("future",)
    size = 0
    topic: Topic | None = None

    def __init__(self, future: asyncio.Future[T]) -> None:
        """A request that answers through `future`."""
        self.future = future

    @abstractmethod
    def stage(self, batch: Batch) -> None:
        """Adds to `batch` what it writes, or raises before it changed anything.

        Raises:
            WalError: it is refused; nobody else is concerned.
        """

    @abstractmethod
    def publish(self) -> T:
        """Lets the event loop see what is durable now; the result."""


class Barrier(Command[None]):
    """Ends when everything before it has."""

    __slots__ = ()

    def stage(self, batch: Batch) -> None:
        """Writes nothing."""

    def publish(self) -> None:
        """Nothing to see."""


class EnsureTopic(Command[None]):
    """Makes a topic."""

    __slots__ = ("_directory", "_name")

    def __init__(self, future: asyncio.Future[None], directory: Directory, name: str) -> None:
        """Makes `name` in `directory` unless it is there."""
        super().__init__(future)
        self._directory = directory
        self._name = name

    def stage(self, batch: Batch) -> None:
        """Gives the topic the next number."""
        staged = self._directory.staged
        if self._name in staged:
            return
        number = max((topic.entry.number for topic in staged.values()), default=0) + 1
        entry = layout.TopicEntry(number, FIRST, -1, -1)
        staged[self._name] = Topic(self._name, entry, FIRST)
        batch.put(layout.topic_key(self._name), entry.encode())

    def publish(self) -> None:
        """The topic can be used."""
        self._directory.visible.setdefault(self._name, self._directory.staged[self._name])


class OpenWriter(Command[None]):
    """Makes a ticket its topic's writer."""

    __slots__ = ("_ticket",)

    def __init__(self, future: asyncio.Future[None], ticket: Ticket) -> None:
        """Takes the topic for `ticket`."""
        super().__init__(future)
        self._ticket = ticket

    def stage(self, batch: Batch) -> None:
        """Fences the present writer, unless it was opened under a higher (term, open number)."""
        ticket, topic = self._ticket, self._ticket.topic
        if ticket.closed or self.future.cancelled():
            raise closed(topic.name)
        highest = (topic.entry.term, topic.entry.open_number)
        if ticket.opened < highest:
            raise stale(topic.name, ticket.opened, highest)
        term, open_number = ticket.opened
        topic.entry = topic.entry._replace(term=term, open_number=open_number)
        topic.writer = ticket
        batch.put(layout.topic_key(topic.name), topic.entry.encode())

    def publish(self) -> None:
        """Nothing to see."""


class Append(Command[RecordID | None]):
    """Writes one record."""

    __slots__ = ("_data", "_sequence", "_ticket", "size", "topic")

    def __init__(
        self, future: asyncio.Future[RecordID | None], ticket: Ticket, data: bytes
    ) -> None:
        """Appends `data` as the writer that `ticket` is."""
        super().__init__(future)
        self._ticket = ticket
        self._data = data
        self._sequence = 0
        self.topic = ticket.topic
        self.size = len(data)

    def stage(self, batch: Batch) -> None:
        """Gives the record its number, if its writer still is the topic's."""
        ticket, topic = self._ticket, self._ticket.topic
        if ticket.closed:
            raise given_up(topic.name)
        if topic.writer is not ticket:
            raise fenced(topic.name, *ticket.opened)
        self._sequence = topic.next
        topic.next += 1
        batch.put_record(topic.entry.number, self._sequence, self._data)

    def publish(self) -> RecordID:
        """The record can be read."""
        self._ticket.topic.end = self._sequence + 1
        return (self._sequence,)


class Truncate(Command[None]):
    """Moves a topic's truncation point up."""

    __slots__ = ("_below", "_topic")

    def __init__(self, future: asyncio.Future[None], topic: Topic, below: int) -> None:
        """Lets go of the records of `topic` below `below`, at most all but the last."""
        super().__init__(future)
        self._topic = topic
        self._below = below

    def stage(self, batch: Batch) -> None:
        """Deletes the records; readers are told first, so that none takes a gap for damage."""
        topic = self._topic
        earliest = topic.entry.earliest
        below = min(self._below, topic.end - 1)
        if below <= earliest:
            return
        topic.entry = topic.entry._replace(earliest=below)
        batch.put(layout.topic_key(topic.name), topic.entry.encode())
        batch.truncate(topic.entry.number, earliest, below)

    def publish(self) -> None:
        """Nothing to see."""
