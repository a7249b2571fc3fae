"""The one table of message types; dispatch, locks, keys, flushing and replication read it.

Contract: one row per type (rules §2). Wire numbers are fixed for ever: those the field shares
come from Milvus, ours begin at 1001. Whatever a type implies is said here and nowhere else.
Layer: message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from google.protobuf.message import DecodeError, Message

from walplane.message import keys
from walplane.message.keys import ResourceKey
from walplane.message.types import DATA_TYPES, Dispatch, MessageType, Scope
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2 as h
from walplane.rpc.v1 import log_pb2

__all__ = [
    "IDEMPOTENCY_KEY",
    "MAX_KEY",
    "MAX_MESSAGES",
    "MAX_PRODUCER_NAME",
    "TABLE",
    "UNREPLICABLE",
    "Dispatch",
    "MessageSpec",
    "MessageType",
    "Scope",
    "check_client_entry",
    "spec_of",
]

HeaderClass = type[Message]

MAX_MESSAGES = 1 << 16
"""Messages an entry holds at most: their ticks are one range of one batch of the oracle."""

UNREPLICABLE = "_ur"
"""Property of a message that replication skips; absence means replicable."""

IDEMPOTENCY_KEY = "_ik"
"""Property with the caller's own key: a repeat of it gets the first result."""

MAX_KEY = 256
"""Characters of a caller's idempotency key, at most."""

MAX_PRODUCER_NAME = 256
"""Characters of a producer's name, at most."""

_MAX_PROPERTIES = 1 << 16
_MAX_TRACE_PARENT = 256


def _always(_header: Any) -> bool:  # noqa: ANN401
    return True


def _never(_header: Any) -> bool:  # noqa: ANN401
    return False


def _changes_schema(header: h.AlterCollectionHeader) -> bool:
    return header.new_schema_version > 0


@dataclass(frozen=True)
class MessageSpec:
    """One row: all that a type implies.

    Attributes:
        type: name and wire number.
        header: class of the typed header.
        dispatch: where it goes.
        exclusive: scope of its exclusive append lock.
        keys_of: resource keys of a broadcast, besides the cluster's shared one.
        flushes: whether a message with this header seals growing segments.
        self_controlled: made by the WAL itself; never taken from a client, never replicated.
        replicable: whether replication carries it to secondaries.
        ack_sync_up: its broadcast waits for the consumers' ACKs.
        any_role: allowed in any replication role.
    """

    type: MessageType
    header: HeaderClass
    dispatch: Dispatch
    exclusive: Scope = Scope.NONE
    keys_of: keys.Keys = keys.none
    flushes: Callable[[Any], bool] = _never
    self_controlled: bool = False
    replicable: bool = True
    ack_sync_up: bool = False
    any_role: bool = False

    @cached_property
    def name(self) -> str:
        """Of its type; an enum looks that up anew each time."""
        return self.type.name

    @cached_property
    def is_broadcast(self) -> bool:
        """Whether the Broadcaster sends it."""
        return self.dispatch in _BROADCASTS

    def resource_keys(self, header: Message) -> list[ResourceKey]:
        """What a broadcast with `header` locks, in locking order, each key once."""
        if not self.is_broadcast:
            return []
        return keys.in_locking_order([*self.keys_of(header), keys.SHARED_CLUSTER])

    def parse_header(self, data: bytes) -> Message:
        """The typed header from the body of an entry.

        Raises:
            WalError: UNRECOVERABLE when `data` is none of this type.
        """
        try:
            return self.header.FromString(data)
        except DecodeError as error:
            raise WalError(
                ErrorCode.UNRECOVERABLE,
                f"the header of {self.name} is no {self.header.__name__}: its writer is "
                "broken, or newer than this reader",
            ) from error


_BROADCASTS = {
    Dispatch.VCHANNELS_AND_CCHANNEL,
    Dispatch.CCHANNEL,
    Dispatch.VCHANNELS,
    Dispatch.PCHANNELS,
}


