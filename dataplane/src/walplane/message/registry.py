"""The one table of message types; dispatch, locks, keys, flushing and replication read it.

Contract: one row per type of semantics §2. Wire numbers are fixed for ever: those the field shares
come from Milvus, ours begin at 1001. Whatever a type implies is said here and nowhere else.
Layer: message.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2 as h
from walplane.rpc.v1 import log_pb2

HeaderClass = type[Message]


class MessageType(enum.IntEnum):
    """Every message type by its wire number."""

    TIME_TICK = 1
    INSERT = 2
    DELETE = 3
    FLUSH = 4
    CREATE_COLLECTION = 5
    DROP_COLLECTION = 6
    CREATE_PARTITION = 7
    DROP_PARTITION = 8
    MANUAL_FLUSH = 9
    CREATE_SEGMENT = 10
    IMPORT = 11
    ALTER_COLLECTION = 13
    ALTER_LOAD_CONFIG = 14
    DROP_LOAD_CONFIG = 15
    CREATE_DATABASE = 16
    ALTER_DATABASE = 17
    DROP_DATABASE = 18
    ALTER_ALIAS = 19
    DROP_ALIAS = 20
    RESTORE_RBAC = 21
    ALTER_USER = 22
    DROP_USER = 23
    ALTER_ROLE = 24
    DROP_ROLE = 25
    ALTER_USER_ROLE = 26
    DROP_USER_ROLE = 27
    ALTER_PRIVILEGE = 28
    DROP_PRIVILEGE = 29
    ALTER_PRIVILEGE_GROUP = 30
    DROP_PRIVILEGE_GROUP = 31
    ALTER_RESOURCE_GROUP = 32
    DROP_RESOURCE_GROUP = 33
    CREATE_INDEX = 34
    ALTER_INDEX = 35
    DROP_INDEX = 36
    FLUSH_ALL = 37
    TRUNCATE_COLLECTION = 38
    ALTER_RLS_METADATA = 47
    DROP_RLS_METADATA = 48
    ALTER_WAL = 700
    ALTER_REPLICATE_CONFIG = 800
    BEGIN_TXN = 900
    COMMIT_TXN = 901
    ROLLBACK_TXN = 902
    TXN = 999
    RECOVERY_BARRIER = 1001
    CREATE_SNAPSHOT = 1002
    RESTORE_SNAPSHOT = 1003
    DROP_SNAPSHOT = 1004
    DROP_SNAPSHOTS_BY_COLLECTION = 1005
    BATCH_UPDATE_MANIFEST = 1006
    REFRESH_EXTERNAL_COLLECTION = 1007


class Dispatch(enum.Enum):
    """Where a message of the type goes."""

    VCHANNEL = "one VChannel"
    VCHANNELS_AND_CCHANNEL = "the collection's VChannels and the CChannel"
    CCHANNEL = "the CChannel only"
    VCHANNELS = "the collection's VChannels, not the CChannel"
    PCHANNELS = "every PChannel"
    OWN_PCHANNEL = "the PChannel that makes it"
    NOWHERE = "never appended"


class Scope(enum.Enum):
    """At which scope an append of the type takes the exclusive lock."""

    NONE = "shared"
    VCHANNEL = "VChannel"
    PCHANNEL = "PChannel"


class Domain(enum.IntEnum):
    """Domains of resource keys, in locking order."""

    CLUSTER = 1
    DB_NAME = 2
    COLLECTION_NAME = 3
    PRIVILEGE = 4
    SNAPSHOT_NAME = 5


@dataclass(frozen=True, order=True)
class ResourceKey:
    """What a broadcast locks; orders by (domain, key), the order in which keys are taken."""

    domain: Domain
    key: str
    shared: bool = False

    def to_proto(self) -> log_pb2.ResourceKey:
        """The key on the wire."""
        domain = log_pb2.ResourceDomain.Name(self.domain)
        return log_pb2.ResourceKey(domain=domain, key=self.key, shared=self.shared)


Keys = Callable[[Any], Iterable[ResourceKey]]
"""From a type's header to its resource keys."""

SHARED_CLUSTER = ResourceKey(Domain.CLUSTER, "", shared=True)
EXCLUSIVE_CLUSTER = ResourceKey(Domain.CLUSTER, "")


