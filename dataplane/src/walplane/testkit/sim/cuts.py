"""How logs were cut off, as the world saw it. Layer: testkit.

Contract: nothing fences a truncation, so each is held against what the meta topic said when it
came: the last whole snapshot's checkpoint and the position up to which segments are stored.
"""

from __future__ import annotations

from typing import NamedTuple

from walplane.backends.interface import Record
from walplane.backends.sequenced import FIRST
from walplane.channel import meta_topic
from walplane.message.ids import MessageID
from walplane.rpc.v1 import log_pb2
from walplane.testkit.log_checks import snapshots
from walplane.testkit.sim.disk import Disk, Topic
from walplane.testkit.sim.objects import Objects
from walplane.wal.recovery.segments.table import SegmentTable


class Cut(NamedTuple):
    """One truncation of a data topic.

    Attributes:
        pchannel: whose.
        sequence: number of the first record that stays.
        objects: how many the store held by then.
    """

    pchannel: str
    sequence: int
    objects: int


class Cuts:
    """All truncations.

    Attributes:
        made: in their order.
        violations: those that nobody was allowed.
    """

    def __init__(self, disk: Disk, store: Objects | None) -> None:
        """None yet."""
        self.made: list[Cut] = []
        self.violations: list[str] = []
        self._disk = disk
        self._store = store

    def note(self, topic: Topic, sequence: int) -> None:
        """`topic` is about to be cut off below `sequence`."""
        objects = len(self._store.data) if self._store is not None else 0
        self.made.append(Cut(topic.name, sequence, objects))
        confirmed, stored = self._saved(topic.name)
        for what, place in (("the checkpoint", confirmed), ("what is stored", stored)):
            if place is None or sequence > place.record[0]:
                self.violations.append(
                    f"I10 {topic.name} was cut off below {sequence}, but {what} reaches to {place}"
                )

    def beginning(self, pchannel: str) -> int:
        """Number of the first record that `pchannel` still has."""
        topic = self._disk.topics.get(pchannel)
        return topic.earliest if topic is not None else FIRST

    def _saved(self, pchannel: str) -> tuple[MessageID | None, MessageID | None]:
        """LastConfirmed of the checkpoint that is saved, and the position that is saved with it."""
        topic = self._disk.topics[meta_topic(pchannel)]
        confirmed = stored = None
        for parts in list(snapshots(topic.name, records_of(topic)))[-1:]:
            for data in parts["checkpoint"]:
                checkpoint = log_pb2.WALCheckpoint.FromString(data)
                if checkpoint.HasField("last_confirmed"):
                    confirmed = MessageID.from_proto(checkpoint.last_confirmed)
            position = log_pb2.FlusherState.FromString(parts[SegmentTable.component][0]).position
            if position.HasField("last_confirmed"):
                stored = MessageID.from_proto(position.last_confirmed)
        return confirmed, stored


def records_of(topic: Topic) -> list[Record]:
    """All that readers ever saw of a data topic; of others, what they see now."""
    first = topic.earliest - len(topic.gone)
    visible = [*topic.gone, *topic.records[: topic.visible - topic.earliest]]
    return [Record((first + n,), data) for n, data in enumerate(visible)]
