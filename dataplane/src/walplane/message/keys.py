"""Resource keys: what a broadcast locks, from its header. Layer: message.

Contract: pure. Keys order by (domain, key), the order in which they are taken, so that no two
broadcasts wait for each other; a broadcast names each (domain, key) once. Headers share field
names and no base class, hence `Any`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from walplane.rpc.v1 import headers_pb2, log_pb2


class Domain(enum.IntEnum):
    """Domains of resource keys, in locking order; the numbers are those of `log.proto`."""

    CLUSTER = 1
    DB_NAME = 2
    COLLECTION_NAME = 3
    PRIVILEGE = 4
    SNAPSHOT_NAME = 5


@dataclass(frozen=True, order=True)
class ResourceKey:
    """What a broadcast locks; orders by (domain, key)."""

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


def in_locking_order(keys: Iterable[ResourceKey]) -> list[ResourceKey]:
    """`keys` sorted by (domain, key), each once; exclusive where both kinds are asked for."""
    strongest: dict[tuple[Domain, str], ResourceKey] = {}
    for key in sorted(keys):  # exclusive sorts before shared
        strongest.setdefault((key.domain, key.key), key)
    return list(strongest.values())


def cluster(_header: object) -> Iterable[ResourceKey]:
    """ExclusiveCluster."""
    return [EXCLUSIVE_CLUSTER]


def privilege(_header: object) -> Iterable[ResourceKey]:
    """ExclusivePrivilege."""
    return [ResourceKey(Domain.PRIVILEGE, "")]


def database(header: Any) -> Iterable[ResourceKey]:  # noqa: ANN401
    """ExclusiveDBName."""
    return [ResourceKey(Domain.DB_NAME, header.db_name)]


def collection(header: Any) -> Iterable[ResourceKey]:  # noqa: ANN401
    """SharedDBName + ExclusiveCollectionName."""
    return _collection(header, shared=False)


def collection_shared(header: Any) -> Iterable[ResourceKey]:  # noqa: ANN401
    """SharedDBName + SharedCollectionName."""
    return _collection(header, shared=True)


def altered_collection(header: headers_pb2.AlterCollectionHeader) -> Iterable[ResourceKey]:
    """Those of `collection`; of a rename ExclusiveDBName of its source and of its target."""
    if not (header.new_db_name or header.new_collection_name):
        return collection(header)
    target = ResourceKey(Domain.DB_NAME, header.new_db_name or header.db_name)
    return [*database(header), target]


def snapshot(header: Any) -> Iterable[ResourceKey]:  # noqa: ANN401
    """ExclusiveSnapshotName."""
    return [ResourceKey(Domain.SNAPSHOT_NAME, header.snapshot_name)]


def collection_and_snapshot(header: Any) -> Iterable[ResourceKey]:  # noqa: ANN401
    """SharedDBName + ExclusiveCollectionName + ExclusiveSnapshotName."""
    return [*collection(header), *snapshot(header)]


def none(_header: object) -> Iterable[ResourceKey]:
    """No key."""
    return ()


def _collection(header: Any, *, shared: bool) -> Iterable[ResourceKey]:  # noqa: ANN401
    # Escaped, so that no two pairs of names make the same key.
    names = [
        name.replace("%", "%25").replace("/", "%2F")
        for name in (header.db_name, header.collection_name)
    ]
    yield ResourceKey(Domain.DB_NAME, header.db_name, shared=True)
    yield ResourceKey(Domain.COLLECTION_NAME, "/".join(names), shared)
