"""I11: what a broadcast becomes, by the logs of all PChannels and the catalog. Layer: testkit.

Contract: judged when every task is done. Each target VChannel has each broadcast exactly once;
two broadcasts that share a collection lie in the same order on every VChannel they share; and the
catalog is what the broadcasts say, once each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

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
