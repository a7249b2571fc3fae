"""Which PChannels carry the VChannels of a new collection. Pure. Layer: assignment."""

from __future__ import annotations

import heapq
from collections.abc import Mapping


def place_vchannels(loads: Mapping[str, int], shards: int) -> list[str]:
    """The PChannel of each shard, in order.

    Each goes to the PChannel with the fewest VChannels of this collection, among those to the one
    with the fewest of all, among those to the first in the order of `loads`.

    Args:
        loads: VChannels of living collections on each PChannel; at least one PChannel.
        shards: how many VChannels to place.
    """
    heap = [(0, load, order, name) for order, (name, load) in enumerate(loads.items())]
    heapq.heapify(heap)
    placed = []
    for _ in range(shards):
        own, load, order, name = heap[0]
        heapq.heapreplace(heap, (own + 1, load + 1, order, name))
        placed.append(name)
    return placed
