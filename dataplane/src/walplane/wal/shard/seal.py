"""Which growing segments a message seals, told from its envelope and header.

Contract: pure; one rule for the append path, the table and whoever follows the log. Whether a type
has a flush effect at all says the registry. Layer: wal.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import Message

from walplane.message.head import read_head
from walplane.message.registry import TABLE, MessageType, spec_of
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2

_PARTITION_TYPES = frozenset({MessageType.DROP_PARTITION})


class Seal(NamedTuple):
    """The growing segments that a message seals.

    Attributes:
        vchannel: where they are; empty = everywhere on the PChannel.
        partition_id: the partition they are in; None = in all.
        segment_id: the only one; 0 = all of them.
    """

    vchannel: str = ""
    partition_id: int | None = None
    segment_id: int = 0

    def covers(self, vchannel: str, partition_id: int, segment_id: int) -> bool:
        """Whether it seals that segment."""
        if self.segment_id:
            return segment_id == self.segment_id
        if self.vchannel not in ("", vchannel):
            return False
        return self.partition_id in (None, partition_id)


_MAY_FLUSH = frozenset(
    spec.type.value
    for spec in TABLE
    if spec.flushes(headers_pb2.AlterCollectionHeader(new_schema_version=1))
)


def header_of(entry: log_pb2.Entry) -> Message:
    """The typed header of an entry, without a look at its payloads.

    Raises:
        WalError: UNRECOVERABLE when it is none of the type.
    """
    spec = spec_of(entry.envelope.type)
    try:
        data = read_head(entry.body).header
    except ValueError as error:
        raise WalError(
            ErrorCode.UNRECOVERABLE, f"the body of a {spec.type.name} is damaged: {error}"
        ) from error
    return spec.parse_header(data)


def seal_of(entry: log_pb2.Entry) -> Seal | None:
    """What the message of `entry` seals; None when it seals nothing.

    Raises:
        WalError: UNRECOVERABLE when its header is none of its type.
    """
    envelope = entry.envelope
    if envelope.type not in _MAY_FLUSH:
        return None
    header = header_of(entry)
    if not spec_of(envelope.type).flushes(header):
        return None
    if isinstance(header, headers_pb2.FlushHeader):
        return Seal(envelope.vchannel, None, header.segment_id)
    if envelope.type in _PARTITION_TYPES and isinstance(header, headers_pb2.PartitionHeader):
        return Seal(envelope.vchannel, header.partition_id)
    return Seal(envelope.vchannel)
