"""Messages on their way out: parcels of one caller, batches that become one entry each.

Contract: messages share an entry only when their kinds allow it and are equal. A parcel stays
whole; one that is given up before a batch took it is never sent, and nothing is kept of it. A body
is encoded once, however often it is sent. Layer: client.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from walplane.client.results import Written
from walplane.message.codec import crc32c, encode_body, encode_entry
from walplane.message.ids import MessageID
from walplane.message.registry import IDEMPOTENCY_KEY, MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.flow import ByteBudget
from walplane.rpc.v1 import log_pb2
from walplane.tracing import Attributes, attributes_of

_ENTRY_OVERHEAD_BYTES = 96  # producer id, numbers, tags and lengths of one entry, at most

MESSAGE_OVERHEAD_BYTES = 4
"""Of a message's size in the packed column, at most for what fits an entry."""


class Kind:
    """What messages of one entry have in common.

    Attributes:
        envelope: template of the entry's envelope: no producer, count of no meaning.
        encoded: `envelope`, serialised.
        header: typed header of the message type, serialised.
        merges: whether messages of equal kinds may share an entry.
        keyed: whether a key of the caller's, and no number, tells a repeat.
        txn_id: of the transaction that it continues or ends; 0 for all else.
        overhead: bytes of an entry besides its messages and their sizes, at most.
        key: equal for equal kinds.
    """

    __slots__ = ("encoded", "envelope", "header", "key", "keyed", "merges", "overhead", "txn_id")

    def __init__(self, envelope: log_pb2.Envelope, header: bytes, *, merges: bool) -> None:
        """Takes `envelope` over."""
        envelope.count = 0
        self.envelope = envelope
        self.header = header
        self.merges = merges
        self.keyed = IDEMPOTENCY_KEY in envelope.properties
        self.txn_id = envelope.txn.txn_id
        self.encoded = envelope.SerializeToString(deterministic=True)
        self.key = self.encoded if merges else b""
        self.overhead = len(self.encoded) + len(header) + _ENTRY_OVERHEAD_BYTES

    def joins(self, other: Kind) -> bool:
        """Whether messages of this kind may share an entry with some of `other`."""
        return self.merges and (self is other or self.key == other.key)


class Parcel:
    """Messages of one kind from one call: answered, or dropped, together.

    Attributes:
        kind: what they share.
        payloads: one each.
        size: bytes they add to an entry's body.
        payload_bytes: bytes of the payloads alone.
        budget: gets `size` back once they are settled, whether or not somebody still listens.
        done: what became of them; cancelled when they were dropped before they were sent.
        given_up: what the caller was told when it stopped waiting: not worth sending any more.
        until: when the caller has no more time for locks that others hold; None = never.
        queue: where it waits, or waited, for its turn; None before.
        taken: whether a batch has it, which may be sent, or written; else nothing of it is.
    """

    __slots__ = (
        "budget",
        "done",
        "given_up",
        "kind",
        "payload_bytes",
        "payloads",
        "queue",
        "size",
        "taken",
        "until",
    )

    def __init__(self, kind: Kind, payloads: Sequence[bytes], payload_bytes: int) -> None:
        """Takes `payloads`, of `payload_bytes` together."""
        self.kind = kind
        self.payloads = payloads
        self.payload_bytes = payload_bytes
        self.size = payload_bytes + MESSAGE_OVERHEAD_BYTES * len(payloads)
        self.budget: ByteBudget | None = None
        self.done: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self.given_up: WalError | None = None
        self.until: float | None = None
        self.queue: Waiting | None = None
        self.taken = False

    def outcome(self) -> Written | WalError:
        """What the caller is told; only once it waits no more."""
        if self.given_up is not None:
            return self.given_up
        error = self.done.exception()
        return error if isinstance(error, WalError) else self.done.result()

    def settle(self, written: Written) -> None:
        """Tells the caller where they are, if it still listens."""
        self._release()
        if not self.done.done():
            self.done.set_result(written)

    def fail(self, error: WalError) -> None:
        """Tells the caller why there is no result, if it still listens."""
        self._release()
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # the caller may be gone

    def give_up(self, error: WalError) -> None:
        """The caller waits no more, and is told `error`: what no batch took leaves its queue."""
        if self.given_up is None:
            self.given_up = error
            if self.queue is not None:
                self.queue.leave(self)

    def drop(self) -> None:
        """They were given up before they were sent."""
        self._release()
        self.done.cancel()

    def _release(self) -> None:
        budget, self.budget = self.budget, None
        if budget is not None:
            budget.release(self.size)


