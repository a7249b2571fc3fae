"""From the messages of one call to the parcels that are sent. Layer: client.

Contract: the order of the messages of each VChannel is kept. Neighbours that agree in all but their
payloads share a parcel; a message, with all its payloads, is never divided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from google.protobuf.message import Message

from walplane.client.batcher import Kind, Parcel
from walplane.message.builder import MutableMessage, check_payloads
from walplane.message.registry import IDEMPOTENCY_KEY, MessageType
from walplane.message.types import DATA_TYPES
from walplane.rpc.errors import ErrorCode, WalError

_MERGED = DATA_TYPES
"""Types whose messages may share an entry, where their header says nothing of its own: one row a
payload, whoever sent it."""

_KEPT_KINDS = 1024

_SHOWN = 60
"""Characters that an error gives of what is no message."""

_KindKey = tuple[str, MessageType, type[Message] | type[None], int, int, int, int]


class Packed(NamedTuple):
    """The messages of one call.

    Attributes:
        parcels: with their VChannels; in order per VChannel.
        slots: per message, where its first payload is when all parcels are laid end to end.
        counts: per message, how many payloads it has.
    """

    parcels: list[tuple[str, Parcel]]
    slots: Sequence[int]
    counts: Sequence[int]


def pack(messages: Iterable[MutableMessage], most: int, most_bytes: int) -> Packed:
    """The parcels of `messages`, of about `most` payloads or `most_bytes` bytes at most.

    Raises:
        WalError: INVALID_ARGUMENT for a message that no client may append; nothing is sent then.
    """
    open_runs: dict[str, _Run] = {}
    runs: list[_Run] = []
    numbers: list[int] = []  # per message: of its run
    offsets: list[int] = []  # and where it begins in that; pairs would be more for the collector
    counts: list[int] = []
    for message in messages:
        payloads = message.payloads
        count = len(payloads)
        try:
            size = len(payloads[0]) if count == 1 else sum(map(len, payloads))
        except TypeError:
            check_payloads(message, payloads)
            raise
        run = open_runs.get(message.vchannel)
        if (
            run is None
            or len(run.payloads) + count > most
            or run.size + size > most_bytes
            or not run.takes(message)
        ):
            run = open_runs[message.vchannel] = _Run(message, len(runs), run)
            runs.append(run)
        numbers.append(run.number)
        offsets.append(len(run.payloads))
        counts.append(count)
        run.payloads.extend(payloads)
        run.size += size
    starts = [0]
    for run in runs:
        starts.append(starts[-1] + len(run.payloads))
    slots = [starts[number] + offset for number, offset in zip(numbers, offsets, strict=True)]
    return Packed([(run.vchannel, run.parcel()) for run in runs], slots, counts)


def check_message(message: MutableMessage) -> None:
    """For whoever found an attribute missing: to look at each message first would cost every one.

    Raises:
        WalError: INVALID_ARGUMENT when it is no message at all.
    """
    if not isinstance(message, MutableMessage):
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"{_shortened(message)} is no message: make one with `insert(vchannel, payload)`, or "
            "what else is in walplane.message.builder",
        )


def check_messages(messages: Iterable[MutableMessage]) -> None:
    """See `check_message`."""
    for message in messages:
        check_message(message)


def by_vchannel(messages: Iterable[MutableMessage]) -> dict[str, list[int]]:
    """The places in `messages` of those of each VChannel, in order."""
    places: dict[str, list[int]] = {}
    for place, message in enumerate(messages):
        places.setdefault(message.vchannel, []).append(place)
    return places


class _Run:
    """Consecutive messages of one VChannel that share a parcel."""

    __slots__ = ("_first", "kind", "number", "payloads", "size")

    def __init__(self, first: MutableMessage, number: int, before: _Run | None) -> None:
        """Begins with `first`; a run that was only cut for its size lends its kind."""
        self._first = first
        same = before is not None and before.takes(first)
        self.kind: Kind = before.kind if before is not None and same else _kind_of(first)
        self.number = number
        self.payloads: list[bytes] = []
        self.size = self.kind.overhead

    @property
    def vchannel(self) -> str:
        return self._first.vchannel

    def takes(self, message: MutableMessage) -> bool:
        """Whether `message` differs from the others in its payloads only."""
        first = self._first
        return (
            self.kind.merges
            and first.type is message.type
            and message.header_is_empty
            and first.partition_id == message.partition_id
            and first.collection_id == message.collection_id
            and first.schema_version == message.schema_version
            and first.payload_format == message.payload_format
            and first.trace_parent == message.trace_parent
            and (first.properties is message.properties or first.properties == message.properties)
            and message.broadcast is None
        )

    def parcel(self) -> Parcel:
        check_payloads(self._first, self.payloads)
        return Parcel(self.kind, self.payloads, self.size - self.kind.overhead)


class Kinds:
    """Kinds of plain messages, kept: to make one costs more than all else about one message."""

    def __init__(self) -> None:
        """None kept yet."""
        self._kept: dict[_KindKey, Kind] = {}

    def parcel(self, message: MutableMessage) -> Parcel:
        """A parcel of `message` alone.

        Raises:
            WalError: INVALID_ARGUMENT for a message that no client may append.
        """
        payloads = message.payloads
        if not (len(payloads) == 1 and type(payloads[0]) is bytes):
            check_payloads(message, payloads)
        size = len(payloads[0]) if len(payloads) == 1 else sum(map(len, payloads))
        return Parcel(self._kind(message), payloads, size)

    def _kind(self, message: MutableMessage) -> Kind:
        if (
            len(message.payloads) != 1
            or message.type not in _MERGED
            or message.properties
            or message.trace_parent
            or message.broadcast is not None
            or message.is_pchannel_level
            or not message.header_is_empty
        ):
            return _kind_of(message)
        key = (
            message.vchannel,
            message.type,
            type(message.header),
            message.collection_id,
            message.partition_id,
            message.schema_version,
            message.payload_format,
        )
        kind = self._kept.get(key)
        if kind is None:
            if len(self._kept) >= _KEPT_KINDS:
                self._kept.clear()
            kind = self._kept[key] = _kind_of(message)
        return kind


def _kind_of(message: MutableMessage) -> Kind:
    plain = message.type in _MERGED and message.broadcast is None
    merges = plain and IDEMPOTENCY_KEY not in message.properties and message.header_is_empty
    return Kind(message.envelope(), message.encoded_header(), merges=merges)


def _shortened(thing: object) -> str:
    text = repr(thing)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
