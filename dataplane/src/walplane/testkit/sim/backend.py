"""The simulated backend: what a broker and its client library do, and all they do wrong.

Contract: an implementation of `backends.interface` over `Disk`, with its client end in a process
and its broker end in the world. Frames of a writer arrive in order; a connection that breaks makes
the client send again what has no answer, so that the broker may hold a frame twice. Fences take
hold at the broker: what arrives there later is refused, what was written stays. Layer: testkit.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from walplane.backends.interface import Record, Start
from walplane.backends.sequenced import (
    closed,
    fenced,
    first_to_read,
    missing,
    sequence_of,
    stale,
    truncated,
)
from walplane.channel import is_pchannel, meta_topic
from walplane.message.ids import RecordID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.sim.disk import Disk, Topic
from walplane.testkit.sim.network import Network
from walplane.testkit.sim.process import Process
from walplane.testkit.sim.writer import SimWriter

_T = TypeVar("_T")

HOST = "backend"
_CALL_TIMEOUT_S = 2.0
_POLL_S = 0.25


@dataclass
class Manners:
    """How the backend behaves; faults are shares of frames.

    Attributes:
        knows_terms: refuses an opener under a lower (term, open number); else the last one wins.
        deduplicates: drops what a client sends again, and acknowledges it without an id.
        evicts: a fenced client that sends throws the rightful owner out for a moment.
        silent_fence: a fenced client is told nothing.
        leaks: a fenced client's frame is written all the same, and not acknowledged: void.
        mute: written, and the acknowledgement is lost.
        times_out: written later, after every pending frame was reported as unknown.
        gap: reported as unknown and never sent, unlike what follows it.
        no_id: acknowledged without an id.
        resets: the connection breaks behind it.
        stalls: it waits for up to three seconds on the way.
        read_records: records a read returns, at most.
        flips: a bit of a record is wrong when it is read; a share of records.
    """

    knows_terms: bool = False
    deduplicates: bool = False
    evicts: float = 0.3
    silent_fence: float = 0.2
    leaks: float = 0.0
    mute: float = 0.0
    times_out: float = 0.0
    gap: float = 0.0
    no_id: float = 0.0
    resets: float = 0.0
    stalls: float = 0.0
    read_records: int = 256
    flips: float = 0.0

    def calm(self) -> None:
        """No more faults."""
        self.flips = 0.0
        self.mute = self.times_out = self.gap = self.no_id = self.resets = self.stalls = 0.0


class Broker:
    """The backend's own end.

    Attributes:
        up: False during an outage.
        storage_error: why nothing can be written; empty while it can.
        damaged: whether storage ever failed: then users may be told so.
        manners: may be changed at any time.
        trespasses: openers that went on where they had to give up.
        on_cut: told before a data topic is cut off, and the first sequence number that stays.
    """

    def __init__(self, network: Network, disk: Disk, manners: Manners, seed: int) -> None:
        """Up, over `disk`."""
        self.network = network
        self.disk = disk
        self.manners = manners
        self.up = True
        self.storage_error = ""
        self.damaged = False
        self.trespasses: list[str] = []
        self.on_cut: Callable[[Topic, int], None] = lambda _topic, _sequence: None
        self.random = random.Random(seed)  # noqa: S311 - reproducible, not secret

    def fail(self, *, crash: bool) -> None:
        """Begins an outage; a crash loses what is not synced."""
        self.up = False
        writers = [topic.writer for topic in self.disk.topics.values() if topic.writer is not None]
        if crash:
            self.disk.crash()
        for writer in writers:
            if crash:
                writer.arrived = writer.durable
            writer.reset()

    def recover(self) -> None:
        """Ends it; storage works again."""
        self.up, self.storage_error = True, ""

    def fail_storage(self, why: str, *, lost: bool) -> None:
        """Nothing can be written until `recover`; `lost`: nor is what was not synced there."""
        self.storage_error, self.damaged = why, True
        if not lost:
            return
        self.disk.crash()
        for topic in self.disk.topics.values():
            if topic.writer is not None:
                topic.writer.arrived = topic.writer.durable
                topic.writer.fail_unsynced(self.unwritable(topic))

    def unwritable(self, topic: Topic) -> WalError:
        """What a writer is told while storage fails."""
        return WalError(
            ErrorCode.UNRECOVERABLE, f"{topic.name} cannot be written: {self.storage_error}"
        )

    def reachable(self, process: Process) -> bool:
        """Whether `process` and the broker can talk."""
        reaches = self.network.reaches
        return self.up and reaches(process.host, HOST) and reaches(HOST, process.host)

    def fences(self, topic: Topic, writer: SimWriter) -> bool:
        """Whether `writer` may not write into `topic` any more."""
        return topic.writer is not writer

    def read_back(self, data: bytes) -> bytes:
        """`data` as it comes from the disk: with a flipped bit now and then."""
        if not self.network.chance(self.manners.flips):
            return data
        self.damaged = True
        flipped = bytearray(data)
        flipped[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return bytes(flipped)

    def receive(self, writer: SimWriter, sequence: int, data: bytes) -> None:
        """One frame arrives, in the order in which its client sent them."""
        topic = writer.topic
        if self.fences(topic, writer):
            if topic.writer is not None and self.network.chance(self.manners.evicts):
                topic.writer.reset()
            if self.network.chance(self.manners.leaks):
                self.disk.write(topic, data, lambda _: None)
            if not self.network.chance(self.manners.silent_fence):
                writer.refuse(sequence, fenced(topic.name, *writer.key))
            return
        if self.storage_error:
            writer.refuse(sequence, self.unwritable(topic))
            return
        again = sequence <= writer.arrived
        if again and self.manners.deduplicates:
            if sequence <= writer.durable:
                writer.acknowledge(sequence, None)
            return
        writer.arrived = max(writer.arrived, sequence)

        def durable(record_id: RecordID) -> None:
            topic.highest_term = max(topic.highest_term, writer.key[0])
            # The id of a second copy would be a wrong one: the first copy counts.
            writer.acknowledge(sequence, None if again else record_id)

        self.disk.write(topic, data, durable)


class SimBackend:
    """A `Backend` as one process sees it."""

    name = "sim"

    def __init__(self, broker: Broker, process: Process, max_record_bytes: int) -> None:
        """A client library in `process`."""
        self.max_record_bytes = max_record_bytes
        self.ack_timeout_s = 1.0
        self._broker = broker
        self._process = process

    async def session(self) -> SimSession:
        """A new client.

        Raises:
            WalError: INNER when the broker cannot be reached.
        """
        session = SimSession(self._broker, self._process, self.max_record_bytes)
        await session.call(lambda: None)
        return session

    async def close(self) -> None:
        """Sessions are closed by their owners."""


class SimSession:
    """A `BackendSession`."""

    def __init__(self, broker: Broker, process: Process, max_record_bytes: int) -> None:
        """A client in `process`."""
        self._broker = broker
        self._process = process
        self._max_record_bytes = max_record_bytes
        self._writers: list[SimWriter] = []
        self._scanners: dict[SimScanner, None] = {}  # a set that keeps its order
        self._met: dict[str, int] = {}
        self._closed = False

    async def call(self, action: Callable[[], _T]) -> _T:
        """Does `action` at the broker.

        Raises:
            WalError: what it raised; INNER when there was no answer, whether or not it was done.
        """
        if self._closed:
            raise closed("this client")

        def act() -> _T:
            if not self._broker.up:
                raise WalError(ErrorCode.INNER, "the backend is down")
            if self._closed:
                raise closed("this client")
            return action()

        return await self._broker.network.visit(self._process, HOST, act, _CALL_TIMEOUT_S)

    async def ensure_topic(self, topic: str) -> None:
        """Makes `topic` if it is not there."""
        await self.call(lambda: self._broker.disk.topics.setdefault(topic, Topic(topic)))

    async def open_writer(self, topic: str, term: int, open_number: int) -> SimWriter:
        """Fences the present writer of `topic` and replaces it."""

        def take() -> SimWriter:
            held = self._topic(topic)
            if self._broker.manners.knows_terms and (term, open_number) < held.highest:
                raise stale(topic, (term, open_number), held.highest)
            writer = SimWriter(
                self._broker, held, self._process, (term, open_number), self._max_record_bytes
            )
            self._note_trespass(held, term)
            held.highest = max(held.highest, (term, open_number))
            held.writer = writer
            self._writers.append(writer)
            return writer

        return await self.call(take)

    async def open_scanner(self, topic: str, start: Start) -> SimScanner:
        """A scanner at `start`."""

        def place() -> SimScanner:
            held = self._topic(topic)
            position = first_to_read(topic, start, held.earliest, held.visible)
            return SimScanner(self._broker, self._process, held, position, self._forget)

        scanner = await self.call(place)
        self._scanners[scanner] = None
        return scanner

    async def last_record_id(self, topic: str) -> RecordID | None:
        """Id of the last record; None when there is none."""

        def last() -> RecordID | None:
            held = self._topic(topic)
            return (held.visible - 1,) if held.visible > held.earliest else None

        return await self.call(last)

    async def truncate(self, topic: str, record_id: RecordID) -> None:
        """Forgets every record below `record_id`."""
        await self.call(lambda: self._cut(self._topic(topic), sequence_of(topic, record_id)))

    async def close(self) -> None:
        """Sends nothing more; what was on its way has arrived, or never will."""
        self._closed = True
        for writer in self._writers:
            writer.close()
        for scanner in list(self._scanners):
            await scanner.close()

    def _forget(self, scanner: SimScanner) -> None:
        """Called by a scanner that closes."""
        self._scanners.pop(scanner, None)

    def _cut(self, topic: Topic, sequence: int) -> None:
        if is_pchannel(topic.name) and sequence > topic.earliest:
            self._broker.on_cut(topic, sequence)
        topic.truncate(sequence)

    def _note_trespass(self, topic: Topic, term: int) -> None:
        """Notes an opener that goes on to the data topic past a higher barrier (rules §12).

        What the meta topic held when this client took it, the opener has read before it goes on.
        """
        if not is_pchannel(topic.name):
            self._met[topic.name] = topic.highest_term
        elif (met := self._met.get(meta_topic(topic.name), 0)) > term:
            self._broker.trespasses.append(
                f"§12 {self._process.name} took {topic.name} under term {term} past a barrier of "
                f"term {met} in its meta topic"
            )

    def _topic(self, topic: str) -> Topic:
        if topic not in self._broker.disk.topics:
            raise missing(topic)
        return self._broker.disk.topics[topic]


class SimScanner:
    """A `RecordScanner`."""

    def __init__(
        self,
        broker: Broker,
        process: Process,
        topic: Topic,
        position: int,
        forget: Callable[[SimScanner], None],
    ) -> None:
        """A scanner in `process` of `topic`, next at the sequence number `position`.

        Tells `forget` that it closes.
        """
        self._broker = broker
        self._process = process
        self._topic = topic
        self._position = position
        self._forget = forget
        self._closed = False

    async def read(self) -> list[Record]:
        """The next records."""
        topic = self._topic
        while not self._closed and topic.earliest <= self._position >= topic.visible:
            await topic.bell.wait()
        if self._closed:
            raise closed(topic.name)
        found = await self._broker.network.visit(self._process, HOST, self._take, _CALL_TIMEOUT_S)
        if found:
            self._position = found[-1].record_id[0] + 1
        return found

    def _take(self) -> list[Record]:
        topic = self._topic
        if not self._broker.up:
            raise WalError(ErrorCode.INNER, "the backend is down")
        if self._position < topic.earliest:
            raise truncated(topic.name, self._position, topic.earliest)
        at = self._position - topic.earliest
        end = min(at + self._broker.manners.read_records, topic.visible - topic.earliest)
        return [
            Record((topic.earliest + n,), self._broker.read_back(data))
            for n, data in enumerate(topic.records[at:end], start=at)
        ]

    async def close(self) -> None:
        """Ends a waiting `read`."""
        self._closed = True
        self._forget(self)
        self._topic.bell.ring()
