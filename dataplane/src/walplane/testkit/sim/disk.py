"""The disk under the simulated backend: what is written, what is synced, what a crash takes.

Contract: a record can be read, and is acknowledged, once it is synced; a crash forgets what is not.
Records written while a sync is under way are part of the next one. Layer: testkit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from walplane.backends.sequenced import FIRST, Bell
from walplane.channel import is_pchannel
from walplane.message.ids import RecordID
from walplane.testkit.sim.network import Network

if TYPE_CHECKING:
    from walplane.testkit.sim.writer import SimWriter

OnDurable = Callable[[RecordID], None]


class Topic:
    """One topic's records, in the order in which they were written.

    Attributes:
        earliest: sequence number of the first record still there.
        gone: records of a data topic that were cut off, from the first one on.
        visible: one above the last record that readers see.
        highest: highest (term, open number) it was opened under.
        highest_term: the highest that anything durable was written under.
        writer: who may write.
    """

    def __init__(self, name: str) -> None:
        """Empty."""
        self.name = name
        self.records: list[bytes] = []
        self.gone: list[bytes] = []
        self.earliest = FIRST
        self.visible = FIRST
        self.synced = FIRST
        self.highest = (-1, -1)
        self.highest_term = 0
        self.writer: SimWriter | None = None
        self.bell = Bell()

    @property
    def end(self) -> int:
        """One above the last record written."""
        return self.earliest + len(self.records)

    def show(self, end: int) -> None:
        """Readers see what lies below `end`."""
        if end > self.visible:
            self.visible = end
            self.bell.ring()

    def truncate(self, sequence: int) -> None:
        """Forgets what lies below `sequence`, at most all but the last visible record."""
        gone = min(sequence, self.visible - 1) - self.earliest
        if gone > 0:
            if is_pchannel(self.name):
                self.gone += self.records[:gone]
            del self.records[:gone]
            self.earliest += gone

    def forget_unsynced(self) -> None:
        """What a crash does."""
        del self.records[max(self.synced - self.earliest, 0) :]
        self.visible = min(self.visible, self.synced)


class Disk:
    """Holds every topic of a cluster.

    Attributes:
        topics: by name.
        sync_s: how long a sync takes.
        crashes: how often what was not synced was lost.
    """

    def __init__(self, network: Network, sync_s: float) -> None:
        """Empty."""
        self.topics: dict[str, Topic] = {}
        self.sync_s = sync_s
        self.crashes = 0
        self._network = network
        self._unsynced: list[tuple[Topic, int, OnDurable]] = []
        self._syncing: list[tuple[Topic, int, OnDurable]] = []

    def write(self, topic: Topic, data: bytes, on_durable: OnDurable) -> None:
        """Writes one record; `on_durable` gets its id once it is synced, or never."""
        sequence = topic.end
        topic.records.append(data)
        self._unsynced.append((topic, sequence, on_durable))
        if not self._syncing:
            self._sync()

    def crash(self) -> None:
        """Loses what is not synced; nobody is told."""
        self.crashes += 1
        self._unsynced.clear()
        self._syncing.clear()
        for topic in self.topics.values():
            topic.forget_unsynced()

    def _sync(self) -> None:
        self._syncing, self._unsynced = self._unsynced, []
        if self._syncing:
            self._network.world(self.sync_s, self._synced, self.crashes)

    def _synced(self, crashes: int) -> None:
        if crashes != self.crashes:
            return  # the disk this sync was for is gone
        done, self._syncing = self._syncing, []
        for topic, sequence, _ in done:
            topic.synced = sequence + 1
        for topic, sequence, on_durable in done:
            topic.show(sequence + 1)
            on_durable((sequence,))
        if not self._syncing:
            self._sync()
