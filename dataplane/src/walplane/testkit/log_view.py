"""A log as its records say, read without the product's own filter. Layer: testkit.

Contract: rules §10 written down a second time, so that a checker does not trust
the code it checks: a record of a lower (term, open number) than an earlier one is void; within an
open only the longest gapless run of frame numbers counts, the first copy of each. Works on the
records of any backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from walplane.backends.interface import Record
from walplane.message import codec
from walplane.message.ids import MessageID, RecordID
from walplane.message.registry import MessageType
from walplane.rpc.v1 import log_pb2
from walplane.testkit.log_txns import transactions
from walplane.wal.ports import LogEntry


class Logged(NamedTuple):
    """One valid entry, where it lies.

    Attributes:
        frame: number of its frame within the open.
        acked: frames of the open that were acknowledged when its frame left.
        first_tick: of its first message.
        last_tick: of its last message.
    """

    message_id: MessageID
    envelope: log_pb2.Envelope
    body: bytes
    open_number: int
    frame: int
    acked: int
    first_tick: int
    last_tick: int

    def __str__(self) -> str:
        """What it is and where."""
        envelope = self.envelope
        return (
            f"{MessageType(envelope.type).name} {self.message_id} (ticks {self.first_tick}-"
            f"{self.last_tick}, term {envelope.term} open {self.open_number})"
        )

    @property
    def is_barrier(self) -> bool:
        """Whether it is a RecoveryBarrier."""
        return self.envelope.type == MessageType.RECOVERY_BARRIER


class LoggedMessage(NamedTuple):
    """One message of the log, as readers get it; of a transaction at its Commit's tick."""

    vchannel: str
    payload: bytes
    message_id: MessageID
    time_tick: int
    txn_id: int = 0


@dataclass
class LogView:
    """One PChannel's data topic.

    Attributes:
        pchannel: its name.
        entries: the valid ones, in log order.
        dropped: frames that do not count.
    """

    pchannel: str
    entries: list[Logged] = field(default_factory=list)
    dropped: int = 0
    _messages: dict[str, list[LoggedMessage]] = field(default_factory=dict, repr=False)
    _sealed: list[LogEntry] = field(default_factory=list, repr=False)
    _places: dict[tuple[str, RecordID, int], Logged] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, pchannel: str, backend: str, records: Iterable[Record]) -> LogView:
        """The log that `records`, all of the topic, make up."""
        view = cls(pchannel)
        frames = ValidFrames(pchannel, records)
        for record, content in frames.valid():
            for index, entry in enumerate(content.entries):
                envelope = entry.envelope
                view.entries.append(
                    Logged(
                        MessageID(backend, record.record_id, index),
                        envelope,
                        entry.body,
                        content.open_number,
                        content.number,
                        content.acked,
                        envelope.first_tick,
                        envelope.first_tick + envelope.count - 1,
                    )
                )
        view.dropped = frames.dropped
        return view

    def entry_at(self, message_id: MessageID) -> Logged:
        """The entry that holds a message."""
        if not self._places:
            self._places = {entry.message_id[:3]: entry for entry in self.entries}
        return self._places[message_id[:3]]

    def in_tick_order(self) -> list[Logged]:
        """The entries as readers get them, but for transactions."""
        return sorted(self.entries, key=lambda entry: entry.first_tick)

    def messages(self, vchannel: str = "") -> list[LoggedMessage]:
        """Inserts in the order of delivery, those of one VChannel or all."""
        if vchannel not in self._messages:
            whole = self._messages.get("") or list(self._read())
            self._messages[""] = whole
            if vchannel:
                mine = [message for message in whole if message.vchannel == vchannel]
                self._messages[vchannel] = mine
        return self._messages[vchannel]

    def begins(self) -> dict[int, RecordID]:
        """Where each transaction begins, by its id."""
        return {
            entry.first_tick: entry.message_id.record
            for entry in self.entries
            if entry.envelope.type == MessageType.BEGIN_TXN
        }

    def sealed(self) -> list[LogEntry]:
        """The entries as the product has them, with checksums made anew; nobody changes them."""
        if not self._sealed:
            self._sealed = [
                LogEntry(
                    codec.seal_entry(entry.envelope, entry.body),
                    entry.message_id,
                    entry.open_number,
                )
                for entry in self.entries
            ]
        return self._sealed

    def _read(self) -> Iterator[LoggedMessage]:
        entries = self.in_tick_order()
        txns = transactions(entries)
        committed = {txn.end_tick: txn for txn in txns.values() if txn.committed}
        for entry in entries:
            txn = committed.get(entry.last_tick)
            if txn is not None:
                for body in txn.bodies:
                    yield from _messages(body, txn.begin.first_tick, entry.last_tick)
            elif entry.envelope.txn.kind == log_pb2.TXN_KIND_WHOLE:
                yield from _messages(entry, entry.first_tick, entry.last_tick)
            elif not entry.envelope.HasField("txn"):
                yield from _messages(entry)


def _messages(entry: Logged, txn_id: int = 0, tick: int = 0) -> Iterator[LoggedMessage]:
    if entry.envelope.type != MessageType.INSERT:
        return
    _, payloads = codec.decode_body(entry.body)
    for number, payload in enumerate(payloads):
        yield LoggedMessage(
            entry.envelope.vchannel,
            payload,
            entry.message_id.at(number),
            tick or entry.first_tick + number,
            txn_id,
        )


class ValidFrames:
    """The frames of a topic that count."""

    def __init__(self, topic: str, records: Iterable[Record]) -> None:
        """Reads `records` once."""
        self.dropped = 0
        self._topic = topic
        self._records = records

    def valid(self) -> Iterator[tuple[Record, log_pb2.FrameContent]]:
        """In log order."""
        highest: tuple[int, int] | None = None
        due = 0
        for record in self._records:
            content = codec.decode_frame(
                record.data, codec.RecordPlace(self._topic, record.record_id)
            )
            key = (content.term, content.open_number)
            if highest is None or key > highest:
                # Where the topic was truncated, its first open may begin with any number.
                due = 0 if highest is not None else content.number
                highest = key
            if key < highest or content.number != due:
                self.dropped += 1
                continue
            due += 1
            yield record, content
