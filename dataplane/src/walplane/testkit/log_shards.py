"""Collections, partitions and segments as a log has them, by a second implementation.

Contract: the order rules (rules §2) written down again, from entries in tick order alone; a
body of a transaction counts at its Commit. What was created before the first entry that is there is
not known, and not asked about. Layer: testkit.

    §2 CreateSegment precedes every Insert that names the segment, in the log and by its tick
    §2 nothing names a segment behind what sealed it; a Flush says what the segment holds
    §2 CreateCollection precedes and DropCollection ends everything of a collection on its VChannel
    §2 CreatePartition precedes and DropPartition ends the data of a partition
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from walplane.channel import is_cchannel
from walplane.message import codec
from walplane.message.registry import MessageType, spec_of
from walplane.rpc.v1 import log_pb2
from walplane.testkit.log_txns import transactions

if TYPE_CHECKING:
    from walplane.testkit.log_view import Logged

_T = MessageType
_DATA = frozenset({_T.INSERT, _T.DELETE})
_WHOLE_VCHANNEL = frozenset({_T.MANUAL_FLUSH, _T.TRUNCATE_COLLECTION, _T.DROP_COLLECTION})
_AGAIN = frozenset({_T.CREATE_COLLECTION, _T.DROP_COLLECTION})  # their broadcast may come again


@dataclass
class _Segment:
    created: Logged
    rows: int = 0
    sealed: Logged | None = None


@dataclass
class _VChannel:
    created: Logged | None = None
    dropped: Logged | None = None
    partitions: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    used: Logged | None = None


def check_shards(pchannel: str, entries: Sequence[Logged]) -> list[str]:
    """All of rules §2 that can be told of `entries`, which come in tick order."""
    walk = _Walk(entries[0].first_tick if entries else 0)
    txns = transactions(entries)
    committed = {txn.end_tick: txn for txn in txns.values() if txn.committed}
    for entry in entries:
        walk.place(entry)
        if entry.envelope.txn.kind != log_pb2.TXN_KIND_PART:
            walk.take(entry)
        elif entry.last_tick in committed:
            for body in committed[entry.last_tick].bodies:
                walk.take(body)
    return [f"§2 {pchannel}: {what}" for what in walk.found]


class _Walk:
    def __init__(self, first_tick: int) -> None:
        self.found: list[str] = []
        self._first_tick = first_tick
        self._segments: dict[int, _Segment] = {}
        self._vchannels: dict[str, _VChannel] = {}

    def place(self, entry: Logged) -> None:
        """An entry where it lies, whatever becomes of its transaction."""
        envelope = entry.envelope
        name = envelope.vchannel
        if not name or is_cchannel(name):
            return
        vchannel = self._vchannels.setdefault(name, _VChannel())
        if vchannel.dropped is not None and envelope.type not in _AGAIN:
            self.found.append(f"{entry} lies behind {vchannel.dropped}")
        if envelope.type == _T.INSERT:
            self._named(entry)
        if envelope.type in _DATA:
            self._partition(entry, vchannel)
        if envelope.type == _T.CREATE_COLLECTION and vchannel.created is None:
            if vchannel.used is not None:
                self.found.append(f"{vchannel.used} precedes {entry}")
            vchannel.created = entry
            vchannel.partitions |= set(_header(entry).partition_ids)
        vchannel.used = vchannel.used or entry

    def take(self, entry: Logged) -> None:
        """An entry that takes effect now."""
        envelope, vchannel = entry.envelope, self._vchannels.get(entry.envelope.vchannel)
        if envelope.type == _T.CREATE_SEGMENT:
            self._segments[_header(entry).segment_id] = _Segment(entry)
        elif envelope.type == _T.INSERT:
            self._add(entry)
        elif envelope.type == _T.FLUSH:
            self._flush(entry)
        elif envelope.type == _T.DROP_PARTITION:
            self._seal(entry, partition=_header(entry).partition_id)
        elif envelope.type in _WHOLE_VCHANNEL or envelope.type == _T.FLUSH_ALL:
            self._seal(entry)
        elif envelope.type == _T.ALTER_COLLECTION and _header(entry).new_schema_version:
            self._seal(entry)
        if vchannel is not None:
            self._change(entry, vchannel)

    def _change(self, entry: Logged, vchannel: _VChannel) -> None:
        kind = entry.envelope.type
        if kind == _T.DROP_COLLECTION:
            vchannel.dropped = vchannel.dropped or entry
        elif kind == _T.CREATE_PARTITION:
            vchannel.partitions.add(_header(entry).partition_id)
            vchannel.gone.discard(_header(entry).partition_id)
        elif kind == _T.DROP_PARTITION:
            vchannel.gone.add(_header(entry).partition_id)

    def _named(self, entry: Logged) -> None:
        segment_id = entry.envelope.segment_id
        segment = self._segments.get(segment_id)
        if segment is None:
            if segment_id > self._first_tick or not segment_id:
                self.found.append(f"{entry} names segment {segment_id}, which nothing created")
            return
        created = segment.created
        if entry.message_id < created.message_id:
            self.found.append(f"{entry} lies before {created}")
        mine, its = entry.envelope, created.envelope
        if (mine.vchannel, mine.partition_id) != (its.vchannel, its.partition_id):
            self.found.append(f"{entry} names segment {segment_id} of another partition")

    def _partition(self, entry: Logged, vchannel: _VChannel) -> None:
        partition = entry.envelope.partition_id
        if not partition:
            return
        unknown = vchannel.created is not None and partition not in vchannel.partitions
        if unknown or partition in vchannel.gone:
            self.found.append(f"{entry} is for partition {partition}, which is not there")

    def _add(self, entry: Logged) -> None:
        segment = self._segments.get(entry.envelope.segment_id)
        if segment is not None:
            segment.rows += entry.envelope.count
            if segment.sealed is not None:
                self.found.append(f"{entry} names a segment behind {segment.sealed}")

    def _flush(self, entry: Logged) -> None:
        header = _header(entry)
        segment = self._segments.get(header.segment_id)
        if segment is None:
            return
        if segment.sealed is not None:
            self.found.append(f"{entry} seals what {segment.sealed} sealed")
        if header.rows != segment.rows:
            self.found.append(f"{entry} says {header.rows} rows, but there are {segment.rows}")
        segment.sealed = entry

    def _seal(self, entry: Logged, partition: int | None = None) -> None:
        name = entry.envelope.vchannel
        for segment in self._segments.values():
            envelope = segment.created.envelope
            here = name in ("", envelope.vchannel)
            if here and partition in (None, envelope.partition_id):
                segment.sealed = segment.sealed or entry


def _header(entry: Logged) -> Any:  # noqa: ANN401 - of whatever type its registry row says
    header, _ = codec.decode_body(entry.body)
    return spec_of(entry.envelope.type).parse_header(header)
