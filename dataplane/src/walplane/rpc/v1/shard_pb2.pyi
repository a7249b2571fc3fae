from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SchemaChange(_message.Message):
    __slots__ = ("version", "time_tick")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_TICK_FIELD_NUMBER: _ClassVar[int]
    version: int
    time_tick: int
    def __init__(self, version: _Optional[int] = ..., time_tick: _Optional[int] = ...) -> None: ...

class SegmentAssignment(_message.Message):
    __slots__ = ("segment_id", "partition_id", "schema_version", "rows", "bytes", "last_tick", "flushed_tick")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    LAST_TICK_FIELD_NUMBER: _ClassVar[int]
    FLUSHED_TICK_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    partition_id: int
    schema_version: int
    rows: int
    bytes: int
    last_tick: int
    flushed_tick: int
    def __init__(self, segment_id: _Optional[int] = ..., partition_id: _Optional[int] = ..., schema_version: _Optional[int] = ..., rows: _Optional[int] = ..., bytes: _Optional[int] = ..., last_tick: _Optional[int] = ..., flushed_tick: _Optional[int] = ...) -> None: ...

class VChannelState(_message.Message):
    __slots__ = ("vchannel", "collection_id", "partition_ids", "schemas", "created_tick", "dropped_tick", "time_tick", "segments", "last_segment_id")
    VCHANNEL_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_IDS_FIELD_NUMBER: _ClassVar[int]
    SCHEMAS_FIELD_NUMBER: _ClassVar[int]
    CREATED_TICK_FIELD_NUMBER: _ClassVar[int]
    DROPPED_TICK_FIELD_NUMBER: _ClassVar[int]
    TIME_TICK_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    vchannel: str
    collection_id: int
    partition_ids: _containers.RepeatedScalarFieldContainer[int]
    schemas: _containers.RepeatedCompositeFieldContainer[SchemaChange]
    created_tick: int
    dropped_tick: int
    time_tick: int
    segments: _containers.RepeatedCompositeFieldContainer[SegmentAssignment]
    last_segment_id: int
    def __init__(self, vchannel: _Optional[str] = ..., collection_id: _Optional[int] = ..., partition_ids: _Optional[_Iterable[int]] = ..., schemas: _Optional[_Iterable[_Union[SchemaChange, _Mapping]]] = ..., created_tick: _Optional[int] = ..., dropped_tick: _Optional[int] = ..., time_tick: _Optional[int] = ..., segments: _Optional[_Iterable[_Union[SegmentAssignment, _Mapping]]] = ..., last_segment_id: _Optional[int] = ...) -> None: ...
