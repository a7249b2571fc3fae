from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TimeTickHeader(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RecoveryBarrierHeader(_message.Message):
    __slots__ = ("term", "open_number", "barrier_id")
    TERM_FIELD_NUMBER: _ClassVar[int]
    OPEN_NUMBER_FIELD_NUMBER: _ClassVar[int]
    BARRIER_ID_FIELD_NUMBER: _ClassVar[int]
    term: int
    open_number: int
    barrier_id: bytes
    def __init__(self, term: _Optional[int] = ..., open_number: _Optional[int] = ..., barrier_id: _Optional[bytes] = ...) -> None: ...

class CreateSegmentHeader(_message.Message):
    __slots__ = ("segment_id", "max_rows", "max_bytes")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    max_rows: int
    max_bytes: int
    def __init__(self, segment_id: _Optional[int] = ..., max_rows: _Optional[int] = ..., max_bytes: _Optional[int] = ...) -> None: ...

class FlushHeader(_message.Message):
    __slots__ = ("segment_id", "rows", "bytes")
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    segment_id: int
    rows: int
    bytes: int
    def __init__(self, segment_id: _Optional[int] = ..., rows: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class InsertHeader(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    def __init__(self, rows: _Optional[int] = ...) -> None: ...

class DeleteHeader(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    def __init__(self, rows: _Optional[int] = ...) -> None: ...

class ManualFlushHeader(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FlushAllHeader(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateCollectionHeader(_message.Message):
    __slots__ = ("db_id", "db_name", "collection_id", "collection_name", "vchannels", "partition_ids", "partition_names", "schema_version", "schema")
    DB_ID_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_NAME_FIELD_NUMBER: _ClassVar[int]
    VCHANNELS_FIELD_NUMBER: _ClassVar[int]
    PARTITION_IDS_FIELD_NUMBER: _ClassVar[int]
    PARTITION_NAMES_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    db_id: int
    db_name: str
    collection_id: int
    collection_name: str
    vchannels: _containers.RepeatedScalarFieldContainer[str]
    partition_ids: _containers.RepeatedScalarFieldContainer[int]
    partition_names: _containers.RepeatedScalarFieldContainer[str]
    schema_version: int
    schema: bytes
    def __init__(self, db_id: _Optional[int] = ..., db_name: _Optional[str] = ..., collection_id: _Optional[int] = ..., collection_name: _Optional[str] = ..., vchannels: _Optional[_Iterable[str]] = ..., partition_ids: _Optional[_Iterable[int]] = ..., partition_names: _Optional[_Iterable[str]] = ..., schema_version: _Optional[int] = ..., schema: _Optional[bytes] = ...) -> None: ...

class CollectionHeader(_message.Message):
    __slots__ = ("db_id", "db_name", "collection_id", "collection_name")
    DB_ID_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_NAME_FIELD_NUMBER: _ClassVar[int]
    db_id: int
    db_name: str
    collection_id: int
    collection_name: str
    def __init__(self, db_id: _Optional[int] = ..., db_name: _Optional[str] = ..., collection_id: _Optional[int] = ..., collection_name: _Optional[str] = ...) -> None: ...

class AlterCollectionHeader(_message.Message):
    __slots__ = ("db_id", "db_name", "collection_id", "collection_name", "new_db_name", "new_collection_name", "new_schema_version", "new_schema", "properties", "new_db_id")
    class PropertiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DB_ID_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_DB_NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_COLLECTION_NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    NEW_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    NEW_DB_ID_FIELD_NUMBER: _ClassVar[int]
    db_id: int
    db_name: str
    collection_id: int
    collection_name: str
    new_db_name: str
    new_collection_name: str
    new_schema_version: int
    new_schema: bytes
    properties: _containers.ScalarMap[str, str]
    new_db_id: int
    def __init__(self, db_id: _Optional[int] = ..., db_name: _Optional[str] = ..., collection_id: _Optional[int] = ..., collection_name: _Optional[str] = ..., new_db_name: _Optional[str] = ..., new_collection_name: _Optional[str] = ..., new_schema_version: _Optional[int] = ..., new_schema: _Optional[bytes] = ..., properties: _Optional[_Mapping[str, str]] = ..., new_db_id: _Optional[int] = ...) -> None: ...

class PartitionHeader(_message.Message):
    __slots__ = ("db_id", "db_name", "collection_id", "collection_name", "partition_id", "partition_name")
    DB_ID_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_NAME_FIELD_NUMBER: _ClassVar[int]
    PARTITION_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_NAME_FIELD_NUMBER: _ClassVar[int]
    db_id: int
    db_name: str
    collection_id: int
    collection_name: str
    partition_id: int
    partition_name: str
    def __init__(self, db_id: _Optional[int] = ..., db_name: _Optional[str] = ..., collection_id: _Optional[int] = ..., collection_name: _Optional[str] = ..., partition_id: _Optional[int] = ..., partition_name: _Optional[str] = ...) -> None: ...

class IndexHeader(_message.Message):
    __slots__ = ("db_id", "db_name", "collection_id", "collection_name", "index_ids", "index_name", "field_name", "params")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DB_ID_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_NAME_FIELD_NUMBER: _ClassVar[int]
    INDEX_IDS_FIELD_NUMBER: _ClassVar[int]
    INDEX_NAME_FIELD_NUMBER: _ClassVar[int]
    FIELD_NAME_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    db_id: int
    db_name: str
    collection_id: int
    collection_name: str
    index_ids: _containers.RepeatedScalarFieldContainer[int]
    index_name: str
    field_name: str
    params: _containers.ScalarMap[str, str]
    def __init__(self, db_id: _Optional[int] = ..., db_name: _Optional[str] = ..., collection_id: _Optional[int] = ..., collection_name: _Optional[str] = ..., index_ids: _Optional[_Iterable[int]] = ..., index_name: _Optional[str] = ..., field_name: _Optional[str] = ..., params: _Optional[_Mapping[str, str]] = ...) -> None: ...

class LoadConfigHeader(_message.Message):
    __slots__ = ("db_id", "db_name", "collection_id", "collection_name", "partition_ids", "replicas", "resource_groups")
    DB_ID_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_NAME_FIELD_NUMBER: _ClassVar[int]
    PARTITION_IDS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_GROUPS_FIELD_NUMBER: _ClassVar[int]
    db_id: int
    db_name: str
    collection_id: int
    collection_name: str
    partition_ids: _containers.RepeatedScalarFieldContainer[int]
    replicas: int
    resource_groups: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, db_id: _Optional[int] = ..., db_name: _Optional[str] = ..., collection_id: _Optional[int] = ..., collection_name: _Optional[str] = ..., partition_ids: _Optional[_Iterable[int]] = ..., replicas: _Optional[int] = ..., resource_groups: _Optional[_Iterable[str]] = ...) -> None: ...

class RLSMetadataHeader(_message.Message):
    __slots__ = ("db_id", "db_name", "collection_id", "collection_name", "policy_name", "principal_name", "metadata")
    DB_ID_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_NAME_FIELD_NUMBER: _ClassVar[int]
    POLICY_NAME_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_NAME_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    db_id: int
    db_name: str
    collection_id: int
    collection_name: str
    policy_name: str
    principal_name: str
    metadata: bytes
    def __init__(self, db_id: _Optional[int] = ..., db_name: _Optional[str] = ..., collection_id: _Optional[int] = ..., collection_name: _Optional[str] = ..., policy_name: _Optional[str] = ..., principal_name: _Optional[str] = ..., metadata: _Optional[bytes] = ...) -> None: ...

class SnapshotHeader(_message.Message):
    __slots__ = ("db_id", "db_name", "collection_id", "collection_name", "snapshot_id", "snapshot_name")
    DB_ID_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_NAME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_NAME_FIELD_NUMBER: _ClassVar[int]
    db_id: int
    db_name: str
    collection_id: int
    collection_name: str
    snapshot_id: int
    snapshot_name: str
    def __init__(self, db_id: _Optional[int] = ..., db_name: _Optional[str] = ..., collection_id: _Optional[int] = ..., collection_name: _Optional[str] = ..., snapshot_id: _Optional[int] = ..., snapshot_name: _Optional[str] = ...) -> None: ...

class RestoreSnapshotHeader(_message.Message):
    __slots__ = ("db_id", "db_name", "collection_id", "collection_name", "snapshot_id", "snapshot_name", "source_collection_id", "job_id")
    DB_ID_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_NAME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    db_id: int
    db_name: str
    collection_id: int
    collection_name: str
    snapshot_id: int
    snapshot_name: str
    source_collection_id: int
    job_id: int
    def __init__(self, db_id: _Optional[int] = ..., db_name: _Optional[str] = ..., collection_id: _Optional[int] = ..., collection_name: _Optional[str] = ..., snapshot_id: _Optional[int] = ..., snapshot_name: _Optional[str] = ..., source_collection_id: _Optional[int] = ..., job_id: _Optional[int] = ...) -> None: ...

class ImportHeader(_message.Message):
    __slots__ = ("db_id", "db_name", "collection_id", "collection_name", "job_id", "partition_ids", "files", "options")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DB_ID_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_NAME_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_IDS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    db_id: int
    db_name: str
    collection_id: int
    collection_name: str
    job_id: int
    partition_ids: _containers.RepeatedScalarFieldContainer[int]
    files: _containers.RepeatedScalarFieldContainer[str]
    options: _containers.ScalarMap[str, str]
    def __init__(self, db_id: _Optional[int] = ..., db_name: _Optional[str] = ..., collection_id: _Optional[int] = ..., collection_name: _Optional[str] = ..., job_id: _Optional[int] = ..., partition_ids: _Optional[_Iterable[int]] = ..., files: _Optional[_Iterable[str]] = ..., options: _Optional[_Mapping[str, str]] = ...) -> None: ...

class BatchUpdateManifestHeader(_message.Message):
    __slots__ = ("db_id", "db_name", "collection_id", "collection_name", "segment_ids", "manifest")
    DB_ID_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_NAME_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_IDS_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    db_id: int
    db_name: str
    collection_id: int
    collection_name: str
    segment_ids: _containers.RepeatedScalarFieldContainer[int]
    manifest: bytes
    def __init__(self, db_id: _Optional[int] = ..., db_name: _Optional[str] = ..., collection_id: _Optional[int] = ..., collection_name: _Optional[str] = ..., segment_ids: _Optional[_Iterable[int]] = ..., manifest: _Optional[bytes] = ...) -> None: ...

class RefreshExternalCollectionHeader(_message.Message):
    __slots__ = ("db_id", "db_name", "collection_id", "collection_name", "job_id", "source")
    DB_ID_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_NAME_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    db_id: int
    db_name: str
    collection_id: int
    collection_name: str
    job_id: int
    source: str
    def __init__(self, db_id: _Optional[int] = ..., db_name: _Optional[str] = ..., collection_id: _Optional[int] = ..., collection_name: _Optional[str] = ..., job_id: _Optional[int] = ..., source: _Optional[str] = ...) -> None: ...

class AliasHeader(_message.Message):
    __slots__ = ("db_id", "db_name", "collection_id", "collection_name", "alias")
    DB_ID_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_NAME_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    db_id: int
    db_name: str
    collection_id: int
    collection_name: str
    alias: str
    def __init__(self, db_id: _Optional[int] = ..., db_name: _Optional[str] = ..., collection_id: _Optional[int] = ..., collection_name: _Optional[str] = ..., alias: _Optional[str] = ...) -> None: ...

class DatabaseHeader(_message.Message):
    __slots__ = ("db_id", "db_name", "properties")
    class PropertiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DB_ID_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    db_id: int
    db_name: str
    properties: _containers.ScalarMap[str, str]
    def __init__(self, db_id: _Optional[int] = ..., db_name: _Optional[str] = ..., properties: _Optional[_Mapping[str, str]] = ...) -> None: ...

class UserHeader(_message.Message):
    __slots__ = ("user_name", "credential")
    USER_NAME_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    user_name: str
    credential: bytes
    def __init__(self, user_name: _Optional[str] = ..., credential: _Optional[bytes] = ...) -> None: ...

class RoleHeader(_message.Message):
    __slots__ = ("role_name",)
    ROLE_NAME_FIELD_NUMBER: _ClassVar[int]
    role_name: str
    def __init__(self, role_name: _Optional[str] = ...) -> None: ...

class UserRoleHeader(_message.Message):
    __slots__ = ("user_name", "role_name")
    USER_NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_NAME_FIELD_NUMBER: _ClassVar[int]
    user_name: str
    role_name: str
    def __init__(self, user_name: _Optional[str] = ..., role_name: _Optional[str] = ...) -> None: ...

class PrivilegeHeader(_message.Message):
    __slots__ = ("role_name", "privilege", "object_type", "object_name", "db_name", "grantor")
    ROLE_NAME_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_TYPE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_NAME_FIELD_NUMBER: _ClassVar[int]
    DB_NAME_FIELD_NUMBER: _ClassVar[int]
    GRANTOR_FIELD_NUMBER: _ClassVar[int]
    role_name: str
    privilege: str
    object_type: str
    object_name: str
    db_name: str
    grantor: str
    def __init__(self, role_name: _Optional[str] = ..., privilege: _Optional[str] = ..., object_type: _Optional[str] = ..., object_name: _Optional[str] = ..., db_name: _Optional[str] = ..., grantor: _Optional[str] = ...) -> None: ...

class PrivilegeGroupHeader(_message.Message):
    __slots__ = ("group_name", "privileges")
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGES_FIELD_NUMBER: _ClassVar[int]
    group_name: str
    privileges: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, group_name: _Optional[str] = ..., privileges: _Optional[_Iterable[str]] = ...) -> None: ...

class RestoreRBACHeader(_message.Message):
    __slots__ = ("backup",)
    BACKUP_FIELD_NUMBER: _ClassVar[int]
    backup: bytes
    def __init__(self, backup: _Optional[bytes] = ...) -> None: ...

class ResourceGroupHeader(_message.Message):
    __slots__ = ("name", "config")
    class ConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    name: str
    config: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., config: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ReplicateEdge(_message.Message):
    __slots__ = ("source_cluster_id", "target_cluster_id")
    SOURCE_CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    source_cluster_id: str
    target_cluster_id: str
    def __init__(self, source_cluster_id: _Optional[str] = ..., target_cluster_id: _Optional[str] = ...) -> None: ...

class ReplicateCluster(_message.Message):
    __slots__ = ("cluster_id", "pchannels", "uri", "secret_ref")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    PCHANNELS_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    SECRET_REF_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    pchannels: _containers.RepeatedScalarFieldContainer[str]
    uri: str
    secret_ref: str
    def __init__(self, cluster_id: _Optional[str] = ..., pchannels: _Optional[_Iterable[str]] = ..., uri: _Optional[str] = ..., secret_ref: _Optional[str] = ...) -> None: ...

class AlterReplicateConfigHeader(_message.Message):
    __slots__ = ("clusters", "edges", "force_promote")
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    FORCE_PROMOTE_FIELD_NUMBER: _ClassVar[int]
    clusters: _containers.RepeatedCompositeFieldContainer[ReplicateCluster]
    edges: _containers.RepeatedCompositeFieldContainer[ReplicateEdge]
    force_promote: bool
    def __init__(self, clusters: _Optional[_Iterable[_Union[ReplicateCluster, _Mapping]]] = ..., edges: _Optional[_Iterable[_Union[ReplicateEdge, _Mapping]]] = ..., force_promote: _Optional[bool] = ...) -> None: ...

class AlterWALHeader(_message.Message):
    __slots__ = ("target_backend", "config")
    class ConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TARGET_BACKEND_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    target_backend: str
    config: _containers.ScalarMap[str, str]
    def __init__(self, target_backend: _Optional[str] = ..., config: _Optional[_Mapping[str, str]] = ...) -> None: ...

class BeginTxnHeader(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CommitTxnHeader(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RollbackTxnHeader(_message.Message):
    __slots__ = ("expired",)
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    expired: bool
    def __init__(self, expired: _Optional[bool] = ...) -> None: ...

class TxnHeader(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: int
    def __init__(self, entries: _Optional[int] = ...) -> None: ...