class SendBatch:
    """Parcels that travel as one entry.

    Attributes:
        keyed: whether a key of the caller's tells a repeat: it takes no number then.
        number: among the batches of its producer on its VChannel.
        producer_id: whose number it is, unless a named producer's.
        name: of a named producer, which numbers messages.
        epoch: of the open of that.
        since_tick: of number 0: whatever this producer had written lies above it; 0 = not said.
        sent: how often it was sent under this number.
        outcome: the answer to the last time it was sent.
        waited_out: whether that came when none of its callers had more time: it is for good then.
        size: bytes of the entry's envelope and body, at most.
        count: messages.
        txn_id: of the transaction that it continues or ends; 0 for all else.
    """

    __slots__ = (
        "_body",
        "_crc",
        "_kind",
        "_parcels",
        "_until",
        "count",
        "epoch",
        "keyed",
        "name",
        "number",
        "outcome",
        "producer_id",
        "sent",
        "since_tick",
        "size",
        "txn_id",
        "waited_out",
    )

    def __init__(self, parcels: Sequence[Parcel]) -> None:
        """Encodes the body of `parcels`, all of one kind."""
        kind = parcels[0].kind
        payloads = parcels[0].payloads
        if len(parcels) > 1:
            payloads = [payload for parcel in parcels for payload in parcel.payloads]
        self._parcels = parcels
        self._kind = kind
        self._body = encode_body(kind.header, payloads)
        self._crc = crc32c(self._body)
        self.size = kind.overhead - len(kind.header) + len(self._body)
        self.count = len(payloads)
        self.keyed = kind.keyed
        self.txn_id = kind.txn_id
        self.number = self.since_tick = self.sent = 0
        self.producer_id = b""
        self.name = ""
        self.epoch = 0
        self.outcome: Written | WalError | None = None
        self._until = _latest(parcels)
        self.waited_out = False

    def fill(self, entry: log_pb2.Entry) -> None:
        """Writes the batch into an empty entry."""
        entry.envelope.CopyFrom(self._kind.envelope)
        entry.envelope.count = self.count
        if not self.keyed:
            self._write_number(entry.envelope.producer)
        entry.body = self._body
        entry.body_crc32c = self._crc

    def encode(self, trace_parent: str = "") -> tuple[bytes, ...]:
        """What `fill` makes, serialised, in pieces: the body, nearly all of it, is not copied.

        Args:
            trace_parent: context to send instead of that of the messages.
        """
        own = log_pb2.Envelope(count=self.count)
        if not self.keyed:
            self._write_number(own.producer)
        if trace_parent:
            own.trace_parent = trace_parent
        # serialised messages one after the other are one message that has the fields of both
        envelope = self._kind.encoded + own.SerializeToString()
        return encode_entry(envelope, self._body, self._crc)

    @property
    def until(self) -> float | None:
        """When none of its callers has time for locks that others hold; None = never.

        Nor once it was sent before: an older copy may come yet, and its number must be taken then.
        """
        return self._until if self.sent == 1 else None

    @property
    def parcels(self) -> Sequence[Parcel]:
        """What travels together."""
        return self._parcels

    @property
    def calls(self) -> int:
        """How many calls its messages are from."""
        return len(self._parcels)

    @property
    def trace_parent(self) -> str:
        """Context of its messages; empty when they are not traced."""
        return self._kind.envelope.trace_parent

    def trace_attributes(self) -> Attributes:
        """What a span says of it."""
        envelope = self._kind.envelope
        return attributes_of(envelope, MessageType(envelope.type).name)

    def resolve(self, written: Written) -> None:
        """Tells every caller where its messages are."""
        if len(self._parcels) == 1:
            self._parcels[0].settle(written)
            return
        message_id, first_tick, confirmed = written
        backend, record, entry_index, offset = message_id
        for parcel in self._parcels:
            place = MessageID(backend, record, entry_index, offset)
            parcel.settle(Written(place, first_tick + offset, confirmed))
            offset += len(parcel.payloads)

    def forget(self) -> None:
        """It is sent again: whatever was answered before is of no meaning now."""
        self.outcome, self.waited_out = None, False

    def fail(self, error: WalError) -> None:
        """Tells every caller why there is no result."""
        for parcel in self._parcels:
            parcel.fail(error)

    def _write_number(self, producer: log_pb2.ProducerBatch) -> None:
        producer.number = self.number
        if self.name:
            producer.name, producer.epoch = self.name, self.epoch
        else:
            producer.producer_id, producer.since_tick = self.producer_id, self.since_tick


