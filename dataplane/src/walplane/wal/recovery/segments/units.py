"""What the flusher keeps until it is stored: a stream's appends in order, a transaction as one.

Layer: wal.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import NamedTuple

from walplane.message.ids import ResumeToken
from walplane.message.registry import MessageType
from walplane.rpc.v1 import log_pb2
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.segments.table import StreamKey
from walplane.wal.shard.table import collection_of


class Unit(NamedTuple):
    """One append, or the bodies that one transaction has in a stream.

    Attributes:
        tick: of its last message; of the Commit for a transaction.
        entries: in log order.
        commit: the tick of all its messages; 0 when each has its own.
    """

    tick: int
    entries: tuple[LogEntry, ...]
    commit: int = 0

    @property
    def first_tick(self) -> int:
        """Tick of its first message."""
        return self.commit or self.entries[0].first_tick

    @property
    def size(self) -> int:
        """Bytes it takes in memory, about."""
        return sum(item.held_bytes for item in self.entries)


class Backlog:
    """The units of one stream that are not stored yet.

    Attributes:
        before: where a reader begins that must meet all of them.
        bytes: what they take in memory.
    """

    def __init__(self, before: ResumeToken) -> None:
        """Empty."""
        self.before = before
        self.units: deque[Unit] = deque()
        self.bytes = 0

    def add(self, unit: Unit) -> int:
        """Takes the next unit; returns its size."""
        size = unit.size
        self.units.append(unit)
        self.bytes += size
        return size

    def head(self, most_bytes: int) -> list[Unit]:
        """The first units whose bodies take `most_bytes` together at most, or the first alone."""
        taken, size = 0, 0
        for unit in self.units:
            size += sum(item.size for item in unit.entries)
            if taken and size > most_bytes:
                break
            taken += 1
        return list(islice(self.units, taken))

    def drop_through(self, tick: int) -> int:
        """Lets go of what is stored up to `tick`; returns its size."""
        gone = 0
        while self.units and self.units[0].tick <= tick:
            gone += self.units.popleft().size
        self.bytes -= gone
        return gone


def key_of(envelope: log_pb2.Envelope) -> StreamKey | None:
    """The stream of an Insert or a Delete; None for all else."""
    if envelope.type == MessageType.DELETE:
        kind, segment_id = log_pb2.STREAM_KIND_DELETES, 0
    elif envelope.type != MessageType.INSERT:
        return None
    elif segment_id := envelope.segment_id:
        kind = log_pb2.STREAM_KIND_SEGMENT
    else:
        kind = log_pb2.STREAM_KIND_UNASSIGNED
    return StreamKey(
        kind,
        envelope.vchannel,
        collection_of(envelope),
        envelope.partition_id,
        segment_id,
    )


_FOLDERS = {
    log_pb2.STREAM_KIND_UNASSIGNED: "unassigned",
    log_pb2.STREAM_KIND_DELETES: "deletes",
}


def collection_folder(pchannel: str, collection_id: int) -> str:
    """Where all objects of a collection in one log lie."""
    return f"{pchannel}/{collection_id}"


def lies_in(path: str, vchannel: str) -> bool:
    """Whether an object is one of `vchannel`."""
    return vchannel in path.split("/")[3:4]


def folder_of(pchannel: str, key: StreamKey) -> str:
    """Where the objects of `key` lie: PChannel/collection/partition/VChannel/segment."""
    name = _FOLDERS.get(key.kind) or str(key.segment_id)
    collection = collection_folder(pchannel, key.collection_id)
    return f"{collection}/{key.partition_id}/{key.vchannel}/{name}"
