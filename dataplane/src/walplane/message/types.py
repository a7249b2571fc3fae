"""Names of what the registry says: message types, where they go, what they lock. Layer: message.

Contract: wire numbers are fixed for ever: those the field shares come from Milvus, ours begin at
1001.
"""

from __future__ import annotations

import enum


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


DATA_TYPES = frozenset({MessageType.INSERT, MessageType.DELETE})
"""Rows, or what takes rows away; all else is about the log, collections or the cluster."""

SEGMENT_TYPES = frozenset({MessageType.CREATE_SEGMENT, MessageType.FLUSH})
"""What an owner writes about its segments."""

MARK_TYPES = frozenset({MessageType.TIME_TICK, MessageType.RECOVERY_BARRIER})
"""What an owner writes about how far its log is, and from where on it is its own."""

TYPE_NAMES = {kind.value: kind.name for kind in MessageType}
"""By wire number; one that is not here may be of a newer walplane."""


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
