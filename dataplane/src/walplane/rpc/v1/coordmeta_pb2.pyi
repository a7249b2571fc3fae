from walplane.rpc.v1 import log_pb2 as _log_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CollectionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLLECTION_STATE_UNSPECIFIED: _ClassVar[CollectionState]
    COLLECTION_STATE_CREATING: _ClassVar[CollectionState]
    COLLECTION_STATE_NORMAL: _ClassVar[CollectionState]
    COLLECTION_STATE_DROPPING: _ClassVar[CollectionState]
    COLLECTION_STATE_DROPPED: _ClassVar[CollectionState]

class BroadcastState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BROADCAST_STATE_UNSPECIFIED: _ClassVar[BroadcastState]
    BROADCAST_STATE_PENDING: _ClassVar[BroadcastState]
    BROADCAST_STATE_TOMBSTONE: _ClassVar[BroadcastState]
COLLECTION_STATE_UNSPECIFIED: CollectionState
COLLECTION_STATE_CREATING: CollectionState
COLLECTION_STATE_NORMAL: CollectionState
COLLECTION_STATE_DROPPING: CollectionState
COLLECTION_STATE_DROPPED: CollectionState
BROADCAST_STATE_UNSPECIFIED: BroadcastState
BROADCAST_STATE_PENDING: BroadcastState
BROADCAST_STATE_TOMBSTONE: BroadcastState

class OracleDelta(_message.Message):
    __slots__ = ("mark", "terms")
    class TermsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MARK_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    mark: int
    terms: _containers.ScalarMap[str, int]
    def __init__(self, mark: _Optional[int] = ..., terms: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ChannelsDelta(_message.Message):
    __slots__ = ("pchannel_count", "cchannel", "terms")
    class TermsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PCHANNEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    CCHANNEL_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    pchannel_count: int
    cchannel: str
    terms: _containers.ScalarMap[str, int]
    def __init__(self, pchannel_count: _Optional[int] = ..., cchannel: _Optional[str] = ..., terms: _Optional[_Mapping[str, int]] = ...) -> None: ...

class CollectionMeta(_message.Message):
    __slots__ = ("collection_id", "name", "vchannels", "schema_version", "default_partition_id", "created_tick", "state")
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VCHANNELS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_PARTITION_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_TICK_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    collection_id: int
    name: str
    vchannels: _containers.RepeatedScalarFieldContainer[str]
    schema_version: int
    default_partition_id: int
    created_tick: int
    state: CollectionState
    def __init__(self, collection_id: _Optional[int] = ..., name: _Optional[str] = ..., vchannels: _Optional[_Iterable[str]] = ..., schema_version: _Optional[int] = ..., default_partition_id: _Optional[int] = ..., created_tick: _Optional[int] = ..., state: _Optional[_Union[CollectionState, str]] = ...) -> None: ...

class BroadcastTask(_message.Message):
    __slots__ = ("broadcast_id", "state", "message")
    BROADCAST_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    broadcast_id: int
    state: BroadcastState
    message: _log_pb2.Entry
    def __init__(self, broadcast_id: _Optional[int] = ..., state: _Optional[_Union[BroadcastState, str]] = ..., message: _Optional[_Union[_log_pb2.Entry, _Mapping]] = ...) -> None: ...

class CatalogDelta(_message.Message):
    __slots__ = ("next_id", "collections", "tasks")
    NEXT_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    next_id: int
    collections: _containers.RepeatedCompositeFieldContainer[CollectionMeta]
    tasks: _containers.RepeatedCompositeFieldContainer[BroadcastTask]
    def __init__(self, next_id: _Optional[int] = ..., collections: _Optional[_Iterable[_Union[CollectionMeta, _Mapping]]] = ..., tasks: _Optional[_Iterable[_Union[BroadcastTask, _Mapping]]] = ...) -> None: ...
