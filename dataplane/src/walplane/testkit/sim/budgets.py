"""I16: what nodes and readers keep in memory stays within budget, by accounts of their own.

Contract: looks at every node a few times a second, from outside; adds up what is there instead of
asking for the sums. Layer: testkit.
"""

from __future__ import annotations

from collections.abc import Iterator

from walplane.node.streaming_node import StreamingNode
from walplane.testkit.sim.cluster import SimCluster
from walplane.wal.appender import Pending
from walplane.wal.ports import HELD_OVERHEAD_BYTES
from walplane.wal.scan.buffer import WriteAheadBuffer
from walplane.wal.wal import WAL

_EVERY_S = 0.25
_MOST_TOLD = 3


class Budgets:
    """Looks as long as the world lasts.

    Attributes:
        violations: what was above its budget.
    """

    def __init__(self, cluster: SimCluster) -> None:
        """Looks from now on."""
        self.violations: list[str] = []
        self._cluster = cluster
        self._look()

    def _look(self) -> None:
        self._cluster.network.world(_EVERY_S, self._look)
        for process in self._cluster.nodes.values():
            node: StreamingNode | None = getattr(process, "node", None)
            if node is None or len(self.violations) >= _MOST_TOLD:
                continue
            self.violations += [
                f"I16 {process.process.name}: {what}"
                for wal in process.wals
                for what in of_wal(wal)
            ]
            # What lives in the process appends within its own client's budget.
            lodgers = len(self._cluster.on_node[process.process.host])
            most = (
                node.config.node_append_bytes + lodgers * self._cluster.shape.client.pending_bytes
            )
            self.violations += [
                f"I16 {process.process.name}: {what}" for what in of_node(process.wals, most)
            ]


def of_wal(wal: WAL) -> Iterator[str]:
    """What one log keeps."""
    kept, most = _kept(wal.buffer), wal.config.write_ahead_bytes
    largest = max(kept, default=0)
    # An entry may be larger than the budget; what left is kept until there is an eighth of it; and
    # the log measures an entry before it is stamped.
    if sum(kept) > most + most // 5 + 2 * largest:
        yield f"{wal.pchannel} keeps {sum(kept)} bytes for readers, of {most}"
    pending = sum(item.op.size for item in _pending(wal))
    if pending != wal.appender.bytes_pending:
        yield f"{wal.pchannel} has {pending} bytes pending, and counts {wal.appender.bytes_pending}"


def of_node(wals: list[WAL], most: int) -> Iterator[str]:
    """What clients' appends hold at one node, of `most` bytes."""
    sizes = [
        pending.op.size
        for wal in wals
        if not wal.stopped.done()
        for pending in _pending(wal)
        if pending.op.envelope.HasField("producer")
    ]
    if sum(sizes) > most + max(sizes, default=0):
        yield f"appends of {sum(sizes)} bytes are in flight, of {most}"


def _pending(wal: WAL) -> list[Pending]:
    flying, queued = wal.appender.unsettled()
    return [item for frame in flying for item in frame.entries] + queued


def _kept(buffer: WriteAheadBuffer) -> list[int]:
    return [item.entry.ByteSize() + HELD_OVERHEAD_BYTES for item in buffer._entries]
