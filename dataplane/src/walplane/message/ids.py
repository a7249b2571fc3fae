"""MessageID and ResumeToken: positions that order, print and parse.

Contract: MessageIDs of one topic order as tuples; the text form round-trips and names its backend
(`pulsar:12:34:0:17` = backend, record id, entry index, message index). Layer: message.
"""

from __future__ import annotations

from typing import NamedTuple

from walplane.rpc.v1 import log_pb2

RecordID = tuple[int, ...]
"""Physical position of a record in its topic; ordered as a tuple, grows with log order."""


class MessageID(NamedTuple):
    """Position of one message: (backend, record id, entry in the frame, message in the entry)."""

    backend: str
    record: RecordID
    entry_index: int = 0
    message_index: int = 0

    def __str__(self) -> str:
        """`backend:record…:entry:message`."""
        record = ":".join(map(str, self.record))
        return f"{self.backend}:{record}:{self.entry_index}:{self.message_index}"

    @classmethod
    def parse(cls, text: str) -> MessageID:
        """The id that `str` made.

        Raises:
            ValueError: `text` is no MessageID.
        """
        backend, *numbers = text.split(":")
        if not backend or len(numbers) < 3 or not all(n.isascii() and n.isdigit() for n in numbers):
            raise ValueError(f"{text!r} is no MessageID: expected backend:record:entry:message")
        *record, entry, message = map(int, numbers)
        return cls(backend, tuple(record), entry, message)

    def at(self, message_index: int) -> MessageID:
        """The id of another message of the same entry."""
        return MessageID(self.backend, self.record, self.entry_index, message_index)

    def write_to(self, proto: log_pb2.MessageID) -> None:
        """Puts the id into an empty message."""
        proto.backend = self.backend
        proto.record.extend(self.record)
        proto.entry_index = self.entry_index
        proto.message_index = self.message_index

    def to_proto(self) -> log_pb2.MessageID:
        """The id on the wire."""
        return log_pb2.MessageID(
            backend=self.backend,
            record=self.record,
            entry_index=self.entry_index,
            message_index=self.message_index,
        )

    @classmethod
    def from_proto(cls, proto: log_pb2.MessageID) -> MessageID:
        """The id from the wire."""
        record = tuple(proto.record[:])  # a list of its own is there sooner than one by one
        return cls(proto.backend, record, proto.entry_index, proto.message_index)


class ResumeToken(NamedTuple):
    """What a reader keeps: every message above `time_tick` lies at or after `last_confirmed`.

    `last_confirmed` is None while nothing is confirmed yet: read from the earliest record.
    (term, open_number) are those of the message the token was taken from, so that void records
    can be told from valid ones. `pchannel` is where it belongs; empty in a token of old, or in one
    of a message that names no VChannel.
    """

    last_confirmed: MessageID | None
    time_tick: int
    term: int
    open_number: int
    pchannel: str = ""

    def reaching(self, place: MessageID | None) -> ResumeToken:
        """The same, from `place` where that lies further on in the log.

        `place` is that of a token with a lower or equal tick: all above that tick, and so all above
        this one, lies behind both, and what lies between them may be cut off already.
        """
        if place is None or (self.last_confirmed is not None and place <= self.last_confirmed):
            return self
        return self._replace(last_confirmed=place)

    def __str__(self) -> str:
        """`<last confirmed id | earliest>@<tick>.<term>.<open number>[@<PChannel>]`."""
        position = "earliest" if self.last_confirmed is None else str(self.last_confirmed)
        where = f"@{self.pchannel}" if self.pchannel else ""
        return f"{position}@{self.time_tick}.{self.term}.{self.open_number}{where}"

    @classmethod
    def parse(cls, text: str) -> ResumeToken:
        """The token that `str` made.

        Raises:
            ValueError: `text` is no resume token.
        """
        position, at, rest = text.partition("@")
        numbers, _, pchannel = rest.partition("@")
        parts = numbers.split(".")
        if not at or len(parts) != 3 or not all(p.isascii() and p.isdigit() for p in parts):
            raise ValueError(f"{text!r} is no resume token: expected ID@tick.term.open@PChannel")
        confirmed = None if position == "earliest" else MessageID.parse(position)
        tick, term, open_number = map(int, parts)
        return cls(confirmed, tick, term, open_number, pchannel)

    def at(self, time_tick: int) -> ResumeToken:
        """The same place, of a reader that has everything up to `time_tick`."""
        confirmed, _, term, open_number, pchannel = self
        return ResumeToken(confirmed, time_tick, term, open_number, pchannel)

    def to_proto(self) -> log_pb2.ResumeToken:
        """The token on the wire."""
        proto = log_pb2.ResumeToken(
            time_tick=self.time_tick,
            term=self.term,
            open_number=self.open_number,
            pchannel=self.pchannel,
        )
        if self.last_confirmed is not None:
            proto.last_confirmed.CopyFrom(self.last_confirmed.to_proto())
        return proto

    @classmethod
    def from_proto(cls, proto: log_pb2.ResumeToken) -> ResumeToken:
        """The token from the wire."""
        confirmed = None
        if proto.HasField("last_confirmed"):
            confirmed = MessageID.from_proto(proto.last_confirmed)
        return cls(confirmed, proto.time_tick, proto.term, proto.open_number, proto.pchannel)
