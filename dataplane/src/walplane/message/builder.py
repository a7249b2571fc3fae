"""Messages before they are appended, and the one way to make them.

Contract: a `MutableMessage` holds N >= 1 messages of one type for one VChannel that are appended
as one entry; a `BroadcastMutableMessage` splits into one per VChannel. What the registry says of a
type is checked here, before anything is sent. Layer: message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from types import MappingProxyType

from google.protobuf.message import Message

from walplane.message import codec
from walplane.message.registry import (
    IDEMPOTENCY_KEY,
    UNREPLICABLE,
    Dispatch,
    MessageType,
    check_client_entry,
    spec_of,
)
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2

VERSION = 1
"""Payload format version of the entries made here."""

_NO_PROPERTIES: Mapping[str, str] = MappingProxyType({})
"""Those of every message that has none; nobody can add to them."""


@dataclass(slots=True)  # a frozen one takes three times as long to make
class MutableMessage:
    """One entry to be: everything but what the WAL stamps; nobody changes it once it is appended.

    Attributes:
        type: what it is.
        vchannel: where it goes.
        header: the type's header; None = nothing is set in it, which is cheaper to make, to compare
            and to collect than a message of protobuf.
        payloads: one a message; at least one, each may be empty.
        payload_format: how a reader decodes them.
        collection_id: the collection; 0 when the type has none.
        partition_id: the partition; 0 = the default one.
        schema_version: version of the schema the payloads follow; 0 = not checked.
        properties: the user's own; keys must not start with `_`. See `with_key`.
        trace_parent: W3C trace context.
        broadcast: set by `BroadcastMutableMessage.split`.
        is_pchannel_level: it is for a whole PChannel and names no VChannel.
    """

    type: MessageType
    vchannel: str
    header: Message | None = None
    payloads: Sequence[bytes] = (b"",)
    payload_format: log_pb2.PayloadFormat = log_pb2.PAYLOAD_FORMAT_RAW
    collection_id: int = 0
    partition_id: int = 0
    schema_version: int = 0
    properties: Mapping[str, str] = field(default_factory=lambda: _NO_PROPERTIES)
    trace_parent: str = ""
    broadcast: log_pb2.BroadcastHeader | None = None
    is_pchannel_level: bool = False

    def __reduce__(self) -> tuple[partial[MutableMessage], tuple[()]]:
        """Pickled with properties of its own: the view of none, which all share, cannot be."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return partial(MutableMessage, **{**values, "properties": dict(self.properties)}), ()

    @property
    def header_is_empty(self) -> bool:
        """Whether nothing is set in the header."""
        return self.header is None or not self.header.ByteSize()

    def encoded_header(self) -> bytes:
        """The header, serialised."""
        # Deterministic: a restarted producer's repeat must have the checksum of the first try.
        return b"" if self.header is None else self.header.SerializeToString(deterministic=True)

    def with_key(self, idempotency_key: str) -> MutableMessage:
        """The same message under a key of the caller's.

        It is appended to its VChannel once, however often and by whom it is appended there under
        that key, as long as the node remembers the key (`WALConfig.key_results` and the like).
        Another message under the same key is refused. Inserts and Deletes only, and not in
        transactions.
        """
        return replace(self, properties={**self.properties, IDEMPOTENCY_KEY: idempotency_key})

    def envelope(self) -> log_pb2.Envelope:
        """The envelope without producer, ticks and term.

        Raises:
            WalError: INVALID_ARGUMENT for what no client may append.
        """
        envelope = log_pb2.Envelope(
            version=VERSION,
            type=self.type,
            vchannel=self.vchannel,
            collection_id=self.collection_id,
            partition_id=self.partition_id,
            schema_version=self.schema_version,
            count=len(self.payloads),
            payload_format=self.payload_format,
            trace_parent=self.trace_parent,
            broadcast=self.broadcast,
            properties=self.properties,
            is_pchannel_level=self.is_pchannel_level,
        )
        spec = check_client_entry(envelope)
        if not spec.replicable:
            envelope.properties[UNREPLICABLE] = "1"
        if self.header is not None and not isinstance(self.header, spec.header):
            raise _invalid(
                f"{self.type.name} takes a {spec.header.__name__}, "
                f"not a {type(self.header).__name__}",
            )
        return envelope

    def to_entry(self) -> log_pb2.Entry:
        """The entry as it is sent.

        Raises:
            WalError: INVALID_ARGUMENT for what no client may append.
        """
        check_payloads(self, self.payloads)
        body = codec.encode_body(self.encoded_header(), self.payloads)
        return codec.seal_entry(self.envelope(), body)


@dataclass(frozen=True, slots=True)
class BroadcastMutableMessage:
    """One message for many channels.

    Attributes:
        message: what each of them gets; its VChannel is not used.
        vchannels: the targets, each once: VChannels, the CChannel included where the type's
            dispatch says so, or PChannels when it goes to every one of them.
    """

    message: MutableMessage
    vchannels: Sequence[str]

    def split(self, broadcast_id: int, coord_term: int) -> list[MutableMessage]:
        """One message per target, in the order of `vchannels`, each with the broadcast header.

        Raises:
            WalError: INVALID_ARGUMENT for a type that is not broadcast, or for no or doubled
                targets.
        """
        spec = spec_of(self.message.type)
        if not spec.is_broadcast:
            raise _invalid(f"{spec.type.name} goes to {spec.dispatch.value}: append it there")
        if not self.vchannels or len(set(self.vchannels)) < len(self.vchannels):
            raise _invalid(
                f"a {spec.type.name} for {list(self.vchannels)}: name each target channel once"
            )
        said = self.message.header
        keys = spec.resource_keys(spec.header() if said is None else said)
        header = log_pb2.BroadcastHeader(
            broadcast_id=broadcast_id,
            vchannels=self.vchannels,
            resource_keys=[key.to_proto() for key in keys],
            ack_sync_up=spec.ack_sync_up,
            coord_term=coord_term,
        )
        whole = spec.dispatch is Dispatch.PCHANNELS
        return [
            replace(
                self.message,
                vchannel="" if whole else target,
                broadcast=header,
                is_pchannel_level=whole,
            )
            for target in self.vchannels
        ]


