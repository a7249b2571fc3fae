from walplane.rpc.v1 import errors_pb2 as _errors_pb2
from walplane.rpc.v1 import log_pb2 as _log_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StartKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    START_EARLIEST: _ClassVar[StartKind]
    START_LATEST: _ClassVar[StartKind]
    START_TOKEN: _ClassVar[StartKind]
    START_FROM_ID: _ClassVar[StartKind]
    START_AFTER_ID: _ClassVar[StartKind]
START_EARLIEST: StartKind
START_LATEST: StartKind
START_TOKEN: StartKind
START_FROM_ID: StartKind
START_AFTER_ID: StartKind

class OpenProduce(_message.Message):
    __slots__ = ("pchannel", "term")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    term: int
    def __init__(self, pchannel: _Optional[str] = ..., term: _Optional[int] = ...) -> None: ...

class AppendRequest(_message.Message):
    __slots__ = ("request_id", "entry", "wait_ms")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    entry: _log_pb2.Entry
    wait_ms: int
    def __init__(self, request_id: _Optional[int] = ..., entry: _Optional[_Union[_log_pb2.Entry, _Mapping]] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class ProduceRequest(_message.Message):
    __slots__ = ("open", "append")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    open: OpenProduce
    append: AppendRequest
    def __init__(self, open: _Optional[_Union[OpenProduce, _Mapping]] = ..., append: _Optional[_Union[AppendRequest, _Mapping]] = ...) -> None: ...

class AppendResult(_message.Message):
    __slots__ = ("message_id", "first_tick", "count", "last_confirmed", "term", "open_number")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_TICK_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    OPEN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    message_id: _log_pb2.MessageID
    first_tick: int
    count: int
    last_confirmed: _log_pb2.MessageID
    term: int
    open_number: int
    def __init__(self, message_id: _Optional[_Union[_log_pb2.MessageID, _Mapping]] = ..., first_tick: _Optional[int] = ..., count: _Optional[int] = ..., last_confirmed: _Optional[_Union[_log_pb2.MessageID, _Mapping]] = ..., term: _Optional[int] = ..., open_number: _Optional[int] = ...) -> None: ...

class AppendResponse(_message.Message):
    __slots__ = ("request_id", "result", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    result: AppendResult
    error: _errors_pb2.WalplaneError
    def __init__(self, request_id: _Optional[int] = ..., result: _Optional[_Union[AppendResult, _Mapping]] = ..., error: _Optional[_Union[_errors_pb2.WalplaneError, _Mapping]] = ...) -> None: ...

class ProduceOpened(_message.Message):
    __slots__ = ("term", "max_entry_bytes")
    TERM_FIELD_NUMBER: _ClassVar[int]
    MAX_ENTRY_BYTES_FIELD_NUMBER: _ClassVar[int]
    term: int
    max_entry_bytes: int
    def __init__(self, term: _Optional[int] = ..., max_entry_bytes: _Optional[int] = ...) -> None: ...

class ProduceResponse(_message.Message):
    __slots__ = ("opened", "appends", "settled_tick", "packed_bytes")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    APPENDS_FIELD_NUMBER: _ClassVar[int]
    SETTLED_TICK_FIELD_NUMBER: _ClassVar[int]
    PACKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    opened: ProduceOpened
    appends: _containers.RepeatedCompositeFieldContainer[AppendResponse]
    settled_tick: int
    packed_bytes: int
    def __init__(self, opened: _Optional[_Union[ProduceOpened, _Mapping]] = ..., appends: _Optional[_Iterable[_Union[AppendResponse, _Mapping]]] = ..., settled_tick: _Optional[int] = ..., packed_bytes: _Optional[int] = ...) -> None: ...

class StartPosition(_message.Message):
    __slots__ = ("kind", "token", "message_id")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    kind: StartKind
    token: _log_pb2.ResumeToken
    message_id: _log_pb2.MessageID
    def __init__(self, kind: _Optional[_Union[StartKind, str]] = ..., token: _Optional[_Union[_log_pb2.ResumeToken, _Mapping]] = ..., message_id: _Optional[_Union[_log_pb2.MessageID, _Mapping]] = ...) -> None: ...

class StartConsume(_message.Message):
    __slots__ = ("pchannel", "vchannel", "start", "follow", "credit_bytes", "term", "types", "from_tick", "until_tick", "raw")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    VCHANNEL_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    FROM_TICK_FIELD_NUMBER: _ClassVar[int]
    UNTIL_TICK_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    vchannel: str
    start: StartPosition
    follow: bool
    credit_bytes: int
    term: int
    types: _containers.RepeatedScalarFieldContainer[int]
    from_tick: int
    until_tick: int
    raw: bool
    def __init__(self, pchannel: _Optional[str] = ..., vchannel: _Optional[str] = ..., start: _Optional[_Union[StartPosition, _Mapping]] = ..., follow: _Optional[bool] = ..., credit_bytes: _Optional[int] = ..., term: _Optional[int] = ..., types: _Optional[_Iterable[int]] = ..., from_tick: _Optional[int] = ..., until_tick: _Optional[int] = ..., raw: _Optional[bool] = ...) -> None: ...

class ConsumeRequest(_message.Message):
    __slots__ = ("start", "credit_bytes")
    START_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    start: StartConsume
    credit_bytes: int
    def __init__(self, start: _Optional[_Union[StartConsume, _Mapping]] = ..., credit_bytes: _Optional[int] = ...) -> None: ...

class DeliveredEntry(_message.Message):
    __slots__ = ("entry", "message_id", "open_number")
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    OPEN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    entry: _log_pb2.Entry
    message_id: _log_pb2.MessageID
    open_number: int
    def __init__(self, entry: _Optional[_Union[_log_pb2.Entry, _Mapping]] = ..., message_id: _Optional[_Union[_log_pb2.MessageID, _Mapping]] = ..., open_number: _Optional[int] = ...) -> None: ...

class ConsumeResponse(_message.Message):
    __slots__ = ("entries", "watermark", "end", "position", "begins_at")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    BEGINS_AT_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[DeliveredEntry]
    watermark: int
    end: bool
    position: _log_pb2.ResumeToken
    begins_at: _log_pb2.MessageID
    def __init__(self, entries: _Optional[_Iterable[_Union[DeliveredEntry, _Mapping]]] = ..., watermark: _Optional[int] = ..., end: _Optional[bool] = ..., position: _Optional[_Union[_log_pb2.ResumeToken, _Mapping]] = ..., begins_at: _Optional[_Union[_log_pb2.MessageID, _Mapping]] = ...) -> None: ...

class OpenProducerRequest(_message.Message):
    __slots__ = ("pchannel", "term", "vchannel", "name", "opener", "after_epoch")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    VCHANNEL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPENER_FIELD_NUMBER: _ClassVar[int]
    AFTER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    term: int
    vchannel: str
    name: str
    opener: bytes
    after_epoch: int
    def __init__(self, pchannel: _Optional[str] = ..., term: _Optional[int] = ..., vchannel: _Optional[str] = ..., name: _Optional[str] = ..., opener: _Optional[bytes] = ..., after_epoch: _Optional[int] = ...) -> None: ...

class OpenProducerResponse(_message.Message):
    __slots__ = ("epoch", "next_number")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NEXT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    next_number: int
    def __init__(self, epoch: _Optional[int] = ..., next_number: _Optional[int] = ...) -> None: ...

class NodeStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ChannelStatus(_message.Message):
    __slots__ = ("pchannel", "term", "open_number", "state", "watermark", "checkpoint_tick", "last_error_attempts", "last_error", "term_floor", "vchannels", "in_flight_bytes")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    OPEN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_TICK_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    TERM_FLOOR_FIELD_NUMBER: _ClassVar[int]
    VCHANNELS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    term: int
    open_number: int
    state: str
    watermark: int
    checkpoint_tick: int
    last_error_attempts: int
    last_error: str
    term_floor: int
    vchannels: int
    in_flight_bytes: int
    def __init__(self, pchannel: _Optional[str] = ..., term: _Optional[int] = ..., open_number: _Optional[int] = ..., state: _Optional[str] = ..., watermark: _Optional[int] = ..., checkpoint_tick: _Optional[int] = ..., last_error_attempts: _Optional[int] = ..., last_error: _Optional[str] = ..., term_floor: _Optional[int] = ..., vchannels: _Optional[int] = ..., in_flight_bytes: _Optional[int] = ...) -> None: ...

class NodeStatusResponse(_message.Message):
    __slots__ = ("node_id", "version", "channels")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    version: str
    channels: _containers.RepeatedCompositeFieldContainer[ChannelStatus]
    def __init__(self, node_id: _Optional[str] = ..., version: _Optional[str] = ..., channels: _Optional[_Iterable[_Union[ChannelStatus, _Mapping]]] = ...) -> None: ...
