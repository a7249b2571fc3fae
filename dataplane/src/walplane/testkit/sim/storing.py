"""What a run stores in the end: all is flushed, and every flusher gets there. Layer: testkit.

Contract: after the faults, what was flushed is stored within a bound (I15), unless storage itself
gave a flusher something that it cannot read.
"""

from __future__ import annotations

from collections.abc import Iterator

from walplane.channel import pchannel_of
from walplane.client import StreamingClient
from walplane.rpc.errors import ErrorCode
from walplane.testkit.sim.user_txns import manual_flush
from walplane.testkit.sim.workload import Work
from walplane.wal.recovery.segments.flusher import SegmentFlusher


class Flushes:
    """The last flush of every VChannel.

    Attributes:
        ticks: of the flush, by VChannel.
    """

    def __init__(self, work: Work) -> None:
        """None yet."""
        self.ticks: dict[str, int] = {}
        self._work = work

    async def flush(self, client: StreamingClient) -> None:
        """Seals all that grows in the collection that all users write to."""
        for vchannel in self._work.vchannels:
            result = await client.append(manual_flush(vchannel), timeout=30.0)
            self.ticks[vchannel] = result.time_tick

    def stored(self) -> bool:
        """Whether every flusher is past the flushes of its log, or stopped for good."""
        return all(
            any(_past(flusher, tick) for flusher in self._flushers(pchannel_of(vchannel)))
            for vchannel, tick in self.ticks.items()
        )

    def failures(self) -> Iterator[str]:
        """Flushers that stopped for good, though they could read all that there is."""
        damaged = self._work.cluster.broker.damaged
        for pchannel in self._work.cluster.pchannels:
            for flusher in self._flushers(pchannel):
                failure = flusher.table.failure
                if failure and not (damaged and ErrorCode.UNRECOVERABLE.name in failure):
                    yield f"I15 {failure}"

    def _flushers(self, pchannel: str) -> list[SegmentFlusher]:
        return [
            wal._flusher
            for node in self._work.cluster.nodes.values()
            for wal in node.wals
            if wal.pchannel == pchannel and wal._flusher is not None
        ]


def _past(flusher: SegmentFlusher, tick: int) -> bool:
    return bool(flusher.table.failure) or flusher._done.time_tick >= tick
