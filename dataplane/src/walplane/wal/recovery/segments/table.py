"""What of a log's segments is stored, and from where on the log is needed for the rest.

A component of the checkpoint: pure, changed by the flusher alone, saved with every snapshot also
where no flusher runs. It stays small: whatever lies wholly below the position is forgotten, since
nothing below it is read again. Layer: wal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from walplane.message.ids import MessageID, ResumeToken
from walplane.rpc.v1 import log_pb2
from walplane.ticks import ticks_in

_PARTS_A_RECORD = 200
_DROPPED_A_RECORD = 500
_SAFE_POSITIONS = 64
_MOST_DROPPED = 10_000

BEGINNING = ResumeToken(None, 0, 0, 0)
"""Nothing is stored yet."""


class StreamKey(NamedTuple):
    """A segment; or a partition's Inserts that name none, or its Deletes, with segment id 0."""

    kind: log_pb2.StreamKind
    vchannel: str
    collection_id: int
    partition_id: int
    segment_id: int


class Dropped(NamedTuple):
    """A VChannel that was dropped at `tick`; its objects are there still."""

    vchannel: str
    collection_id: int
    tick: int


@dataclass(slots=True)
class StoredStream:
    """What is stored of one stream.

    Attributes:
        through: tick up to which everything of it is stored.
        parts: its objects, kept while it is a segment that grows.
        sealed: tick of what sealed it; 0 while it grows.
    """

    through: int = 0
    parts: list[log_pb2.SegmentPart] = field(default_factory=list)
    sealed: int = 0


class SegmentTable:
    """Stored streams by key.

    Attributes:
        position: everything up to its tick is stored; a flusher begins to read here.
        streams: those that have something stored above the position, or grow.
        dropped: VChannels whose objects are to be deleted, by name, in the order of their ends.
        changed: whether something is stored that no snapshot says.
        trouble: why the latest attempt to store something failed; empty when all is well.
        failure: why the flusher cannot go on; empty when it can.
    """

    component = "segments"

    def __init__(self) -> None:
        """Nothing is stored."""
        self.position = BEGINNING
        self.streams: dict[StreamKey, StoredStream] = {}
        self.changed = False
        self.trouble = ""
        self.failure = ""
        self.dropped: dict[str, Dropped] = {}
        self._safe: list[tuple[int, MessageID]] = []

    def stored(self, key: StreamKey) -> StoredStream:
        """What is stored of `key`; an empty one is made if nothing is."""
        return self.streams.setdefault(key, StoredStream())

    def began(self, key: StreamKey, tick: int) -> bool:
        """Whether a stream may have something at or below `tick`; a replay comes before some."""
        stream = self.streams.get(key)
        return stream is None or not stream.parts or stream.parts[0].first_tick <= tick

    def add(self, key: StreamKey, part: log_pb2.SegmentPart) -> None:
        """`part` is in the store, and lies behind all of `key` that was."""
        stream = self.stored(key)
        stream.through = part.last_tick
        self.changed = True
        if key.kind == log_pb2.STREAM_KIND_SEGMENT:
            stream.parts.append(part)

    def seal(self, key: StreamKey, tick: int) -> None:
        """The segment is stored whole, sealed at `tick`."""
        stream = self.stored(key)
        stream.sealed, stream.through = tick, max(tick, stream.through)
        stream.parts = []
        self.changed = True

    def drop(self, vchannel: str, collection_id: int, tick: int) -> None:
        """The objects of `vchannel` are to be deleted some time; of too many the oldest stay."""
        if vchannel not in self.dropped:
            self.dropped[vchannel] = Dropped(vchannel, collection_id, tick)
            self.changed = True
        if len(self.dropped) > _MOST_DROPPED:
            del self.dropped[next(iter(self.dropped))]

    def deleted(self, vchannel: str) -> None:
        """Its objects are gone."""
        self.changed |= self.dropped.pop(vchannel, None) is not None

    def move(self, position: ResumeToken) -> None:
        """Everything up to `position` is stored; never goes back.

        Nor does its place in the log, below which the log may be cut off already. An entry's own
        LastConfirmed may lie below that of an earlier position, which was read off the live log.
        """
        if position.time_tick < self.position.time_tick:
            return
        position = position.reaching(self.position.last_confirmed)
        self.changed |= position.last_confirmed != self.position.last_confirmed
        self.position = position
        for key, stream in list(self.streams.items()):
            grows = key.kind == log_pb2.STREAM_KIND_SEGMENT and not stream.sealed
            if not grows and stream.through <= position.time_tick:
                del self.streams[key]

    def cut(self, safe: MessageID, tick: int, retention_s: float) -> MessageID | None:
        """Where to cut off the log, of which everything below `safe` is saved at `tick`.

        What was safe for less than `retention_s` seconds of ticks stays; infinity is for ever.
        """
        wait = ticks_in(retention_s)
        if not self._safe or tick >= self._safe[-1][0] + wait // _SAFE_POSITIONS:
            self._safe.append((tick, safe))
        cut = None
        while self._safe and self._safe[0][0] + wait <= tick:
            cut = self._safe.pop(0)[1]
        return safe if not retention_s else cut

    def save(self) -> list[bytes]:
        """The component's snapshot."""
        self.changed = False
        records = [log_pb2.FlusherState(position=self.position.to_proto())]
        for tick, message_id in self._safe:
            records[0].safe.add(message_id=message_id.to_proto(), time_tick=tick)
        for gone in self.dropped.values():
            if len(records[-1].dropped) == _DROPPED_A_RECORD:
                records.append(log_pb2.FlusherState())
            records[-1].dropped.add(
                vchannel=gone.vchannel, collection_id=gone.collection_id, time_tick=gone.tick
            )
        room = 0
        for key, stream in self.streams.items():
            if room <= 0:
                records.append(log_pb2.FlusherState())
                room = _PARTS_A_RECORD
            room -= 1 + len(stream.parts)
            records[-1].streams.append(_to_proto(key, stream))
        return [record.SerializeToString() for record in records]

    def load(self, parts: Iterable[bytes]) -> None:
        """Takes over what `save` made."""
        for part in parts:
            record = log_pb2.FlusherState.FromString(part)
            if record.HasField("position"):
                self.position = ResumeToken.from_proto(record.position)
            for safe in record.safe:
                self._safe.append((safe.time_tick, MessageID.from_proto(safe.message_id)))
            for gone in record.dropped:
                self.dropped[gone.vchannel] = Dropped(
                    gone.vchannel, gone.collection_id, gone.time_tick
                )
            for proto in record.streams:
                key = StreamKey(
                    proto.kind,
                    proto.vchannel,
                    proto.collection_id,
                    proto.partition_id,
                    proto.segment_id,
                )
                stored = StoredStream(proto.through_tick, list(proto.parts), proto.sealed_tick)
                self.streams[key] = stored


def _to_proto(key: StreamKey, stream: StoredStream) -> log_pb2.StoredStream:
    return log_pb2.StoredStream(
        vchannel=key.vchannel,
        collection_id=key.collection_id,
        partition_id=key.partition_id,
        segment_id=key.segment_id,
        kind=key.kind,
        through_tick=stream.through,
        parts=stream.parts,
        sealed_tick=stream.sealed,
    )
