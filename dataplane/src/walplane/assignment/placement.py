"""Which PChannels carry the VChannels of a new collection. Pure. Layer: assignment."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping


def place_vchannels(
    loads: Mapping[str, int], shards: int, unserved: Collection[str] = ()
) -> list[str]:
    """The PChannel of each shard, in order.

    Each goes to the PChannel with the fewest VChannels of this collection, among those to one that
    is served, among those to the one with the fewest of all, among those to the first in the order
    of `loads`. VChannels are never moved: that a PChannel is not served for a moment, as most are
    not while a cluster starts, is no reason to put those of one collection together.

    Args:
        loads: VChannels of living collections on each PChannel; at least one PChannel.
        shards: how many VChannels to place.
        unserved: PChannels that nobody serves now: what is put there has to wait.
    """
    heap = [
        (0, name in unserved, load, order, name) for order, (name, load) in enumerate(loads.items())
    ]
    heapq.heapify(heap)
    placed = []
    for _ in range(shards):
        own, away, load, order, name = heap[0]
        heapq.heapreplace(heap, (own + 1, away, load + 1, order, name))
        placed.append(name)
    return placed
