"""An assembled transaction: what a reader is given instead of Begin, bodies and Commit.

Contract: whole, at its Commit's tick and with its Commit's LastConfirmed. Its messages have that
tick too, so whoever reads messages one by one sees ticks that never fall. The resume token of any
but its last message lies before the transaction: resuming there gives all of it again. Layer:
message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from walplane.message.ids import MessageID, ResumeToken
from walplane.message.registry import MessageType
from walplane.message.view import Batch, ImmutableMessage
from walplane.rpc.v1 import headers_pb2, log_pb2


class TxnBatch(Batch):
    """One entry of a transaction; positions are its own, ticks and tokens the Commit's.

    Attributes:
        txn_id: of its transaction.
        token: where a reader that has taken the transaction goes on.
        final: whether the transaction ends with this entry.
    """

    def __init__(
        self,
        entry: log_pb2.Entry,
        message_id: MessageID,
        open_number: int,
        txn_id: int,
        token: ResumeToken,
    ) -> None:
        """A view over `entry`; decodes nothing."""
        super().__init__(entry, message_id, open_number)
        self.txn_id = txn_id
        self.token = token
        self.final = False
        self.last_confirmed = token.last_confirmed

    @property
    def first_tick(self) -> int:
        """The Commit's tick."""
        return self.token.time_tick

    @property
    def last_tick(self) -> int:
        """The Commit's tick."""
        return self.token.time_tick

    def after(self, tick: int) -> Batch:
        """All of it, or nothing."""
        rest = TxnBatch(self.entry, self.message_id, self.open_number, self.txn_id, self.token)
        rest.final = self.final
        rest.first = self.last if tick >= self.token.time_tick else self.first
        return rest

    def tick_of(self, _message_index: int) -> int:
        """The Commit's tick."""
        return self.token.time_tick

    def token_of(self, message_index: int) -> ResumeToken:
        """Behind the transaction for its last message, before it for every other."""
        if self.final and message_index == self.last - 1:
            return self.token
        return self.token._replace(time_tick=self.token.time_tick - 1)


class ImmutableTxnMessage:
    """A committed transaction.

    Iterating gives its messages; so do `batches`, by entry.

    Attributes:
        txn_id: tick of its Begin.
        message_id: position of its Commit.
        resume_token: where a reader that has taken it goes on.
        batches: its entries, in the order in which they were appended; at least one.
    """

    type = MessageType.TXN

    def __init__(self, txn_id: int, message_id: MessageID, batches: Sequence[TxnBatch]) -> None:
        """Takes the entries of one transaction."""
        self.txn_id = txn_id
        self.message_id = message_id
        self.batches = batches
        self.resume_token = batches[-1].token
        batches[-1].final = True

    def __len__(self) -> int:
        """How many messages."""
        return sum(map(len, self.batches))

    def __iter__(self) -> Iterator[ImmutableMessage]:
        """Its messages, in the order in which they were appended."""
        for batch in self.batches:
            yield from batch

    @property
    def time_tick(self) -> int:
        """The Commit's tick."""
        return self.resume_token.time_tick

    @property
    def first_tick(self) -> int:
        """The Commit's tick."""
        return self.resume_token.time_tick

    @property
    def last_tick(self) -> int:
        """The Commit's tick."""
        return self.resume_token.time_tick

    @property
    def last_confirmed(self) -> MessageID | None:
        """The Commit's LastConfirmed: reading from there yields everything above `time_tick`."""
        return self.resume_token.last_confirmed

    @property
    def vchannel(self) -> str:
        """Its VChannel."""
        return self.batches[0].envelope.vchannel

    @property
    def term(self) -> int:
        """Term of its Commit's writer."""
        return self.resume_token.term

    @property
    def header(self) -> headers_pb2.TxnHeader:
        """How many entries it has."""
        return headers_pb2.TxnHeader(entries=len(self.batches))

    @cached_property
    def payloads(self) -> list[bytes]:
        """The payloads of all its messages, in order.

        Raises:
            WalError: UNRECOVERABLE when an entry is damaged.
        """
        return [payload for batch in self.batches for payload in batch.payloads]


AnyBatch = Batch | ImmutableTxnMessage
"""What a reader gives: the messages of an entry, or of a transaction."""
