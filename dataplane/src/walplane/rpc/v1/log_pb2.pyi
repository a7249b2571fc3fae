from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PayloadFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PAYLOAD_FORMAT_RAW: _ClassVar[PayloadFormat]
    PAYLOAD_FORMAT_ARROW_STREAM: _ClassVar[PayloadFormat]

class TxnKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TXN_KIND_NONE: _ClassVar[TxnKind]
    TXN_KIND_PART: _ClassVar[TxnKind]
    TXN_KIND_WHOLE: _ClassVar[TxnKind]

class ResourceDomain(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESOURCE_DOMAIN_UNSPECIFIED: _ClassVar[ResourceDomain]
    RESOURCE_DOMAIN_CLUSTER: _ClassVar[ResourceDomain]
    RESOURCE_DOMAIN_DB_NAME: _ClassVar[ResourceDomain]
    RESOURCE_DOMAIN_COLLECTION_NAME: _ClassVar[ResourceDomain]
    RESOURCE_DOMAIN_PRIVILEGE: _ClassVar[ResourceDomain]
    RESOURCE_DOMAIN_SNAPSHOT_NAME: _ClassVar[ResourceDomain]

class TxnEnd(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TXN_END_UNSPECIFIED: _ClassVar[TxnEnd]
    TXN_END_COMMITTED: _ClassVar[TxnEnd]
    TXN_END_ROLLED_BACK: _ClassVar[TxnEnd]
    TXN_END_EXPIRED: _ClassVar[TxnEnd]
    TXN_END_FORCED: _ClassVar[TxnEnd]

class StreamKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STREAM_KIND_SEGMENT: _ClassVar[StreamKind]
    STREAM_KIND_UNASSIGNED: _ClassVar[StreamKind]
    STREAM_KIND_DELETES: _ClassVar[StreamKind]
PAYLOAD_FORMAT_RAW: PayloadFormat
PAYLOAD_FORMAT_ARROW_STREAM: PayloadFormat
TXN_KIND_NONE: TxnKind
TXN_KIND_PART: TxnKind
TXN_KIND_WHOLE: TxnKind
RESOURCE_DOMAIN_UNSPECIFIED: ResourceDomain
RESOURCE_DOMAIN_CLUSTER: ResourceDomain
RESOURCE_DOMAIN_DB_NAME: ResourceDomain
RESOURCE_DOMAIN_COLLECTION_NAME: ResourceDomain
RESOURCE_DOMAIN_PRIVILEGE: ResourceDomain
RESOURCE_DOMAIN_SNAPSHOT_NAME: ResourceDomain
TXN_END_UNSPECIFIED: TxnEnd
TXN_END_COMMITTED: TxnEnd
TXN_END_ROLLED_BACK: TxnEnd
TXN_END_EXPIRED: TxnEnd
TXN_END_FORCED: TxnEnd
STREAM_KIND_SEGMENT: StreamKind
STREAM_KIND_UNASSIGNED: StreamKind
STREAM_KIND_DELETES: StreamKind

class MessageID(_message.Message):
    __slots__ = ("backend", "record", "entry_index", "message_index")
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    ENTRY_INDEX_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    backend: str
    record: _containers.RepeatedScalarFieldContainer[int]
    entry_index: int
    message_index: int
    def __init__(self, backend: _Optional[str] = ..., record: _Optional[_Iterable[int]] = ..., entry_index: _Optional[int] = ..., message_index: _Optional[int] = ...) -> None: ...

class ResumeToken(_message.Message):
    __slots__ = ("last_confirmed", "time_tick", "term", "open_number", "pchannel")
    LAST_CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    TIME_TICK_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    OPEN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    last_confirmed: MessageID
    time_tick: int
    term: int
    open_number: int
    pchannel: str
    def __init__(self, last_confirmed: _Optional[_Union[MessageID, _Mapping]] = ..., time_tick: _Optional[int] = ..., term: _Optional[int] = ..., open_number: _Optional[int] = ..., pchannel: _Optional[str] = ...) -> None: ...

class ProducerBatch(_message.Message):
    __slots__ = ("producer_id", "number", "since_tick", "name", "epoch", "opener")
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SINCE_TICK_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    OPENER_FIELD_NUMBER: _ClassVar[int]
    producer_id: bytes
    number: int
    since_tick: int
    name: str
    epoch: int
    opener: bytes
    def __init__(self, producer_id: _Optional[bytes] = ..., number: _Optional[int] = ..., since_tick: _Optional[int] = ..., name: _Optional[str] = ..., epoch: _Optional[int] = ..., opener: _Optional[bytes] = ...) -> None: ...

class TxnContext(_message.Message):
    __slots__ = ("txn_id", "kind", "keepalive_ms")
    TXN_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEEPALIVE_MS_FIELD_NUMBER: _ClassVar[int]
    txn_id: int
    kind: TxnKind
    keepalive_ms: int
    def __init__(self, txn_id: _Optional[int] = ..., kind: _Optional[_Union[TxnKind, str]] = ..., keepalive_ms: _Optional[int] = ...) -> None: ...

class ResourceKey(_message.Message):
    __slots__ = ("domain", "key", "shared")
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    domain: ResourceDomain
    key: str
    shared: bool
    def __init__(self, domain: _Optional[_Union[ResourceDomain, str]] = ..., key: _Optional[str] = ..., shared: _Optional[bool] = ...) -> None: ...

class BroadcastHeader(_message.Message):
    __slots__ = ("broadcast_id", "vchannels", "resource_keys", "ack_sync_up", "coord_term")
    BROADCAST_ID_FIELD_NUMBER: _ClassVar[int]
    VCHANNELS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_KEYS_FIELD_NUMBER: _ClassVar[int]
    ACK_SYNC_UP_FIELD_NUMBER: _ClassVar[int]
    COORD_TERM_FIELD_NUMBER: _ClassVar[int]
    broadcast_id: int
    vchannels: _containers.RepeatedScalarFieldContainer[str]
    resource_keys: _containers.RepeatedCompositeFieldContainer[ResourceKey]
    ack_sync_up: bool
    coord_term: int
    def __init__(self, broadcast_id: _Optional[int] = ..., vchannels: _Optional[_Iterable[str]] = ..., resource_keys: _Optional[_Iterable[_Union[ResourceKey, _Mapping]]] = ..., ack_sync_up: _Optional[bool] = ..., coord_term: _Optional[int] = ...) -> None: ...

class ReplicateHeader(_message.Message):
    __slots__ = ("cluster_id", "message_id", "last_confirmed", "time_tick", "vchannel", "txn")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    TIME_TICK_FIELD_NUMBER: _ClassVar[int]
    VCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    message_id: MessageID
    last_confirmed: MessageID
    time_tick: int
    vchannel: str
    txn: TxnContext
    def __init__(self, cluster_id: _Optional[str] = ..., message_id: _Optional[_Union[MessageID, _Mapping]] = ..., last_confirmed: _Optional[_Union[MessageID, _Mapping]] = ..., time_tick: _Optional[int] = ..., vchannel: _Optional[str] = ..., txn: _Optional[_Union[TxnContext, _Mapping]] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("version", "type", "vchannel", "collection_id", "partition_id", "schema_version", "term", "first_tick", "count", "watermark", "last_confirmed", "producer", "txn", "payload_format", "trace_parent", "broadcast", "replicate", "properties", "is_pchannel_level", "segment_id")
    class PropertiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VCHANNEL_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    FIRST_TICK_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    LAST_CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FORMAT_FIELD_NUMBER: _ClassVar[int]
    TRACE_PARENT_FIELD_NUMBER: _ClassVar[int]
    BROADCAST_FIELD_NUMBER: _ClassVar[int]
    REPLICATE_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    IS_PCHANNEL_LEVEL_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    version: int
    type: int
    vchannel: str
    collection_id: int
    partition_id: int
    schema_version: int
    term: int
    first_tick: int
    count: int
    watermark: int
    last_confirmed: MessageID
    producer: ProducerBatch
    txn: TxnContext
    payload_format: PayloadFormat
    trace_parent: str
    broadcast: BroadcastHeader
    replicate: ReplicateHeader
    properties: _containers.ScalarMap[str, str]
    is_pchannel_level: bool
    segment_id: int
    def __init__(self, version: _Optional[int] = ..., type: _Optional[int] = ..., vchannel: _Optional[str] = ..., collection_id: _Optional[int] = ..., partition_id: _Optional[int] = ..., schema_version: _Optional[int] = ..., term: _Optional[int] = ..., first_tick: _Optional[int] = ..., count: _Optional[int] = ..., watermark: _Optional[int] = ..., last_confirmed: _Optional[_Union[MessageID, _Mapping]] = ..., producer: _Optional[_Union[ProducerBatch, _Mapping]] = ..., txn: _Optional[_Union[TxnContext, _Mapping]] = ..., payload_format: _Optional[_Union[PayloadFormat, str]] = ..., trace_parent: _Optional[str] = ..., broadcast: _Optional[_Union[BroadcastHeader, _Mapping]] = ..., replicate: _Optional[_Union[ReplicateHeader, _Mapping]] = ..., properties: _Optional[_Mapping[str, str]] = ..., is_pchannel_level: _Optional[bool] = ..., segment_id: _Optional[int] = ...) -> None: ...

class EntryBody(_message.Message):
    __slots__ = ("header", "sizes", "payloads")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    header: bytes
    sizes: _containers.RepeatedScalarFieldContainer[int]
    payloads: bytes
    def __init__(self, header: _Optional[bytes] = ..., sizes: _Optional[_Iterable[int]] = ..., payloads: _Optional[bytes] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("envelope", "body", "body_crc32c")
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    BODY_CRC32C_FIELD_NUMBER: _ClassVar[int]
    envelope: Envelope
    body: bytes
    body_crc32c: int
    def __init__(self, envelope: _Optional[_Union[Envelope, _Mapping]] = ..., body: _Optional[bytes] = ..., body_crc32c: _Optional[int] = ...) -> None: ...

class MetaBarrier(_message.Message):
    __slots__ = ("term", "open_number", "barrier_id")
    TERM_FIELD_NUMBER: _ClassVar[int]
    OPEN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    BARRIER_ID_FIELD_NUMBER: _ClassVar[int]
    term: int
    open_number: int
    barrier_id: bytes
    def __init__(self, term: _Optional[int] = ..., open_number: _Optional[int] = ..., barrier_id: _Optional[bytes] = ...) -> None: ...

class MetaDelta(_message.Message):
    __slots__ = ("component", "data")
    COMPONENT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    component: str
    data: bytes
    def __init__(self, component: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class MetaSnapshotBegin(_message.Message):
    __slots__ = ("snapshot_id", "barrier")
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    BARRIER_FIELD_NUMBER: _ClassVar[int]
    snapshot_id: int
    barrier: MetaBarrier
    def __init__(self, snapshot_id: _Optional[int] = ..., barrier: _Optional[_Union[MetaBarrier, _Mapping]] = ...) -> None: ...

class MetaSnapshotPart(_message.Message):
    __slots__ = ("snapshot_id", "component", "data")
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    COMPONENT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    snapshot_id: int
    component: str
    data: bytes
    def __init__(self, snapshot_id: _Optional[int] = ..., component: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class MetaSnapshotEnd(_message.Message):
    __slots__ = ("snapshot_id", "parts")
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    snapshot_id: int
    parts: int
    def __init__(self, snapshot_id: _Optional[int] = ..., parts: _Optional[int] = ...) -> None: ...

class MetaRecord(_message.Message):
    __slots__ = ("barrier", "delta", "snapshot_begin", "snapshot_part", "snapshot_end")
    BARRIER_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_BEGIN_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_PART_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_END_FIELD_NUMBER: _ClassVar[int]
    barrier: MetaBarrier
    delta: MetaDelta
    snapshot_begin: MetaSnapshotBegin
    snapshot_part: MetaSnapshotPart
    snapshot_end: MetaSnapshotEnd
    def __init__(self, barrier: _Optional[_Union[MetaBarrier, _Mapping]] = ..., delta: _Optional[_Union[MetaDelta, _Mapping]] = ..., snapshot_begin: _Optional[_Union[MetaSnapshotBegin, _Mapping]] = ..., snapshot_part: _Optional[_Union[MetaSnapshotPart, _Mapping]] = ..., snapshot_end: _Optional[_Union[MetaSnapshotEnd, _Mapping]] = ...) -> None: ...

class FrameContent(_message.Message):
    __slots__ = ("term", "open_number", "number", "acked", "entries", "meta")
    TERM_FIELD_NUMBER: _ClassVar[int]
    OPEN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    term: int
    open_number: int
    number: int
    acked: int
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    meta: _containers.RepeatedCompositeFieldContainer[MetaRecord]
    def __init__(self, term: _Optional[int] = ..., open_number: _Optional[int] = ..., number: _Optional[int] = ..., acked: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., meta: _Optional[_Iterable[_Union[MetaRecord, _Mapping]]] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("crc32c", "content")
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    crc32c: int
    content: bytes
    def __init__(self, crc32c: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class WALCheckpoint(_message.Message):
    __slots__ = ("last_confirmed", "time_tick", "term", "open_number", "coord_term")
    LAST_CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    TIME_TICK_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    OPEN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    COORD_TERM_FIELD_NUMBER: _ClassVar[int]
    last_confirmed: MessageID
    time_tick: int
    term: int
    open_number: int
    coord_term: int
    def __init__(self, last_confirmed: _Optional[_Union[MessageID, _Mapping]] = ..., time_tick: _Optional[int] = ..., term: _Optional[int] = ..., open_number: _Optional[int] = ..., coord_term: _Optional[int] = ...) -> None: ...

class ProducerWindow(_message.Message):
    __slots__ = ("producer_id", "vchannel", "results", "next_number", "last_tick", "forgotten_tick", "name", "epoch", "opener")
    class Result(_message.Message):
        __slots__ = ("number", "body_crc32c", "message_id", "first_tick", "count", "last_confirmed", "term", "open_number")
        NUMBER_FIELD_NUMBER: _ClassVar[int]
        BODY_CRC32C_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
        FIRST_TICK_FIELD_NUMBER: _ClassVar[int]
        COUNT_FIELD_NUMBER: _ClassVar[int]
        LAST_CONFIRMED_FIELD_NUMBER: _ClassVar[int]
        TERM_FIELD_NUMBER: _ClassVar[int]
        OPEN_NUMBER_FIELD_NUMBER: _ClassVar[int]
        number: int
        body_crc32c: int
        message_id: MessageID
        first_tick: int
        count: int
        last_confirmed: MessageID
        term: int
        open_number: int
        def __init__(self, number: _Optional[int] = ..., body_crc32c: _Optional[int] = ..., message_id: _Optional[_Union[MessageID, _Mapping]] = ..., first_tick: _Optional[int] = ..., count: _Optional[int] = ..., last_confirmed: _Optional[_Union[MessageID, _Mapping]] = ..., term: _Optional[int] = ..., open_number: _Optional[int] = ...) -> None: ...
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    VCHANNEL_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    LAST_TICK_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_TICK_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    OPENER_FIELD_NUMBER: _ClassVar[int]
    producer_id: bytes
    vchannel: str
    results: _containers.RepeatedCompositeFieldContainer[ProducerWindow.Result]
    next_number: int
    last_tick: int
    forgotten_tick: int
    name: str
    epoch: int
    opener: bytes
    def __init__(self, producer_id: _Optional[bytes] = ..., vchannel: _Optional[str] = ..., results: _Optional[_Iterable[_Union[ProducerWindow.Result, _Mapping]]] = ..., next_number: _Optional[int] = ..., last_tick: _Optional[int] = ..., forgotten_tick: _Optional[int] = ..., name: _Optional[str] = ..., epoch: _Optional[int] = ..., opener: _Optional[bytes] = ...) -> None: ...

class EndedTxn(_message.Message):
    __slots__ = ("txn_id", "end", "time_tick", "result")
    TXN_ID_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TIME_TICK_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    txn_id: int
    end: TxnEnd
    time_tick: int
    result: ProducerWindow.Result
    def __init__(self, txn_id: _Optional[int] = ..., end: _Optional[_Union[TxnEnd, str]] = ..., time_tick: _Optional[int] = ..., result: _Optional[_Union[ProducerWindow.Result, _Mapping]] = ...) -> None: ...

class EndedTxns(_message.Message):
    __slots__ = ("txns", "forgotten_tick")
    TXNS_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_TICK_FIELD_NUMBER: _ClassVar[int]
    txns: _containers.RepeatedCompositeFieldContainer[EndedTxn]
    forgotten_tick: int
    def __init__(self, txns: _Optional[_Iterable[_Union[EndedTxn, _Mapping]]] = ..., forgotten_tick: _Optional[int] = ...) -> None: ...

class KeyedResult(_message.Message):
    __slots__ = ("vchannel", "key", "type", "partition_id", "result")
    VCHANNEL_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PARTITION_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    vchannel: str
    key: str
    type: int
    partition_id: int
    result: ProducerWindow.Result
    def __init__(self, vchannel: _Optional[str] = ..., key: _Optional[str] = ..., type: _Optional[int] = ..., partition_id: _Optional[int] = ..., result: _Optional[_Union[ProducerWindow.Result, _Mapping]] = ...) -> None: ...

class KeyedResults(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[KeyedResult]
    def __init__(self, results: _Optional[_Iterable[_Union[KeyedResult, _Mapping]]] = ...) -> None: ...

class SegmentPart(_message.Message):
    __slots__ = ("path", "first_tick", "last_tick", "rows", "bytes", "crc32c")
    PATH_FIELD_NUMBER: _ClassVar[int]
    FIRST_TICK_FIELD_NUMBER: _ClassVar[int]
    LAST_TICK_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    path: str
    first_tick: int
    last_tick: int
    rows: int
    bytes: int
    crc32c: int
    def __init__(self, path: _Optional[str] = ..., first_tick: _Optional[int] = ..., last_tick: _Optional[int] = ..., rows: _Optional[int] = ..., bytes: _Optional[int] = ..., crc32c: _Optional[int] = ...) -> None: ...

class StoredStream(_message.Message):
    __slots__ = ("vchannel", "collection_id", "partition_id", "segment_id", "kind", "through_tick", "parts", "sealed_tick")
    VCHANNEL_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_ID_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    THROUGH_TICK_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    SEALED_TICK_FIELD_NUMBER: _ClassVar[int]
    vchannel: str
    collection_id: int
    partition_id: int
    segment_id: int
    kind: StreamKind
    through_tick: int
    parts: _containers.RepeatedCompositeFieldContainer[SegmentPart]
    sealed_tick: int
    def __init__(self, vchannel: _Optional[str] = ..., collection_id: _Optional[int] = ..., partition_id: _Optional[int] = ..., segment_id: _Optional[int] = ..., kind: _Optional[_Union[StreamKind, str]] = ..., through_tick: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[SegmentPart, _Mapping]]] = ..., sealed_tick: _Optional[int] = ...) -> None: ...

class SafePosition(_message.Message):
    __slots__ = ("message_id", "time_tick")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_TICK_FIELD_NUMBER: _ClassVar[int]
    message_id: MessageID
    time_tick: int
    def __init__(self, message_id: _Optional[_Union[MessageID, _Mapping]] = ..., time_tick: _Optional[int] = ...) -> None: ...

class DroppedVChannel(_message.Message):
    __slots__ = ("vchannel", "collection_id", "time_tick")
    VCHANNEL_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_TICK_FIELD_NUMBER: _ClassVar[int]
    vchannel: str
    collection_id: int
    time_tick: int
    def __init__(self, vchannel: _Optional[str] = ..., collection_id: _Optional[int] = ..., time_tick: _Optional[int] = ...) -> None: ...

class FlusherState(_message.Message):
    __slots__ = ("position", "streams", "safe", "dropped")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    SAFE_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    position: ResumeToken
    streams: _containers.RepeatedCompositeFieldContainer[StoredStream]
    safe: _containers.RepeatedCompositeFieldContainer[SafePosition]
    dropped: _containers.RepeatedCompositeFieldContainer[DroppedVChannel]
    def __init__(self, position: _Optional[_Union[ResumeToken, _Mapping]] = ..., streams: _Optional[_Iterable[_Union[StoredStream, _Mapping]]] = ..., safe: _Optional[_Iterable[_Union[SafePosition, _Mapping]]] = ..., dropped: _Optional[_Iterable[_Union[DroppedVChannel, _Mapping]]] = ...) -> None: ...
