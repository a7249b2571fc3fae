"""How logs were cut off, and objects deleted, as the world saw it. Layer: testkit.

Contract: nothing fences either, so each is held against what the meta topic said when it came: the
last whole snapshot's checkpoint and the position up to which segments are stored.
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


class Deleted(NamedTuple):
    """An object that was deleted.

    Attributes:
        path: its own.
        checkpoint: tick of the checkpoint that was saved by then.
        position: tick up to which everything was stored, by the same snapshot.
    """

    path: str
    checkpoint: int
    position: int


class _Saved(NamedTuple):
    """A snapshot's checkpoint, and the position saved with it."""

    checkpoint: log_pb2.WALCheckpoint
    position: log_pb2.ResumeToken


class Cuts:
    """All truncations and deletions.

    Attributes:
        made: the truncations in their order.
        deleted: the deletions in theirs.
        violations: cuts that nobody was allowed.
    """

    def __init__(self, disk: Disk, store: Objects | None) -> None:
        """None yet."""
        self.made: list[Cut] = []
        self.deleted: list[Deleted] = []
        self.violations: list[str] = []
        self._disk = disk
        self._store = store

    def note(self, topic: Topic, sequence: int) -> None:
        """`topic` is about to be cut off below `sequence`."""
        objects = len(self._store.data) if self._store is not None else 0
        self.made.append(Cut(topic.name, sequence, objects))
        saved = self._saved(topic.name)
        for what, token in (
            ("the checkpoint", saved.checkpoint),
            ("what is stored", saved.position),
        ):
            place = None
            if token.HasField("last_confirmed"):
                place = MessageID.from_proto(token.last_confirmed)
            if place is None or sequence > place.record[0]:
                self.violations.append(
                    f"I10 {topic.name} was cut off below {sequence}, but {what} reaches to {place}"
                )

    def beginning(self, pchannel: str) -> int:
        """Number of the first record that `pchannel` still has."""
        topic = self._disk.topics.get(pchannel)
        return topic.earliest if topic is not None else FIRST

    def note_deletion(self, path: str) -> None:
        """An object is about to be deleted."""
        saved = self._saved(path.partition("/")[0])
        self.deleted.append(Deleted(path, saved.checkpoint.time_tick, saved.position.time_tick))

    def _saved(self, pchannel: str) -> _Saved:
        """Of the last whole snapshot; both are empty before the first."""
        saved = _Saved(log_pb2.WALCheckpoint(), log_pb2.ResumeToken())
        topic = self._disk.topics[meta_topic(pchannel)]
        for parts in list(snapshots(topic.name, records_of(topic)))[-1:]:
            saved.checkpoint.ParseFromString(parts["checkpoint"][0])
            state = log_pb2.FlusherState.FromString(parts[SegmentTable.component][0])
            saved.position.CopyFrom(state.position)
        return saved


def records_of(topic: Topic) -> list[Record]:
    """All that readers ever saw of a data topic; of others, what they see now."""
    first = topic.earliest - len(topic.gone)
    visible = [*topic.gone, *topic.records[: topic.visible - topic.earliest]]
    return [Record((first + n,), data) for n, data in enumerate(visible)]
