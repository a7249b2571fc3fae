"""The shards of one PChannel as its log tells them: VChannels, partitions, schemas, segments.

Contract: pure; fed with every entry in log order, at startup from LastConfirmed on and live. A
transaction takes effect at its Commit; bodies of open ones are not saved, replay meets them again.
Each VChannel and each segment knows the tick up to which it holds everything: what takes effect at
or below that changes nothing when it is observed again. Layer: wal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from walplane.channel import InvalidChannelName, VChannelName, is_cchannel
from walplane.message.registry import MessageType, Scope
from walplane.message.txn import exclusive_scope, txn_of
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.wal.latest import Latest
from walplane.wal.ports import LogEntry
from walplane.wal.shard.seal import Seal, header_of, seal_of
from walplane.wal.shard.segments import Segment, VChannelMeta

_DDL = frozenset(
    {
        MessageType.DROP_COLLECTION,
        MessageType.ALTER_COLLECTION,
        MessageType.CREATE_PARTITION,
        MessageType.DROP_PARTITION,
    }
)


@dataclass(slots=True)
class Bodies:
    """What an open transaction has put into segments.

    Attributes:
        vchannel: where it is.
        tick: of its latest body.
        rows: (rows, bytes) by segment id.
    """

    vchannel: str
    tick: int = 0
    rows: dict[int, tuple[int, int]] = field(default_factory=dict)


class ShardTable:
    """The VChannels of one PChannel.

    Attributes:
        vchannels: NORMAL ones by name, in the order of their creation.
        dropped: the latest DROPPED ones by name.
        bodies: of open transactions, by transaction id.
        forgotten_tick: what was created up to here and is not known any more was dropped.
    """

    component = "shards"

    def __init__(self, kept: int) -> None:
        """Empty; keeps the `kept` latest flushed segments, and as many dropped VChannels."""
        self.vchannels: dict[str, VChannelMeta] = {}
        self.dropped: dict[str, VChannelMeta] = {}
        self.bodies: dict[int, Bodies] = {}
        self.forgotten_tick = 0
        self._flushed: Latest[tuple[VChannelMeta, Segment]] = Latest(kept)
        self._ends: Latest[VChannelMeta] = Latest(kept)

    def __contains__(self, vchannel: str) -> bool:
        """Whether `vchannel` is there: created and not dropped."""
        return vchannel in self.vchannels

    def __len__(self) -> int:
        """How many VChannels are there."""
        return len(self.vchannels)

    def meta(self, vchannel: str) -> VChannelMeta | None:
        """A VChannel that is there, or was dropped lately."""
        return self.vchannels.get(vchannel) or self.dropped.get(vchannel)

    def growing(self, vchannel: str) -> list[Segment]:
        """The growing segments of a VChannel, oldest first."""
        meta = self.vchannels.get(vchannel)
        return [] if meta is None else meta.growing()

    def all_growing(self) -> Iterator[Segment]:
        """Every growing segment of the PChannel, by VChannel, oldest first."""
        for meta in self.vchannels.values():
            yield from meta.growing()

    def segment(self, vchannel: str, segment_id: int) -> Segment | None:
        """A segment: growing, or flushed lately."""
        meta = self.meta(vchannel)
        return None if meta is None else meta.segments.get(segment_id)

    def observe(self, log_entry: LogEntry) -> None:
        """Learns of a written entry, in log order."""
        envelope = log_entry.entry.envelope
        kind = envelope.type
        if kind == MessageType.INSERT:
            self._insert(log_entry, envelope)
        elif kind == MessageType.COMMIT_TXN:
            self._commit(log_entry, envelope)
        elif kind == MessageType.ROLLBACK_TXN:
            self.bodies.pop(envelope.txn.txn_id, None)
        elif kind == MessageType.CREATE_SEGMENT:
            self._create_segment(log_entry, envelope)
        elif kind == MessageType.CREATE_COLLECTION:
            self._create_collection(log_entry, envelope)
        else:
            self._observe_other(log_entry, envelope)

    def save(self) -> list[bytes]:
        """The component's snapshot, one part a VChannel, and one of what was forgotten."""
        parts = [meta.encode() for each in (self.dropped, self.vchannels) for meta in each.values()]
        if self.forgotten_tick:
            parts.append(VChannelMeta("", 0, created_tick=self.forgotten_tick).encode())
        return parts

    def load(self, parts: Iterable[bytes]) -> None:
        """Takes over what `save` made."""
        for meta in map(VChannelMeta.decode, parts):
            if not meta.vchannel:
                self.forgotten_tick = max(self.forgotten_tick, meta.created_tick)
                continue
            for segment in [each for each in meta.segments.values() if not each.growing]:
                self._keep_flushed(meta, segment)
            if meta.normal:
                self.vchannels[meta.vchannel] = meta
            else:
                self._keep_dropped(meta)

    # --- data ------------------------------------------------------------------------------------

    def _insert(self, log_entry: LogEntry, envelope: log_pb2.Envelope) -> None:
        segment_id = envelope.segment_id
        txn_id = txn_of(envelope)
        if txn_id:
            self._body(log_entry, txn_id, segment_id)
            return
        meta = self.vchannels.get(envelope.vchannel)
        if meta is not None:
            _add(meta, segment_id, envelope.count, log_entry.size, log_entry.last_tick)

    def _body(self, log_entry: LogEntry, txn_id: int, segment_id: int) -> None:
        envelope = log_entry.entry.envelope
        bodies = self.bodies.get(txn_id)
        if bodies is None:
            bodies = self.bodies[txn_id] = Bodies(envelope.vchannel)
        if log_entry.last_tick > bodies.tick:
            bodies.tick = log_entry.last_tick
            rows, size = bodies.rows.get(segment_id, (0, 0))
            bodies.rows[segment_id] = (rows + envelope.count, size + log_entry.size)

    def _commit(self, log_entry: LogEntry, envelope: log_pb2.Envelope) -> None:
        bodies = self.bodies.pop(envelope.txn.txn_id, None)
        meta = self.vchannels.get(envelope.vchannel)
        if bodies is None or meta is None:
            return
        for segment_id, (rows, size) in bodies.rows.items():
            _add(meta, segment_id, rows, size, log_entry.last_tick)

    def _create_segment(self, log_entry: LogEntry, envelope: log_pb2.Envelope) -> None:
        meta = self.vchannels.get(envelope.vchannel)
        if meta is None or log_entry.last_tick <= meta.last_segment_id:
            return
        header = header_of(log_entry.entry)
        if isinstance(header, headers_pb2.CreateSegmentHeader):
            meta.segments[header.segment_id] = Segment(
                header.segment_id,
                envelope.vchannel,
                envelope.collection_id,
                envelope.partition_id,
                envelope.schema_version,
                last_tick=log_entry.last_tick,
            )
            meta.last_segment_id = header.segment_id
            meta.encoded = None

    # --- collections -----------------------------------------------------------------------------

    def _create_collection(self, log_entry: LogEntry, envelope: log_pb2.Envelope) -> None:
        name, tick = envelope.vchannel, log_entry.last_tick
        self._end_bodies(envelope)
        if is_cchannel(name) or self.meta(name) is not None or tick <= self.forgotten_tick:
            return  # made before: its broadcast came again, or it is replayed
        header = header_of(log_entry.entry)
        if isinstance(header, headers_pb2.CreateCollectionHeader):
            version = header.schema_version
            self.vchannels[name] = VChannelMeta(
                name,
                collection_of(envelope),
                set(header.partition_ids),
                [(version, tick)] if version else [],
                created_tick=tick,
                tick=tick,
            )

    def _observe_other(self, log_entry: LogEntry, envelope: log_pb2.Envelope) -> None:
        self._end_bodies(envelope)
        entry, tick = log_entry.entry, log_entry.last_tick
        seal = seal_of(entry)
        if seal is None and envelope.type not in _DDL:
            return
        targets = self._targets(envelope)
        if seal is not None:
            self._seal(targets, seal, tick)
        for meta in targets:
            if envelope.type in _DDL and tick > meta.tick:
                self._change(meta, entry, tick)

    def _targets(self, envelope: log_pb2.Envelope) -> list[VChannelMeta]:
        if not envelope.vchannel:
            return list(self.vchannels.values())
        meta = self.vchannels.get(envelope.vchannel)
        return [] if meta is None else [meta]

    def _seal(self, metas: Iterable[VChannelMeta], seal: Seal, tick: int) -> None:
        for meta in metas:
            for segment in meta.growing():
                if segment.segment_id > tick:
                    continue  # replayed: it was created since
                if seal.covers(meta.vchannel, segment.partition_id, segment.segment_id):
                    segment.flushed_tick = tick
                    meta.encoded = None
                    self._keep_flushed(meta, segment)

    def _change(self, meta: VChannelMeta, entry: log_pb2.Entry, tick: int) -> None:
        header = header_of(entry)
        if isinstance(header, headers_pb2.AlterCollectionHeader):
            if header.new_schema_version > meta.schema_version:
                meta.schemas.append((header.new_schema_version, tick))
        elif isinstance(header, headers_pb2.PartitionHeader):
            if entry.envelope.type == MessageType.CREATE_PARTITION:
                meta.partitions.add(header.partition_id)
            else:
                meta.partitions.discard(header.partition_id)
        else:
            meta.dropped_tick = tick
            self._keep_dropped(self.vchannels.pop(meta.vchannel))
        meta.tick, meta.encoded = tick, None

    def _keep_flushed(self, meta: VChannelMeta, segment: Segment) -> None:
        oldest = self._flushed.add((segment.flushed_tick, segment.segment_id), (meta, segment))
        if oldest is not None:
            owner, forgotten = oldest
            owner.segments.pop(forgotten.segment_id, None)
            owner.encoded = None

    def _keep_dropped(self, meta: VChannelMeta) -> None:
        self.dropped[meta.vchannel] = meta
        oldest = self._ends.add((meta.dropped_tick, meta.created_tick), meta)
        if oldest is not None:
            del self.dropped[oldest.vchannel]
            self.forgotten_tick = max(self.forgotten_tick, oldest.created_tick)
            for segment in oldest.segments.values():
                self._flushed.remove((segment.flushed_tick, segment.segment_id))

    def _end_bodies(self, envelope: log_pb2.Envelope) -> None:
        """An exclusive message ends the open transactions on its VChannel or PChannel."""
        scope = exclusive_scope(envelope.type)
        if scope is Scope.NONE or not self.bodies:
            return
        for txn_id, bodies in list(self.bodies.items()):
            if scope is Scope.PCHANNEL or bodies.vchannel == envelope.vchannel:
                del self.bodies[txn_id]


def collection_of(envelope: log_pb2.Envelope) -> int:
    """The collection of a message; old callers name it by the VChannel only."""
    if envelope.collection_id:
        return envelope.collection_id
    try:
        return VChannelName.parse(envelope.vchannel).collection_id
    except InvalidChannelName:
        return 0


def _add(meta: VChannelMeta, segment_id: int, rows: int, size: int, tick: int) -> None:
    segment = meta.segments.get(segment_id)
    if segment is not None and tick > segment.last_tick:
        segment.rows += rows
        segment.bytes += size
        segment.last_tick = tick
        meta.encoded = None