def _invalid(message: str) -> WalError:
    return WalError(ErrorCode.INVALID_ARGUMENT, message)


def check_payloads(message: MutableMessage, payloads: Sequence[bytes]) -> None:
    """Refuses what could not be put into an entry, before anything else is there with it.

    Args:
        message: one of those that `payloads` are of, for the error.
        payloads: of one or of several.

    Raises:
        WalError: INVALID_ARGUMENT for one that is neither bytes nor a buffer of bytes.
    """
    # two sweeps at the speed of C: this is done for every payload that is sent
    if list(map(type, payloads)).count(bytes) == len(payloads):
        return
    for payload in payloads:
        if not _is_bytes(payload):
            raise _invalid(
                f"a payload of {message.type.name} for {message.vchannel!r} is of type "
                f"{type(payload).__name__}, not bytes: encode it, text with `.encode()`"
            )


def _is_bytes(payload: object) -> bool:
    try:
        view = memoryview(payload)  # type: ignore[arg-type]
    except TypeError:
        return False
    return view.c_contiguous and view.ndim == 1 and view.itemsize == 1


def insert(
    vchannel: str,
    *payloads: bytes,
    collection_id: int = 0,
    partition_id: int = 0,
    schema_version: int = 0,
    rows: int = 0,
    payload_format: log_pb2.PayloadFormat = log_pb2.PAYLOAD_FORMAT_RAW,
    properties: Mapping[str, str] | None = None,
) -> MutableMessage:
    """Rows for one VChannel, appended together.

    Args:
        vchannel: where they go.
        payloads: one a message; text is refused when it is appended: encode it.
        collection_id: the collection.
        partition_id: the partition; 0 = the default one.
        schema_version: of the schema they follow; 0 = not checked.
        rows: rows in all payloads; 0 = one a payload.
        payload_format: how a reader decodes them.
        properties: the user's own.
    """
    return MutableMessage(
        MessageType.INSERT,
        vchannel,
        headers_pb2.InsertHeader(rows=rows) if rows else None,
        payloads,
        payload_format,
        collection_id,
        partition_id,
        schema_version,
        properties or _NO_PROPERTIES,
    )


def delete(
    vchannel: str,
    *payloads: bytes,
    collection_id: int = 0,
    partition_id: int = 0,
    schema_version: int = 0,
    rows: int = 0,
    payload_format: log_pb2.PayloadFormat = log_pb2.PAYLOAD_FORMAT_RAW,
    properties: Mapping[str, str] | None = None,
) -> MutableMessage:
    """Deletes for one VChannel; each payload names rows in the caller's own form.

    The arguments are those of `insert`; `rows` counts the rows that the payloads name.
    """
    return MutableMessage(
        MessageType.DELETE,
        vchannel,
        headers_pb2.DeleteHeader(rows=rows) if rows else None,
        payloads,
        payload_format,
        collection_id,
        partition_id,
        schema_version,
        properties or _NO_PROPERTIES,
    )


def manual_flush(vchannel: str, collection_id: int = 0) -> MutableMessage:
    """Seals whatever grows on one VChannel."""
    return MutableMessage(MessageType.MANUAL_FLUSH, vchannel, collection_id=collection_id)


def broadcast(
    type: MessageType,
    header: Message,
    targets: Iterable[str],
    *,
    payload: bytes = b"",
    schema_version: int = 0,
) -> BroadcastMutableMessage:
    """A message of any broadcast type for `targets`.

    The envelope's collection and partition are those that the header names, if it names any.

    Args:
        type: what it is.
        header: the type's header.
        targets: see `BroadcastMutableMessage.vchannels`.
        payload: what the header does not say.
        schema_version: the schema's version after the message; 0 = it has none.
    """
    message = MutableMessage(
        type,
        "",
        header,
        (payload,),
        collection_id=getattr(header, "collection_id", 0),
        partition_id=getattr(header, "partition_id", 0),
        schema_version=schema_version,
    )
    return BroadcastMutableMessage(message, list(targets))


def create_collection(
    header: headers_pb2.CreateCollectionHeader, cchannel: str
) -> BroadcastMutableMessage:
    """CreateCollection for the collection's VChannels and the CChannel."""
    return broadcast(
        MessageType.CREATE_COLLECTION,
        header,
        [*header.vchannels, cchannel],
        schema_version=header.schema_version,
    )


def drop_collection(
    header: headers_pb2.CollectionHeader, vchannels: Iterable[str], cchannel: str
) -> BroadcastMutableMessage:
    """DropCollection for the collection's VChannels and the CChannel."""
    return broadcast(MessageType.DROP_COLLECTION, header, [*vchannels, cchannel])
