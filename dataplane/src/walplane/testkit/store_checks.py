"""Checkers of a segment store against the logs it was filled from. Layer: testkit.

Contract: the log as it ever was, by the second implementation; rows as the store has them. What
counts is which committed rows there are, not how they are cut into parts.

    §9 every row of the store is a committed row of the log, in its segment, at its tick, once
    §9 what a whole segment's list names is there as it says, and is all of the segment
    I10 whatever was cut off was stored before
    I10 all that a saved position, or a stream's own, says to be stored is stored
    §9 objects are deleted of dropped VChannels only, behind all that a saved snapshot says

Of a dropped VChannel nothing need be there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from walplane.message import codec
from walplane.message.registry import MessageType
from walplane.rpc.v1 import log_pb2
from walplane.testkit.log_txns import transactions
from walplane.testkit.log_view import Logged, LogView
from walplane.testkit.sim.rows import rows_of
from walplane.wal.recovery.segments.storing import MANIFEST


class _Row(NamedTuple):
    """A committed row of the log; `tick` is its Commit's in a transaction."""

    vchannel: str
    segment_id: int
    tick: int
    record: int
    entry: str


class _Stored(NamedTuple):
    """Where a row is in the store; `number` counts objects in the order in which they came."""

    number: int
    path: str


@dataclass
class _Parts:
    """The parts of one log."""

    rows: dict[bytes, _Stored] = field(default_factory=dict)
    by_segment: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


class Expected(NamedTuple):
    """What must be stored of one log beside what the log itself says.

    Attributes:
        cuts: (number of the first record that stayed, how many objects there were by then).
        saved: parts of the last saved `SegmentTable`.
        flushed: ticks up to which all of a VChannel must be whole, by VChannel.
        deleted: (path, highest tick of a drop that allowed it) of objects.
    """

    cuts: Sequence[tuple[int, int]]
    saved: Sequence[bytes]
    flushed: Mapping[str, int]
    deleted: Sequence[tuple[str, int]] = ()


def check_store(log: LogView, objects: Mapping[str, bytes], expected: Expected) -> Iterator[str]:
    """All of the above for one log; `objects` of all logs, in the order in which they came."""
    committed = dict(_committed(log))
    dropped = {
        entry.envelope.vchannel: entry.last_tick
        for entry in log.entries
        if entry.envelope.type == MessageType.DROP_COLLECTION
    }
    yield from _deleted_of_dropped(dropped, expected.deleted)
    parts = _Parts()
    yield from _rows_are_committed(log.pchannel, committed, objects, parts)
    for payload in [each for each, row in committed.items() if row.vchannel in dropped]:
        del committed[payload]
    objects = {path: data for path, data in objects.items() if _vchannel(path) not in dropped}
    whole: set[int] = set()
    yield from _lists_hold(log.pchannel, committed, objects, parts, whole)
    yield from _cut_behind(log.pchannel, committed, parts, expected.cuts)
    yield from _positions_hold(log.pchannel, committed, parts, expected.saved)
    for payload, row in committed.items():
        if row.tick <= expected.flushed.get(row.vchannel, 0) and row.segment_id not in whole:
            yield f"§9 {log.pchannel}: {_name(payload, row)} was flushed, but is not whole"


def _vchannel(path: str) -> str:
    return path.split("/")[3]


def _deleted_of_dropped(
    dropped: Mapping[str, int], deleted: Sequence[tuple[str, int]]
) -> Iterator[str]:
    for path, limit in deleted:
        tick = dropped.get(_vchannel(path))
        if tick is None:
            yield f"§9 {path} was deleted, though its VChannel was not dropped"
        elif tick > limit:
            yield f"§9 {path} was deleted by {limit}, before its VChannel was dropped at {tick}"


def _committed(log: LogView) -> Iterator[tuple[bytes, _Row]]:
    entries = log.in_tick_order()
    commits = {
        body.message_id: txn.end_tick
        for txn in transactions(entries).values()
        if txn.committed
        for body in txn.bodies
    }
    for entry in entries:
        if entry.envelope.type != MessageType.INSERT:
            continue
        kind, tick = entry.envelope.txn.kind, 0
        if kind == log_pb2.TXN_KIND_PART:
            if (tick := commits.get(entry.message_id, 0)) == 0:
                continue
        elif kind == log_pb2.TXN_KIND_WHOLE:
            tick = entry.last_tick
        yield from _rows(entry, tick)