def _collection_name(header: Any) -> str:  # noqa: ANN401 - headers share field names, not a base
    return f"{header.db_name}/{header.collection_name}"


def _db(header: Any, *, shared: bool) -> ResourceKey:  # noqa: ANN401
    return ResourceKey(Domain.DB_NAME, header.db_name, shared)


def _collection_keys(header: Any) -> Iterable[ResourceKey]:  # noqa: ANN401
    yield _db(header, shared=True)
    yield ResourceKey(Domain.COLLECTION_NAME, _collection_name(header))


def _collection_keys_shared(header: Any) -> Iterable[ResourceKey]:  # noqa: ANN401
    yield _db(header, shared=True)
    yield ResourceKey(Domain.COLLECTION_NAME, _collection_name(header), shared=True)


def _alter_collection_keys(header: h.AlterCollectionHeader) -> Iterable[ResourceKey]:
    if not header.new_collection_name:
        return _collection_keys(header)
    names = {header.db_name, header.new_db_name or header.db_name}
    return [ResourceKey(Domain.DB_NAME, name) for name in names]


def _snapshot_keys(header: h.SnapshotHeader) -> Iterable[ResourceKey]:
    yield ResourceKey(Domain.SNAPSHOT_NAME, header.snapshot_name)


def _collection_and_snapshot_keys(header: h.SnapshotHeader) -> Iterable[ResourceKey]:
    return [*_collection_keys(header), *_snapshot_keys(header)]


def _database_keys(header: Any) -> Iterable[ResourceKey]:  # noqa: ANN401
    yield _db(header, shared=False)


def _privilege_keys(_header: Any) -> Iterable[ResourceKey]:  # noqa: ANN401
    yield ResourceKey(Domain.PRIVILEGE, "")


def _cluster_keys(_header: Any) -> Iterable[ResourceKey]:  # noqa: ANN401
    yield EXCLUSIVE_CLUSTER


def _no_keys(_header: Any) -> Iterable[ResourceKey]:  # noqa: ANN401
    return ()


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
        keys: resource keys besides the cluster's shared one.
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
    keys: Keys = _no_keys
    flushes: Callable[[Any], bool] = _never
    self_controlled: bool = False
    replicable: bool = True
    ack_sync_up: bool = False
    any_role: bool = False

    @property
    def is_broadcast(self) -> bool:
        """Whether the Broadcaster sends it."""
        return self.dispatch in _BROADCASTS

    def resource_keys(self, header: Message) -> list[ResourceKey]:
        """What a broadcast with `header` locks, in locking order, each key once."""
        if not self.is_broadcast:
            return []
        keys = set(self.keys(header))
        if EXCLUSIVE_CLUSTER not in keys:
            keys.add(SHARED_CLUSTER)
        return sorted(keys)


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
    keys: Keys = _collection_keys,
    *,
    ack_sync_up: bool = False,
) -> MessageSpec:
    return MessageSpec(
        kind,
        header,
        Dispatch.VCHANNELS_AND_CCHANNEL,
        Scope.VCHANNEL,
        keys,
        flushes,
        ack_sync_up=ack_sync_up,
    )


