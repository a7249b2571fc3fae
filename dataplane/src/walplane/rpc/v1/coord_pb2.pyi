from walplane.rpc.v1 import errors_pb2 as _errors_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ChannelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANNEL_STATE_UNINITIALIZED: _ClassVar[ChannelState]
    CHANNEL_STATE_ASSIGNING: _ClassVar[ChannelState]
    CHANNEL_STATE_ASSIGNED: _ClassVar[ChannelState]
    CHANNEL_STATE_UNAVAILABLE: _ClassVar[ChannelState]
CHANNEL_STATE_UNINITIALIZED: ChannelState
CHANNEL_STATE_ASSIGNING: ChannelState
CHANNEL_STATE_ASSIGNED: ChannelState
CHANNEL_STATE_UNAVAILABLE: ChannelState

class AssignmentError(_message.Message):
    __slots__ = ("pchannel", "term", "error")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    term: int
    error: _errors_pb2.WalplaneError
    def __init__(self, pchannel: _Optional[str] = ..., term: _Optional[int] = ..., error: _Optional[_Union[_errors_pb2.WalplaneError, _Mapping]] = ...) -> None: ...

class DiscoverRequest(_message.Message):
    __slots__ = ("errors",)
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    errors: _containers.RepeatedCompositeFieldContainer[AssignmentError]
    def __init__(self, errors: _Optional[_Iterable[_Union[AssignmentError, _Mapping]]] = ...) -> None: ...

class ChannelAssignment(_message.Message):
    __slots__ = ("pchannel", "term", "node_id", "address", "state", "vchannels", "reason", "attempts")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VCHANNELS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    term: int
    node_id: str
    address: str
    state: ChannelState
    vchannels: int
    reason: str
    attempts: int
    def __init__(self, pchannel: _Optional[str] = ..., term: _Optional[int] = ..., node_id: _Optional[str] = ..., address: _Optional[str] = ..., state: _Optional[_Union[ChannelState, str]] = ..., vchannels: _Optional[int] = ..., reason: _Optional[str] = ..., attempts: _Optional[int] = ...) -> None: ...

class DiscoverResponse(_message.Message):
    __slots__ = ("version_global", "version_local", "assignments", "cchannel")
    VERSION_GLOBAL_FIELD_NUMBER: _ClassVar[int]
    VERSION_LOCAL_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    CCHANNEL_FIELD_NUMBER: _ClassVar[int]
    version_global: int
    version_local: int
    assignments: _containers.RepeatedCompositeFieldContainer[ChannelAssignment]
    cchannel: str
    def __init__(self, version_global: _Optional[int] = ..., version_local: _Optional[int] = ..., assignments: _Optional[_Iterable[_Union[ChannelAssignment, _Mapping]]] = ..., cchannel: _Optional[str] = ...) -> None: ...

class TickBatchRequest(_message.Message):
    __slots__ = ("terms", "count")
    class TermsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    TERMS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    terms: _containers.ScalarMap[str, int]
    count: int
    def __init__(self, terms: _Optional[_Mapping[str, int]] = ..., count: _Optional[int] = ...) -> None: ...

class TickBatchResponse(_message.Message):
    __slots__ = ("first", "count", "lost", "ahead_ms")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    AHEAD_MS_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    lost: _containers.RepeatedScalarFieldContainer[str]
    ahead_ms: int
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ..., lost: _Optional[_Iterable[str]] = ..., ahead_ms: _Optional[int] = ...) -> None: ...

class FreshTickRequest(_message.Message):
    __slots__ = ("pchannel", "term")
    PCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    pchannel: str
    term: int
    def __init__(self, pchannel: _Optional[str] = ..., term: _Optional[int] = ...) -> None: ...

class FreshTickResponse(_message.Message):
    __slots__ = ("tick",)
    TICK_FIELD_NUMBER: _ClassVar[int]
    tick: int
    def __init__(self, tick: _Optional[int] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("name", "shards")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    shards: int
    def __init__(self, name: _Optional[str] = ..., shards: _Optional[int] = ...) -> None: ...

class DropCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DropCollectionResponse(_message.Message):
    __slots__ = ("collection_id",)
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    collection_id: int
    def __init__(self, collection_id: _Optional[int] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("collections",)
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[CollectionInfo]
    def __init__(self, collections: _Optional[_Iterable[_Union[CollectionInfo, _Mapping]]] = ...) -> None: ...

class DescribeCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CollectionInfo(_message.Message):
    __slots__ = ("name", "collection_id", "vchannels", "created_tick", "schema_version", "default_partition_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    VCHANNELS_FIELD_NUMBER: _ClassVar[int]
    CREATED_TICK_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_PARTITION_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    collection_id: int
    vchannels: _containers.RepeatedScalarFieldContainer[str]
    created_tick: int
    schema_version: int
    default_partition_id: int
    def __init__(self, name: _Optional[str] = ..., collection_id: _Optional[int] = ..., vchannels: _Optional[_Iterable[str]] = ..., created_tick: _Optional[int] = ..., schema_version: _Optional[int] = ..., default_partition_id: _Optional[int] = ...) -> None: ...
