"""From a request to the delta that makes it PENDING: checks, ids, VChannels, message. Pure.

Contract: the delta holds one task and the collection as it is meanwhile; nothing is changed here.
Layer: coord.
"""

from __future__ import annotations

from collections.abc import Mapping

from walplane.assignment.placement import place_vchannels
from walplane.channel import VChannelName
from walplane.coord.catalog import SCHEMA_VERSION, Catalog
from walplane.message.builder import BroadcastMutableMessage, create_collection, drop_collection
from walplane.rpc.v1 import coordmeta_pb2, headers_pb2
from walplane.rpc.v1.coordmeta_pb2 import BroadcastTask, CatalogDelta, CollectionMeta

DATABASE = "default"
PARTITION = "_default"


def plan_create(
    catalog: Catalog,
    pchannels: Mapping[str, bool],
    cchannel: str,
    term: int,
    *,
    name: str,
    shards: int,
) -> CatalogDelta:
    """A collection `name` in state CREATING, its VChannels placed, and its CreateCollection.

    `pchannels` says in order which there are, and whether each is served now.

    Raises:
        WalError: INVALID_ARGUMENT, with what is wrong.
    """
    catalog.check_new(name, shards)
    ident, partition, broadcast_id = range(catalog.next_id, catalog.next_id + 3)
    loads = catalog.loads()
    unserved = {pchannel for pchannel, served in pchannels.items() if not served}
    placed = place_vchannels(
        {pchannel: loads[pchannel] for pchannel in pchannels}, shards, unserved
    )
    collection = CollectionMeta(
        collection_id=ident,
        name=name,
        vchannels=[str(VChannelName(on, ident, shard)) for shard, on in enumerate(placed)],
        schema_version=SCHEMA_VERSION,
        default_partition_id=partition,
        state=coordmeta_pb2.COLLECTION_STATE_CREATING,
    )
    header = headers_pb2.CreateCollectionHeader(
        db_name=DATABASE,
        collection_id=ident,
        collection_name=name,
        vchannels=collection.vchannels,
        partition_ids=[partition],
        partition_names=[PARTITION],
        schema_version=SCHEMA_VERSION,
    )
    return _pending(broadcast_id, term, create_collection(header, cchannel), collection)


def plan_drop(catalog: Catalog, cchannel: str, term: int, *, name: str) -> CatalogDelta:
    """The collection `name` in state DROPPING, and its DropCollection.

    Raises:
        WalError: INVALID_ARGUMENT when there is none.
    """
    collection = CollectionMeta()
    collection.CopyFrom(catalog.by_name(name))
    collection.state = coordmeta_pb2.COLLECTION_STATE_DROPPING
    header = headers_pb2.CollectionHeader(
        db_name=DATABASE, collection_id=collection.collection_id, collection_name=name
    )
    message = drop_collection(header, collection.vchannels, cchannel)
    return _pending(catalog.next_id, term, message, collection)


def _pending(
    broadcast_id: int, term: int, message: BroadcastMutableMessage, collection: CollectionMeta
) -> CatalogDelta:
    """The delta; `broadcast_id` is the last id that it uses up."""
    entry = message.split(broadcast_id, term)[0].to_entry()
    entry.envelope.ClearField("vchannel")
    task = BroadcastTask(
        broadcast_id=broadcast_id, state=coordmeta_pb2.BROADCAST_STATE_PENDING, message=entry
    )
    return CatalogDelta(next_id=broadcast_id + 1, tasks=[task], collections=[collection])
