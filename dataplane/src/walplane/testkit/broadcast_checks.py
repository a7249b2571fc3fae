"""I11: what a broadcast becomes, by logs, catalog and what its caller was told. Layer: testkit.

Contract: judged when every task is done. Each target VChannel has each broadcast exactly once;
two broadcasts that share a collection lie in the same order on every VChannel they share; and the
catalog is what the broadcasts say, once each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from walplane.client import CollectionInfo
from walplane.message.registry import MessageType
from walplane.testkit.log_view import Logged, LogView


def check_broadcasts(logs: Iterable[LogView], catalog: Collection[int]) -> Iterator[str]:
    """I11; `catalog` holds the ids of the collections that are there."""
    entries = [entry for log in logs for entry in log.in_tick_order() if _id_of(entry)]
    reached: defaultdict[int, list[str]] = defaultdict(list)
    for entry in entries:
        reached[_id_of(entry)].append(entry.envelope.vchannel)
    for entry in entries:
        targets = sorted(entry.envelope.broadcast.vchannels)
        got = sorted(reached.pop(_id_of(entry), targets))
        if got != targets:
            yield f"I11 broadcast {_id_of(entry)} for {targets} reached {got}"
    yield from _one_order(entries)
    yield from _catalog_agrees(entries, catalog)


@dataclass
class ToldChanges:
    """What callers were told of changes.

    Attributes:
        made: collections that were answered to who made them.
        dropped: ids that were answered to who dropped them.
        gone: ids of collections that were made, and of which an append heard that they are not.
    """

    made: list[CollectionInfo] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)


def check_told(logs: Iterable[LogView], told: ToldChanges) -> Iterator[str]:
    """I1 and I2 of changes: whoever is told of one finds it in every log that it concerns."""
    ticks: dict[tuple[int, int, str], int] = {}
    for entry in [entry for log in logs for entry in log.entries if _id_of(entry)]:
        envelope = entry.envelope
        ticks[envelope.type, envelope.collection_id, envelope.vchannel] = entry.first_tick
    there = {(kind, collection_id) for kind, collection_id, _ in ticks}
    for made in told.made:
        create = MessageType.CREATE_COLLECTION, made.collection_id
        missing = [each for each in made.vchannels if (*create, each) not in ticks]
        if missing:
            yield f"I1 {made} was answered, and {missing} have no CreateCollection"
        control = [
            tick
            for (*change, vchannel), tick in ticks.items()
            if tuple(change) == create and vchannel not in made.vchannels
        ]
        if control != [made.created_tick]:
            yield f"I1 {made} was answered, and the CChannel has its CreateCollection at {control}"
    for collection_id in told.dropped:
        if (MessageType.DROP_COLLECTION, collection_id) not in there:
            yield f"I1 the drop of collection {collection_id} was answered, and no log has it"
    for collection_id in told.gone:
        if (MessageType.DROP_COLLECTION, collection_id) not in there:
            yield f"I2 collection {collection_id} was not there for an append, yet never dropped"


def _one_order(entries: Iterable[Logged]) -> Iterator[str]:
    orders: defaultdict[int, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        envelope = entry.envelope
        orders[envelope.collection_id][envelope.vchannel].append(_id_of(entry))
    for collection, by_vchannel in orders.items():
        for vchannel, order in by_vchannel.items():
            if order != sorted(order):
                yield f"I11 collection {collection} has {order} on {vchannel}: not as promised"


def _catalog_agrees(entries: Iterable[Logged], catalog: Collection[int]) -> Iterator[str]:
    made, dropped = (
        {entry.envelope.collection_id for entry in entries if entry.envelope.type == kind}
        for kind in (MessageType.CREATE_COLLECTION, MessageType.DROP_COLLECTION)
    )
    there = made - dropped
    if set(catalog) != there:
        yield f"I11 the catalog has collections {sorted(catalog)}, the logs {sorted(there)}"


def _id_of(entry: Logged) -> int:
    return entry.envelope.broadcast.broadcast_id
