"""What one VChannel consists of, as values: its collection's state and its segments.

Contract: pure; only `ShardTable` changes them. Layer: wal.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from walplane.rpc.v1 import shard_pb2


@dataclass(slots=True)
class Segment:
    """The rows that one partition of a VChannel got between two seals.

    Attributes:
        segment_id: tick of its CreateSegment.
        vchannel: where it is.
        collection_id: whose it is.
        partition_id: as its Inserts say; 0 = the default one.
        schema_version: of every row in it; 0 = the collection has none.
        rows: messages of plain Inserts and of committed transactions.
        bytes: of their bodies.
        last_tick: of what last added to it, a transaction's Commit for one; at first its own.
            What is observed again up to here changes nothing.
        flushed_tick: of what sealed it; 0 while it grows.
    """

    segment_id: int
    vchannel: str
    collection_id: int
    partition_id: int
    schema_version: int
    rows: int = 0
    bytes: int = 0
    last_tick: int = 0
    flushed_tick: int = 0

    @property
    def growing(self) -> bool:
        """Whether it may get more."""
        return not self.flushed_tick

    def to_proto(self) -> shard_pb2.SegmentAssignment:
        """As a snapshot keeps it."""
        return shard_pb2.SegmentAssignment(
            segment_id=self.segment_id,
            partition_id=self.partition_id,
            schema_version=self.schema_version,
            rows=self.rows,
            bytes=self.bytes,
            last_tick=self.last_tick,
            flushed_tick=self.flushed_tick,
        )


@dataclass(slots=True)
class VChannelMeta:
    """A VChannel: its collection's state, as the log says.

    Attributes:
        vchannel: its name.
        collection_id: whose shard it is.
        partitions: that were created and not dropped.
        schemas: (version, tick from which on it counts), oldest first.
        created_tick: of its CreateCollection.
        dropped_tick: of its DropCollection; 0 while it is NORMAL.
        tick: changes of the collection up to here are in this state.
        last_segment_id: CreateSegments up to here are in this state.
        segments: by id, in the order of their creation: growing ones and the latest flushed.
        encoded: this as a snapshot keeps it, while it does not change.
    """

    vchannel: str
    collection_id: int
    partitions: set[int] = field(default_factory=set)
    schemas: list[tuple[int, int]] = field(default_factory=list)
    created_tick: int = 0
    dropped_tick: int = 0
    tick: int = 0
    last_segment_id: int = 0
    segments: dict[int, Segment] = field(default_factory=dict)
    encoded: bytes | None = None

    @property
    def normal(self) -> bool:
        """Whether it is there: created and not dropped."""
        return not self.dropped_tick

    @property
    def schema_version(self) -> int:
        """The current version; 0 = the collection has none."""
        return self.schemas[-1][0] if self.schemas else 0

    def growing(self) -> list[Segment]:
        """Its growing segments, oldest first."""
        return [segment for segment in self.segments.values() if segment.growing]

    def encode(self) -> bytes:
        """As a snapshot keeps it; made anew only after a change."""
        if self.encoded is None:
            state = shard_pb2.VChannelState(
                vchannel=self.vchannel,
                collection_id=self.collection_id,
                partition_ids=sorted(self.partitions),
                created_tick=self.created_tick,
                dropped_tick=self.dropped_tick,
                time_tick=self.tick,
                last_segment_id=self.last_segment_id,
                segments=[segment.to_proto() for segment in self.segments.values()],
            )
            for version, tick in self.schemas:
                state.schemas.add(version=version, time_tick=tick)
            self.encoded = state.SerializeToString()
        return self.encoded

    @classmethod
    def decode(cls, data: bytes) -> VChannelMeta:
        """What `encode` made."""
        state = shard_pb2.VChannelState.FromString(data)
        meta = cls(
            state.vchannel,
            state.collection_id,
            set(state.partition_ids),
            [(schema.version, schema.time_tick) for schema in state.schemas],
            state.created_tick,
            state.dropped_tick,
            state.time_tick,
            state.last_segment_id,
            encoded=data,
        )
        for kept in state.segments:
            meta.segments[kept.segment_id] = Segment(
                kept.segment_id,
                meta.vchannel,
                meta.collection_id,
                kept.partition_id,
                kept.schema_version,
                kept.rows,
                kept.bytes,
                kept.last_tick,
                kept.flushed_tick,
            )
        return meta