def _latest(parcels: Sequence[Parcel]) -> float | None:
    """When the last of the callers has no more time; None when one has all of it."""
    latest = parcels[0].until
    for parcel in parcels[1:]:
        if latest is None or parcel.until is None:
            return None
        latest = max(latest, parcel.until)
    return latest


class Waiting:
    """Parcels of one lane that no batch has taken, in the order of the calls.

    Attributes:
        messages: in all of them; 0 when there is none.
        size: bytes they add to the bodies of entries.
    """

    __slots__ = ("_parcels", "messages", "size")

    def __init__(self) -> None:
        """None yet."""
        self._parcels: OrderedDict[Parcel, None] = OrderedDict()  # they leave from anywhere
        self.messages = self.size = 0

    @property
    def first(self) -> Parcel:
        """The one whose turn it is; there has to be one."""
        return next(iter(self._parcels))

    def add(self, parcel: Parcel) -> None:
        """Takes `parcel` behind all others."""
        parcel.queue = self
        self._parcels[parcel] = None
        self.messages += len(parcel.payloads)
        self.size += parcel.size

    def put_back(self, parcels: Sequence[Parcel]) -> None:
        """Takes what no log holds before all others, in its order; drops what was given up."""
        for parcel in reversed(parcels):
            parcel.taken = False
            if parcel.given_up is not None:
                parcel.drop()
                continue
            self.add(parcel)
            self._parcels.move_to_end(parcel, last=False)

    def leave(self, parcel: Parcel) -> None:
        """Drops `parcel` if it waits here: it was given up."""
        if parcel in self._parcels:
            del self._parcels[parcel]
            self.messages -= len(parcel.payloads)
            self.size -= parcel.size
            parcel.drop()

    def take(self, messages: int, size: int) -> Sequence[Parcel]:
        """The next entry's parcels, off the head; there has to be one.

        At most `messages` messages and `size` bytes, but one parcel at least.
        """
        taken: list[Parcel] = []
        count = total = taken_bytes = 0
        for parcel in self._parcels:
            if taken and (
                not parcel.kind.joins(taken[0].kind)
                or count + len(parcel.payloads) > messages
                or total + parcel.size > size
            ):
                break
            total += parcel.size if taken else parcel.size + parcel.kind.overhead
            taken.append(parcel)
            parcel.taken = True
            count += len(parcel.payloads)
            taken_bytes += parcel.size
        self.messages -= count
        self.size -= taken_bytes
        if self.messages:
            for parcel in taken:
                del self._parcels[parcel]
        else:
            self._parcels.clear()
        return taken

    def fail(self, error: WalError) -> None:
        """Tells every caller why there is no result."""
        parcels, self._parcels = self._parcels, OrderedDict()
        self.messages = self.size = 0
        for parcel in parcels:
            parcel.fail(error)


def too_large(vchannel: str, size: int, limit: int) -> WalError:
    """The error of a message that no entry can hold."""
    return WalError(
        ErrorCode.INVALID_ARGUMENT,
        f"message of {size} bytes, properties included, for {vchannel} is larger than the {limit} "
        "bytes that its backend takes: split it",
    )


def unfit(vchannel: str, error: Exception) -> WalError:
    """The error of messages that no entry could be made of, for `error`."""
    return WalError(
        ErrorCode.INVALID_ARGUMENT,
        f"no entry can be made of messages for {vchannel}: {error!r}; leave their payloads as they "
        "are until the append is answered",
    )