def _control(
    kind: MessageType,
    header: HeaderClass,
    keys: Keys,
    *,
    replicable: bool = True,
    any_role: bool = False,
) -> MessageSpec:
    return MessageSpec(
        kind, header, Dispatch.CCHANNEL, keys=keys, replicable=replicable, any_role=any_role
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
        _cluster_keys,
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
    _ddl(_T.ALTER_COLLECTION, h.AlterCollectionHeader, _changes_schema, _alter_collection_keys),
    _ddl(_T.CREATE_PARTITION, h.PartitionHeader),
    _ddl(_T.DROP_PARTITION, h.PartitionHeader, _always),
    _ddl(_T.TRUNCATE_COLLECTION, h.CollectionHeader, _always, ack_sync_up=True),
    _control(_T.CREATE_INDEX, h.IndexHeader, _collection_keys),
    _control(_T.ALTER_INDEX, h.IndexHeader, _collection_keys),
    _control(_T.DROP_INDEX, h.IndexHeader, _collection_keys),
    _control(_T.ALTER_LOAD_CONFIG, h.LoadConfigHeader, _collection_keys),
    _control(_T.DROP_LOAD_CONFIG, h.LoadConfigHeader, _collection_keys),
    _control(_T.ALTER_RLS_METADATA, h.RLSMetadataHeader, _collection_keys),
    _control(_T.DROP_RLS_METADATA, h.RLSMetadataHeader, _collection_keys),
    _control(_T.CREATE_SNAPSHOT, h.SnapshotHeader, _collection_and_snapshot_keys, replicable=False),
    _control(
        _T.RESTORE_SNAPSHOT, h.SnapshotHeader, _collection_and_snapshot_keys, replicable=False
    ),
    _control(_T.DROP_SNAPSHOT, h.SnapshotHeader, _snapshot_keys, replicable=False),
    _control(_T.DROP_SNAPSHOTS_BY_COLLECTION, h.CollectionHeader, _collection_keys_shared),
    MessageSpec(_T.IMPORT, h.ImportHeader, Dispatch.VCHANNELS, keys=_collection_keys),
    _control(
        _T.BATCH_UPDATE_MANIFEST,
        h.BatchUpdateManifestHeader,
        _collection_keys_shared,
        replicable=False,
    ),
    _control(
        _T.REFRESH_EXTERNAL_COLLECTION,
        h.RefreshExternalCollectionHeader,
        _no_keys,
        replicable=False,
    ),
    _control(_T.CREATE_DATABASE, h.DatabaseHeader, _database_keys),
    _control(_T.ALTER_DATABASE, h.DatabaseHeader, _database_keys),
    _control(_T.DROP_DATABASE, h.DatabaseHeader, _database_keys),
    _control(_T.ALTER_ALIAS, h.AliasHeader, _database_keys),
    _control(_T.DROP_ALIAS, h.AliasHeader, _database_keys),
    _control(_T.ALTER_USER, h.UserHeader, _privilege_keys),
    _control(_T.DROP_USER, h.UserHeader, _privilege_keys),
    _control(_T.ALTER_ROLE, h.RoleHeader, _privilege_keys),
    _control(_T.DROP_ROLE, h.RoleHeader, _privilege_keys),
    _control(_T.ALTER_USER_ROLE, h.UserRoleHeader, _privilege_keys),
    _control(_T.DROP_USER_ROLE, h.UserRoleHeader, _privilege_keys),
    _control(_T.ALTER_PRIVILEGE, h.PrivilegeHeader, _privilege_keys),
    _control(_T.DROP_PRIVILEGE, h.PrivilegeHeader, _privilege_keys),
    _control(_T.ALTER_PRIVILEGE_GROUP, h.PrivilegeGroupHeader, _privilege_keys),
    _control(_T.DROP_PRIVILEGE_GROUP, h.PrivilegeGroupHeader, _privilege_keys),
    _control(_T.RESTORE_RBAC, h.RestoreRBACHeader, _privilege_keys),
    _control(
        _T.ALTER_RESOURCE_GROUP,
        h.ResourceGroupHeader,
        _cluster_keys,
        replicable=False,
        any_role=True,
    ),
    _control(
        _T.DROP_RESOURCE_GROUP,
        h.ResourceGroupHeader,
        _cluster_keys,
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
            f"there is no message type {number}: this node may be older than the client",
        )
    return spec


def check_client_entry(envelope: log_pb2.Envelope) -> MessageSpec:
    """Checks what can be told from the envelope of an entry that a client sent.

    Raises:
        WalError: INVALID_ARGUMENT, saying what to do instead.
    """
    spec = spec_of(envelope.type)
    name = spec.type.name
    if spec.self_controlled:
        raise _invalid(f"{name} is made by the WAL itself: clients do not append it")
    if envelope.count < 1:
        raise _invalid(f"an entry of {name} without messages: put at least one into it")
    if not envelope.vchannel and spec.dispatch is not Dispatch.PCHANNELS:
        raise _invalid(f"{name} names no VChannel: set the VChannel it is for")
    reserved = sorted(key for key in envelope.properties if key.startswith("_"))
    if reserved:
        raise _invalid(f"property {reserved[0]!r} is reserved: use keys that do not start with _")
    return spec


def _invalid(message: str) -> WalError:
    return WalError(ErrorCode.INVALID_ARGUMENT, message)
