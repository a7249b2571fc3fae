"""The order rules (rules §2), asked before an entry gets its ticks.

Contract: pure; what breaks a rule is refused with an error that names collection, partition and
rule, and is never written. What a coordinator may repeat after its crash is no offence. Layer: wal.
"""

from __future__ import annotations

from walplane.message.registry import MessageType
from walplane.message.types import DATA_TYPES
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.shard.segments import VChannelMeta
from walplane.wal.shard.table import ShardTable, collection_of


def check_order(table: ShardTable, envelope: log_pb2.Envelope, cchannel: str) -> None:
    """Checks an entry for a VChannel, or for `cchannel`, that is none of the WAL's own.

    Raises:
        WalError: INVALID_ARGUMENT, or SCHEMA_VERSION_MISMATCH with the current version.
    """
    kind = envelope.type
    meta = table.vchannels.get(envelope.vchannel)
    if envelope.vchannel == cchannel:
        if kind in DATA_TYPES:
            raise _broken(envelope, "a control channel holds no data: name a VChannel")
        return
    if meta is None:
        _check_absent(table, envelope)
        return
    if envelope.collection_id and meta.collection_id not in (0, envelope.collection_id):
        raise _broken(
            envelope, f"{meta.vchannel} is a shard of collection {meta.collection_id}, not of this"
        )
    if kind in DATA_TYPES:
        _check_data(envelope, meta)


def _check_absent(table: ShardTable, envelope: log_pb2.Envelope) -> None:
    dropped = table.dropped.get(envelope.vchannel)
    if envelope.type == MessageType.CREATE_COLLECTION and dropped is None:
        return
    if envelope.type == MessageType.DROP_COLLECTION and dropped is not None:
        return  # its broadcast comes again
    if dropped is not None:
        raise _broken(
            envelope,
            f"DropCollection ends everything of a collection, and it was dropped at tick "
            f"{dropped.dropped_tick}",
        )
    raise _broken(envelope, "CreateCollection precedes everything of a collection: create it first")


def _check_data(envelope: log_pb2.Envelope, meta: VChannelMeta) -> None:
    partition = envelope.partition_id
    if partition and partition not in meta.partitions:
        raise _broken(
            envelope,
            "CreatePartition precedes and DropPartition ends the data of a partition, and this "
            "one is not there",
        )
    version, current = envelope.schema_version, meta.schema_version
    if version and current and version != current:
        raise WalError(
            ErrorCode.SCHEMA_VERSION_MISMATCH,
            f"{_subject(envelope)} follows schema version {version}, but {current} is the current "
            "one: make it anew by that",
        )


def _broken(envelope: log_pb2.Envelope, rule: str) -> WalError:
    return WalError(ErrorCode.INVALID_ARGUMENT, f"{_subject(envelope)} is refused: {rule}")


def _subject(envelope: log_pb2.Envelope) -> str:
    name = MessageType(envelope.type).name
    return (
        f"{name} for collection {collection_of(envelope)}, partition {envelope.partition_id}, on "
        f"{envelope.vchannel}"
    )
