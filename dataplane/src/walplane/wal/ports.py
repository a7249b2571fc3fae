"""What a WAL needs from the outside, and what it gives back: protocols and value types.

Contract: the wiring passes implementations in; `wal` never imports node, coord or client.
Layer: wal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from walplane.channel import carrier_of
from walplane.message.ids import MessageID, ResumeToken
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2, streaming_pb2

TURN_ENTRIES = 512
"""After so many entries that are read, some milliseconds, the rest of the process has a turn."""


class TickBatch(NamedTuple):
    """Ticks for a node.

    Attributes:
        first: of them.
        size: how many follow each other.
        lost: PChannels that a higher term was granted for.
        ahead_ms: how far all that was given is ahead of the oracle's clock.
    """

    first: int
    size: int
    lost: frozenset[str] = frozenset()
    ahead_ms: int = 0


class TimestampOracle(Protocol):
    """Gives ticks that nobody was given before (rules §3)."""

    async def batch(self, terms: Mapping[str, int], size: int) -> TickBatch:
        """`size` ticks for a node that holds {PChannel: term}.

        Raises:
            WalError: INNER when the coordinator cannot be reached.
        """
        ...

    async def fresh(self, pchannel: str, term: int) -> int:
        """A tick above every tick anyone held before the call.

        From then on the oracle grants `pchannel` no tick under a lower term.

        Raises:
            WalError: UNMATCHED_CHANNEL_TERM when a higher term was granted already; INNER when
                the coordinator cannot be reached.
        """
        ...


class TermAuthority(Protocol):
    """Says which term a PChannel is granted under, by a quorum read and never from a cache."""

    async def current_term(self, pchannel: str) -> int:
        """The highest term granted.

        Raises:
            StaleTerm: it is granted to somebody else than who asks.
            WalError: INNER when no answer can be had.
        """
        ...


@dataclass(slots=True, unsafe_hash=True)  # a frozen one takes three times as long to make
class AppendResult:
    """What an acknowledged entry got: durable, and never given out again; nobody changes it.

    `message_id` and `first_tick` are those of the entry's first message; message i has
    message index i and tick `first_tick + i`.
    """

    message_id: MessageID
    first_tick: int
    count: int
    last_confirmed: MessageID | None
    term: int
    open_number: int

    def write_to(self, proto: log_pb2.ProducerWindow.Result | streaming_pb2.AppendResult) -> None:
        """Puts it into an empty message: one that is made apart is copied when it is put in."""
        self.message_id.write_to(proto.message_id)
        proto.first_tick = self.first_tick
        proto.count = self.count
        proto.term = self.term
        proto.open_number = self.open_number
        if self.last_confirmed is not None:
            self.last_confirmed.write_to(proto.last_confirmed)


HELD_OVERHEAD_BYTES = 1600
"""Of one entry in memory, besides its bytes, as measured: most of what small ones cost."""


@dataclass(slots=True)
class LogEntry:
    """One entry as it lies in the log, with its position; nobody changes it."""

    entry: log_pb2.Entry
    message_id: MessageID
    open_number: int
    known_size: int = field(default=-1, compare=False, repr=False)
    known_stored: int = field(default=-1, compare=False, repr=False)
    known_last: int = field(default=-1, compare=False, repr=False)
    known_result: AppendResult | None = field(default=None, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Bytes of the body; protobuf copies it to tell, so it is asked once."""
        if self.known_size < 0:
            self.known_size = len(self.entry.body)
        return self.known_size

    @property
    def held_bytes(self) -> int:
        """What it takes in memory, about: body, envelope and the objects around them."""
        if self.known_stored < 0:
            self.known_stored = self.size + self.entry.envelope.ByteSize()
        return self.known_stored + HELD_OVERHEAD_BYTES

    @property
    def first_tick(self) -> int:
        """Tick of the first message."""
        return self.entry.envelope.first_tick

    @property
    def last_tick(self) -> int:
        """Tick of the last message; asked for many times."""
        if self.known_last < 0:
            envelope = self.entry.envelope
            self.known_last = envelope.first_tick + envelope.count - 1
        return self.known_last

    @property
    def last_confirmed(self) -> MessageID | None:
        """The LastConfirmed that it was written with; None = the beginning."""
        if self.known_result is not None:
            return self.known_result.last_confirmed
        envelope = self.entry.envelope
        if not envelope.HasField("last_confirmed"):
            return None
        return MessageID.from_proto(envelope.last_confirmed)

    def result(self) -> AppendResult:
        """What its append is answered, made once."""
        if self.known_result is None:
            envelope = self.entry.envelope
            self.known_result = AppendResult(
                message_id=self.message_id,
                first_tick=envelope.first_tick,
                count=envelope.count,
                last_confirmed=self.last_confirmed,
                term=envelope.term,
                open_number=self.open_number,
            )
        return self.known_result

    def token(self) -> ResumeToken:
        """Where a reader that has taken this whole entry goes on."""
        envelope = self.entry.envelope
        tick, pchannel = envelope.first_tick + envelope.count - 1, carrier_of(envelope.vchannel)
        return ResumeToken(self.last_confirmed, tick, envelope.term, self.open_number, pchannel)


class StaleTerm(WalError):
    """The log shows that a higher term, or another opener of the same term, was here.

    Attributes:
        term_floor: highest term seen; the next grant must lie above it.
    """

    def __init__(self, topic: str, term: int, term_floor: int) -> None:
        """Names the topic and both terms."""
        super().__init__(
            ErrorCode.UNMATCHED_CHANNEL_TERM,
            f"{topic} was opened under term {term_floor} by another owner; "
            f"term {term} must not write any more: ask discovery for the owner",
        )
        self.term_floor = term_floor