def _own(
    kind: MessageType,
    header: HeaderClass,
    dispatch: Dispatch,
    flushes: Callable[[Any], bool] = _never,
) -> MessageSpec:
    return MessageSpec(
        kind, header, dispatch, flushes=flushes, self_controlled=True, replicable=False
    )


def _ddl(
    kind: MessageType,
    header: HeaderClass,
    flushes: Callable[[Any], bool] = _never,
    locks: keys.Keys = keys.collection,
    *,
    ack_sync_up: bool = False,
) -> MessageSpec:
    return MessageSpec(
        kind,
        header,
        Dispatch.VCHANNELS_AND_CCHANNEL,
        Scope.VCHANNEL,
        locks,
        flushes,
        ack_sync_up=ack_sync_up,
    )


def _control(
    kind: MessageType,
    header: HeaderClass,
    locks: keys.Keys,
    *,
    replicable: bool = True,
    any_role: bool = False,
) -> MessageSpec:
    return MessageSpec(
        kind, header, Dispatch.CCHANNEL, keys_of=locks, replicable=replicable, any_role=any_role
    )


def _cluster_wide(
    kind: MessageType,
    header: HeaderClass,
    flushes: Callable[[Any], bool] = _never,
    *,
    ack_sync_up: bool = False,
) -> MessageSpec:
    return MessageSpec(
        kind,
        header,
        Dispatch.PCHANNELS,
        Scope.PCHANNEL,
        keys.cluster,
        flushes,
        ack_sync_up=ack_sync_up,
    )


_T = MessageType
_S = Dispatch.VCHANNEL

