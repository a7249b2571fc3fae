"""The entries that the shards' owner writes by itself. Pure. Layer: wal."""

from __future__ import annotations

from google.protobuf.message import Message

from walplane.message import codec
from walplane.message.builder import VERSION
from walplane.message.registry import MessageType
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.wal.shard.config import ShardConfig
from walplane.wal.shard.segments import Segment, VChannelMeta


def create_segment(
    meta: VChannelMeta, partition_id: int, segment_id: int, config: ShardConfig
) -> log_pb2.Entry:
    """Announces a segment; `segment_id` is the tick that the entry gets."""
    header = headers_pb2.CreateSegmentHeader(
        segment_id=segment_id, max_rows=config.segment_rows, max_bytes=config.segment_bytes
    )
    kind, version = MessageType.CREATE_SEGMENT, meta.schema_version
    return _entry(kind, meta.vchannel, meta.collection_id, partition_id, version, header)


def flush(segment: Segment) -> log_pb2.Entry:
    """Seals a segment and says what it holds."""
    header = headers_pb2.FlushHeader(
        segment_id=segment.segment_id, rows=segment.rows, bytes=segment.bytes
    )
    return _entry(
        MessageType.FLUSH,
        segment.vchannel,
        segment.collection_id,
        segment.partition_id,
        segment.schema_version,
        header,
    )


def _entry(
    kind: MessageType,
    vchannel: str,
    collection_id: int,
    partition_id: int,
    schema_version: int,
    header: Message,
) -> log_pb2.Entry:
    envelope = log_pb2.Envelope(
        version=VERSION,
        type=kind,
        vchannel=vchannel,
        collection_id=collection_id,
        partition_id=partition_id,
        schema_version=schema_version,
        count=1,
    )
    return codec.seal_entry(envelope, codec.encode_body(header.SerializeToString(), [b""]))
