"""What collections there are, and which changes to them are under way: a fold of durable deltas.

Contract: pure. `apply` takes what is durable, in order; a collection is seen by name only while it
is NORMAL. Ids come from one allocator, whose next value is persisted with their first use, so none
is given twice. What ends is dropped from the state. Layer: coord.
"""

from __future__ import annotations

import re
from collections import Counter

from walplane.channel import is_pchannel, is_vchannel, pchannel_of
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import coordmeta_pb2
from walplane.rpc.v1.coordmeta_pb2 import BroadcastTask, CatalogDelta, CollectionMeta

COMPONENT = "catalog"
SCHEMA_VERSION = 1
"""Of a collection that was never altered."""

MAX_SHARDS = 256

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,254}")


class Catalog:
    """The durable state.

    Args:
        prefix: of the PChannels' names; no collection may be called like a channel.

    Attributes:
        next_id: ids below it were given.
        tasks: PENDING changes, by broadcast id.
    """

    def __init__(self, prefix: str) -> None:
        """Before the first delta: nothing."""
        self._channels = f"{prefix}_"
        self.next_id = 1
        self.tasks: dict[int, BroadcastTask] = {}
        self._collections: dict[int, CollectionMeta] = {}
        self._by_name: dict[str, int] = {}
        self._loads: Counter[str] = Counter()

    def apply(self, data: bytes) -> None:
        """Takes a durable `CatalogDelta`."""
        delta = CatalogDelta.FromString(data)
        self.next_id = max(self.next_id, delta.next_id)
        for collection in delta.collections:
            self._take_collection(collection)
        for task in delta.tasks:
            if task.state == coordmeta_pb2.BROADCAST_STATE_PENDING:
                self.tasks[task.broadcast_id] = task
            else:
                self.tasks.pop(task.broadcast_id, None)

    def dump(self) -> list[bytes]:
        """The state, one delta a collection and a task."""
        deltas = [CatalogDelta(next_id=self.next_id)]
        deltas += [CatalogDelta(collections=[each]) for each in self._collections.values()]
        deltas += [CatalogDelta(tasks=[task]) for task in self.tasks.values()]
        return [delta.SerializeToString() for delta in deltas]

    def collections(self) -> list[CollectionMeta]:
        """Every collection that is there to be used, by name."""
        normal = [each for each in self._collections.values() if _is_normal(each)]
        return sorted(normal, key=lambda each: each.name)

    def by_name(self, name: str) -> CollectionMeta:
        """The collection `name`.

        Raises:
            WalError: INVALID_ARGUMENT when there is none.
        """
        collection = self._collections.get(self._by_name.get(name, 0))
        if collection is None or not _is_normal(collection):
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"there is no collection {name!r}: `walplane collection list` shows what there is",
            )
        return collection

    def by_id(self, collection_id: int) -> CollectionMeta:
        """The collection a pending task is about, whatever its state."""
        return self._collections[collection_id]

    def check_new(self, name: str, shards: int) -> None:
        """Whether a collection `name` with `shards` VChannels can be made.

        Raises:
            WalError: INVALID_ARGUMENT, with what is wrong.
        """
        if _NAME.fullmatch(name) is None:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"{name!r} is no collection name: a letter or _ first, then letters, digits, "
                "_ . or -, at most 255 in all",
            )
        if name.startswith(self._channels) and (is_pchannel(name) or is_vchannel(name)):
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"{name!r} is a channel's name in this cluster: choose another for the collection",
            )
        if not 0 < shards <= MAX_SHARDS:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"{shards} shards for collection {name!r}: choose 1 to {MAX_SHARDS}",
            )
        if name in self._by_name:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"collection {name!r} already exists: `walplane collection describe {name}`",
            )

    def loads(self) -> Counter[str]:
        """VChannels of living collections on each PChannel."""
        return +self._loads

    def _take_collection(self, collection: CollectionMeta) -> None:
        ident = collection.collection_id
        before = self._collections.get(ident)
        if before is not None:
            self._loads.subtract(map(pchannel_of, before.vchannels))
        if collection.state == coordmeta_pb2.COLLECTION_STATE_DROPPED:
            if before is not None:
                del self._collections[ident], self._by_name[collection.name]
            return
        self._collections[ident] = collection
        self._by_name[collection.name] = ident
        self._loads.update(map(pchannel_of, collection.vchannels))


def _is_normal(collection: CollectionMeta) -> bool:
    return collection.state == coordmeta_pb2.COLLECTION_STATE_NORMAL