def _rows(entry: Logged, tick: int) -> Iterator[tuple[bytes, _Row]]:
    envelope, place = entry.envelope, entry.message_id
    for number, payload in enumerate(codec.decode_body(entry.body)[1]):
        at = tick or entry.first_tick + number
        record = place.record[0]
        yield payload, _Row(envelope.vchannel, envelope.segment_id, at, record, str(place))


def _rows_are_committed(
    pchannel: str, committed: Mapping[bytes, _Row], objects: Mapping[str, bytes], parts: _Parts
) -> Iterator[str]:
    for number, (path, data) in enumerate(objects.items()):
        if path.endswith(MANIFEST) or not path.startswith(f"{pchannel}/"):
            continue
        about, rows = rows_of(data)
        parts.by_segment[about["segment_id"]].append(path)
        for row in rows:
            logged = committed.get(row.payload)
            if logged is None:
                yield f"§9 {path} has {row.payload[:40]!r}, which nobody committed"
                continue
            if (row.tick, row.entry, about["vchannel"], about["segment_id"]) != (
                *(logged.tick, logged.entry, logged.vchannel),
                str(logged.segment_id),
            ):
                yield f"§9 {path} has {row} of {about}, the log {_name(row.payload, logged)}"
            first = parts.rows.setdefault(row.payload, _Stored(number, path))
            if first.number != number:
                yield f"§9 {path} has {row.payload[:40]!r}, which {first.path} has as well"


def _lists_hold(
    pchannel: str,
    committed: Mapping[bytes, _Row],
    objects: Mapping[str, bytes],
    parts: _Parts,
    whole: set[int],
) -> Iterator[str]:
    missing: defaultdict[int, list[bytes]] = defaultdict(list)
    for payload, row in committed.items():
        if payload not in parts.rows:
            missing[row.segment_id].append(payload)
    for path, data in objects.items():
        if not path.endswith(MANIFEST) or not path.startswith(f"{pchannel}/"):
            continue
        said = json.loads(data)
        whole.add(int(said["segment_id"]))
        named = [part["path"] for part in said["parts"]]
        if named != sorted(parts.by_segment[said["segment_id"]]):
            there = sorted(parts.by_segment[said["segment_id"]])
            yield f"§9 {path} names {named}, but there are {there}"
        for part in said["parts"]:
            if part["crc32c"] != codec.crc32c(objects.get(part["path"], b"")):
                yield f"§9 {part['path']} is not what {path} says"
        for payload in missing[int(said["segment_id"])][:1]:
            yield f"§9 {path} is whole without {_name(payload, committed[payload])}"


def _cut_behind(
    pchannel: str,
    committed: Mapping[bytes, _Row],
    parts: _Parts,
    cuts: Sequence[tuple[int, int]],
) -> Iterator[str]:
    for payload, row in committed.items():
        held = next((objects for first, objects in cuts if first > row.record), None)
        stored = parts.rows.get(payload)
        if held is not None and (stored is None or stored.number >= held):
            yield f"I10 {pchannel}: {_name(payload, row)} was cut off before it was stored"


def _positions_hold(
    pchannel: str, committed: Mapping[bytes, _Row], parts: _Parts, saved: Collection[bytes]
) -> Iterator[str]:
    position, through = log_pb2.ResumeToken(), {}
    for record in map(log_pb2.FlusherState.FromString, saved):
        if record.HasField("position"):
            position = record.position
        for stream in record.streams:
            through[stream.vchannel, stream.segment_id] = stream.through_tick
    for payload, row in committed.items():
        own = through.get((row.vchannel, row.segment_id), 0)
        if row.tick <= max(own, position.time_tick) and payload not in parts.rows:
            yield (
                f"I10 {pchannel}: {_name(payload, row)} is not stored, though position "
                f"{position.time_tick} and stream {own} say so"
            )


def _name(payload: bytes, row: _Row) -> str:
    return f"{payload[:40]!r} (segment {row.segment_id}, tick {row.tick}, entry {row.entry})"
