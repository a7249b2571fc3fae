"""Ticks for what a self-reopen writes again, taken before any of it is put back. Layer: wal.

Contract: taking them may wait, putting back may not (`reopening`). Each entry has a range of its
own, in the order of the entries: one range never straddles two batches (rules §3), and all that
waits may need more ticks than a batch holds.
"""

from __future__ import annotations

from collections.abc import Callable

from walplane.wal.appender import FlyingFrame, Pending
from walplane.wal.reopening import ticks_for
from walplane.wal.timetick.reserve import TickReserve

Unsettled = Callable[[], tuple[list[FlyingFrame], list[Pending]]]


async def ticks_ahead(unsettled: Unsettled, reserve: TickReserve, above: int) -> dict[int, int]:
    """The first tick for each entry that is not settled yet, by the `id` of its `Pending`.

    Waits while the coordinator is away; what arrives meanwhile has ticks too. Cancelled, it leaves
    ticks that nobody uses.

    Args:
        unsettled: in order; only grows at its end.
        reserve: the node's.
        above: what all of them lie above.
    """
    firsts: dict[int, int] = {}
    while True:
        flying, queued = unsettled()
        pendings = [item for frame in flying for item in frame.entries] + queued
        if len(firsts) == len(pendings):
            return firsts
        for pending in pendings[len(firsts) :]:
            needed = ticks_for(pending.op)
            while (first := reserve.take(needed, above)) is None:
                await reserve.ready(needed, above)
            firsts[id(pending)] = first
