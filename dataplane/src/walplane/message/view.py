"""Messages after they were appended: a batch over an entry, and views of its messages.

Contract: nothing is decoded before it is asked for, and then once for the whole batch.
Layer: message.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from google.protobuf.message import Message

from walplane.channel import carrier_of
from walplane.message import codec
from walplane.message.ids import MessageID, ResumeToken
from walplane.message.registry import MessageSpec, MessageType, spec_of
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2


class ImmutableMessage(NamedTuple):
    """One message as it lies in the log; cheap: the batch holds what its messages share."""

    batch: Batch
    message_index: int
    payload: bytes

    @property
    def message_id(self) -> MessageID:
        """Its position."""
        return self.batch.message_id.at(self.message_index)

    @property
    def time_tick(self) -> int:
        """Its log sequence number within the PChannel; in a transaction, its Commit's."""
        return self.batch.tick_of(self.message_index)

    @property
    def txn_id(self) -> int:
        """The transaction it is in; 0 outside one."""
        return self.batch.txn_id

    @property
    def last_confirmed_message_id(self) -> MessageID | None:
        """Reading from there yields every message above `time_tick`; None = the beginning."""
        return self.batch.last_confirmed

    @property
    def resume_token(self) -> ResumeToken:
        """Where a reader that has taken this message goes on; see `txn_view` for transactions."""
        return self.batch.token_of(self.message_index)

    @property
    def type(self) -> MessageType:
        """What it is."""
        return self.batch.type

    @property
    def header(self) -> Message:
        """The typed header of its entry."""
        return self.batch.header

    @property
    def vchannel(self) -> str:
        """Its VChannel; empty when it is for every VChannel of the PChannel."""
        return self.batch.envelope.vchannel

    @property
    def term(self) -> int:
        """Term of the writer."""
        return self.batch.envelope.term

    @property
    def segment_id(self) -> int:
        """The segment that the rows of an Insert are in; 0 for all else."""
        return self.batch.envelope.segment_id

    @property
    def properties(self) -> dict[str, str]:
        """Its properties."""
        return dict(self.batch.envelope.properties)


class Batch:
    """The messages `first` .. `last` (indexes in the entry) of one entry.

    Attributes:
        entry: the entry as it lies in the log.
        envelope: that of `entry`; protobuf makes one anew for each who asks, unless it is kept.
        message_id: position of the entry's message 0.
        open_number: number of the writer's open.
        first: index of the first message of the batch.
        last: index after the last one.
        txn_id: the transaction they are in; 0 outside one.
    """

    txn_id = 0

    def __init__(
        self, entry: log_pb2.Entry, message_id: MessageID, open_number: int, first: int = 0
    ) -> None:
        """A view over `entry` from message `first` on; decodes nothing."""
        self.entry = entry
        self.envelope = entry.envelope
        self.message_id = message_id
        self.open_number = open_number
        self.first = first
        self.last = self.envelope.count
        self._content: tuple[bytes, list[bytes]] | None = None

    def __len__(self) -> int:
        """How many messages."""
        return self.last - self.first

    def __iter__(self) -> Iterator[ImmutableMessage]:
        """The messages, in tick order."""
        for index, payload in enumerate(self.payloads, self.first):
            yield ImmutableMessage(self, index, payload)

    def after(self, tick: int) -> Batch:
        """The part of this batch above `tick`."""
        first = max(self.first, tick + 1 - self.first_tick)
        return Batch(self.entry, self.message_id, self.open_number, min(first, self.last))

    def up_to(self, tick: int) -> Batch:
        """The part of this batch at or below `tick`."""
        cut = Batch(self.entry, self.message_id, self.open_number, self.first)
        cut.last = max(min(self.last, tick + 1 - self.envelope.first_tick), self.first)
        return cut

    def tick_of(self, message_index: int) -> int:
        """The tick of a message, by its index in the entry."""
        return self.first_tick + message_index

    def token_of(self, message_index: int) -> ResumeToken:
        """Where a reader that has taken this message goes on."""
        tick, term = self.tick_of(message_index), self.envelope.term
        pchannel = carrier_of(self.envelope.vchannel)
        return ResumeToken(self.last_confirmed, tick, term, self.open_number, pchannel)

    @property
    def term(self) -> int:
        """Term of the writer."""
        return self.envelope.term

    @property
    def first_tick(self) -> int:
        """Tick of the entry's message 0."""
        return self.envelope.first_tick

    @property
    def last_tick(self) -> int:
        """Tick of the last message."""
        return self.envelope.first_tick + self.last - 1

    @property
    def type(self) -> MessageType:
        """What the messages are."""
        return self.spec.type

    @property
    def spec(self) -> MessageSpec:
        """The registry's row of the type."""
        return spec_of(self.envelope.type)

    @cached_property
    def last_confirmed(self) -> MessageID | None:
        """Reading from there yields every message above the batch's ticks."""
        envelope = self.envelope
        if not envelope.HasField("last_confirmed"):
            return None
        return MessageID.from_proto(envelope.last_confirmed)

    def _decoded(self) -> tuple[bytes, list[bytes]]:
        if self._content is None:
            header, payloads = self._decode()
            self._content = header, payloads[self.first : self.last]
        return self._content

    def _decode(self) -> tuple[bytes, list[bytes]]:
        decoded = codec.decode_body(codec.check_stored_entry(self.entry, self.message_id))
        count = self.envelope.count
        if len(decoded[1]) != count:  # fewer or more would be given wrong ticks, silently
            raise WalError(
                ErrorCode.UNRECOVERABLE,
                f"the entry at {self.message_id} holds {len(decoded[1])} messages, but says "
                f"{count}: restore the topic from a replica or backup",
            )
        return decoded

    @property
    def payloads(self) -> list[bytes]:
        """The payloads, checked against the entry's checksum when they are first asked for.

        Raises:
            WalError: UNRECOVERABLE when the entry is damaged.
        """
        return self._decoded()[1]

    @cached_property
    def header(self) -> Message:
        """The typed header.

        Raises:
            WalError: UNRECOVERABLE when the entry is damaged.
        """
        return self.spec.parse_header(self._decoded()[0])