TABLE: tuple[MessageSpec, ...] = (
    _own(_T.TIME_TICK, h.TimeTickHeader, Dispatch.OWN_PCHANNEL),
    _own(_T.RECOVERY_BARRIER, h.RecoveryBarrierHeader, Dispatch.OWN_PCHANNEL),
    MessageSpec(_T.INSERT, h.InsertHeader, _S),
    MessageSpec(_T.DELETE, h.DeleteHeader, _S),
    _own(_T.FLUSH, h.FlushHeader, _S, _always),
    _own(_T.CREATE_SEGMENT, h.CreateSegmentHeader, _S),
    MessageSpec(_T.MANUAL_FLUSH, h.ManualFlushHeader, _S, Scope.VCHANNEL, flushes=_always),
    _ddl(_T.CREATE_COLLECTION, h.CreateCollectionHeader),
    _ddl(_T.DROP_COLLECTION, h.CollectionHeader, _always),
    _ddl(_T.ALTER_COLLECTION, h.AlterCollectionHeader, _changes_schema, keys.altered_collection),
    _ddl(_T.CREATE_PARTITION, h.PartitionHeader),
    _ddl(_T.DROP_PARTITION, h.PartitionHeader, _always),
    _ddl(_T.TRUNCATE_COLLECTION, h.CollectionHeader, _always, ack_sync_up=True),
    _control(_T.CREATE_INDEX, h.IndexHeader, keys.collection),
    _control(_T.ALTER_INDEX, h.IndexHeader, keys.collection),
    _control(_T.DROP_INDEX, h.IndexHeader, keys.collection),
    _control(_T.ALTER_LOAD_CONFIG, h.LoadConfigHeader, keys.collection),
    _control(_T.DROP_LOAD_CONFIG, h.LoadConfigHeader, keys.collection),
    _control(_T.ALTER_RLS_METADATA, h.RLSMetadataHeader, keys.collection),
    _control(_T.DROP_RLS_METADATA, h.RLSMetadataHeader, keys.collection),
    _control(_T.CREATE_SNAPSHOT, h.SnapshotHeader, keys.collection_and_snapshot, replicable=False),
    _control(
        _T.RESTORE_SNAPSHOT, h.RestoreSnapshotHeader, keys.collection_and_snapshot, replicable=False
    ),
    _control(_T.DROP_SNAPSHOT, h.SnapshotHeader, keys.snapshot, replicable=False),
    _control(_T.DROP_SNAPSHOTS_BY_COLLECTION, h.CollectionHeader, keys.collection_shared),
    MessageSpec(_T.IMPORT, h.ImportHeader, Dispatch.VCHANNELS, keys_of=keys.collection),
    _control(
        _T.BATCH_UPDATE_MANIFEST,
        h.BatchUpdateManifestHeader,
        keys.collection_shared,
        replicable=False,
    ),
    _control(
        _T.REFRESH_EXTERNAL_COLLECTION,
        h.RefreshExternalCollectionHeader,
        keys.none,
        replicable=False,
    ),
    _control(_T.CREATE_DATABASE, h.DatabaseHeader, keys.database),
    _control(_T.ALTER_DATABASE, h.DatabaseHeader, keys.database),
    _control(_T.DROP_DATABASE, h.DatabaseHeader, keys.database),
    _control(_T.ALTER_ALIAS, h.AliasHeader, keys.database),
    _control(_T.DROP_ALIAS, h.AliasHeader, keys.database),
    _control(_T.ALTER_USER, h.UserHeader, keys.privilege),
    _control(_T.DROP_USER, h.UserHeader, keys.privilege),
    _control(_T.ALTER_ROLE, h.RoleHeader, keys.privilege),
    _control(_T.DROP_ROLE, h.RoleHeader, keys.privilege),
    _control(_T.ALTER_USER_ROLE, h.UserRoleHeader, keys.privilege),
    _control(_T.DROP_USER_ROLE, h.UserRoleHeader, keys.privilege),
    _control(_T.ALTER_PRIVILEGE, h.PrivilegeHeader, keys.privilege),
    _control(_T.DROP_PRIVILEGE, h.PrivilegeHeader, keys.privilege),
    _control(_T.ALTER_PRIVILEGE_GROUP, h.PrivilegeGroupHeader, keys.privilege),
    _control(_T.DROP_PRIVILEGE_GROUP, h.PrivilegeGroupHeader, keys.privilege),
    _control(_T.RESTORE_RBAC, h.RestoreRBACHeader, keys.privilege),
    _control(
        _T.ALTER_RESOURCE_GROUP,
        h.ResourceGroupHeader,
        keys.cluster,
        replicable=False,
        any_role=True,
    ),
    _control(
        _T.DROP_RESOURCE_GROUP,
        h.ResourceGroupHeader,
        keys.cluster,
        replicable=False,
        any_role=True,
    ),
    _cluster_wide(_T.FLUSH_ALL, h.FlushAllHeader, _always, ack_sync_up=True),
    _cluster_wide(_T.ALTER_REPLICATE_CONFIG, h.AlterReplicateConfigHeader),
    _cluster_wide(_T.ALTER_WAL, h.AlterWALHeader),
    MessageSpec(_T.BEGIN_TXN, h.BeginTxnHeader, _S),
    MessageSpec(_T.COMMIT_TXN, h.CommitTxnHeader, _S),
    MessageSpec(_T.ROLLBACK_TXN, h.RollbackTxnHeader, _S),
    _own(_T.TXN, h.TxnHeader, Dispatch.NOWHERE),
)

_BY_NUMBER = {spec.type.value: spec for spec in TABLE}


def spec_of(number: int) -> MessageSpec:
    """The row of a type by its wire number.

    Raises:
        WalError: INVALID_ARGUMENT for a number that no type has.
    """
    spec = _BY_NUMBER.get(number)
    if spec is None:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"there is no message type {number}: it may be of a newer walplane, upgrade this one",
        )
    return spec


def check_client_entry(envelope: log_pb2.Envelope) -> MessageSpec:
    """Checks what can be told from the envelope of an entry that did not come from the WAL itself.

    Raises:
        WalError: INVALID_ARGUMENT, saying what to do instead.
    """
    spec = spec_of(envelope.type)
    name = spec.name
    if spec.self_controlled:
        raise _invalid(f"{name} is made by the WAL itself: clients do not append it")
    if not 1 <= envelope.count <= MAX_MESSAGES:
        raise _invalid(
            f"an entry of {envelope.count} messages of {name}: put 1 to {MAX_MESSAGES} into it"
        )
    if spec.is_broadcast != envelope.HasField("broadcast"):
        way = "ask the coordinator for it" if spec.is_broadcast else "append it to one VChannel"
        raise _invalid(f"{name} goes to {spec.dispatch.value}: {way}")
    _check_target(spec, envelope)
    if envelope.segment_id:
        raise _invalid(f"{name} names a segment: which one it is in, the log's owner decides")
    if len(envelope.trace_parent) > _MAX_TRACE_PARENT:
        raise _invalid(f"the trace parent of a {name} is too long: send a W3C traceparent")
    if envelope.properties:
        _check_properties(spec, envelope)
    producer = envelope.producer
    if producer.name:
        _check_named(spec, envelope)
    elif producer.opener or producer.epoch:
        raise _invalid(f"a {name} of an unnamed producer with opener or epoch: send id and number")
    return spec


def _check_target(spec: MessageSpec, envelope: log_pb2.Envelope) -> None:
    if spec.dispatch is Dispatch.PCHANNELS:
        if envelope.vchannel or not envelope.is_pchannel_level:
            raise _invalid(f"{spec.name} is for whole PChannels: name no VChannel")
    elif envelope.is_pchannel_level:
        raise _invalid(f"{spec.name} is not for whole PChannels: name the VChannel only")
    elif not envelope.vchannel:
        raise _invalid(f"{spec.name} names no VChannel: set the VChannel it is for")


def _check_properties(spec: MessageSpec, envelope: log_pb2.Envelope) -> None:
    size = 0
    for key, value in envelope.properties.items():
        size += len(key) + len(value)
        if key == IDEMPOTENCY_KEY:
            _check_key(spec, envelope, value)
        elif key.startswith("_") and (spec.replicable or key != UNREPLICABLE):
            raise _invalid(f"property {key!r} is reserved: use keys that do not start with _")
    if size > _MAX_PROPERTIES:
        raise _invalid(
            f"the properties of a {spec.name} have {size} characters: keep them below "
            f"{_MAX_PROPERTIES}, or put them into the payload"
        )


def _check_named(spec: MessageSpec, envelope: log_pb2.Envelope) -> None:
    producer, name = envelope.producer, spec.name
    if spec.type not in DATA_TYPES or envelope.txn.txn_id:
        raise _invalid(
            f"a {name} of a named producer, or in a transaction of several entries: they number "
            "Inserts and Deletes that are appended by themselves"
        )
    if producer.producer_id or producer.opener or len(producer.name) > MAX_PRODUCER_NAME:
        raise _invalid(
            f"a {name} of a named producer with an id, an opener or a name of more than "
            f"{MAX_PRODUCER_NAME} characters: send name, epoch and number"
        )


def _check_key(spec: MessageSpec, envelope: log_pb2.Envelope, key: str) -> None:
    name = spec.name
    if spec.type not in DATA_TYPES:
        raise _invalid(f"a {name} with an idempotency key: only Inserts and Deletes take one")
    if not 0 < len(key) <= MAX_KEY:
        raise _invalid(f"an idempotency key of {len(key)} characters: use 1 to {MAX_KEY}")
    if envelope.HasField("txn"):
        raise _invalid(
            f"a {name} with an idempotency key in a transaction: append it by itself, or leave out "
            "the key, a Commit that is sent again has one outcome anyway"
        )
    if envelope.HasField("producer"):
        raise _invalid(
            f"a {name} with an idempotency key and a producer's number: a repeat of the key would "
            "leave a gap in the numbers, send one of the two"
        )


def _invalid(message: str) -> WalError:
    return WalError(ErrorCode.INVALID_ARGUMENT, message)
