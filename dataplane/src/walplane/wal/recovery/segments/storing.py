"""Writes what waits of a log's segments: parts, and of a whole segment the list of them.

Contract: an object is never overwritten. Whoever finds one in the place of a part takes it as it is
and goes on behind it; so it matters to nobody how often, and by how many owners, a range of the log
is stored. What a store refuses is tried again for ever. Layer: wal.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from walplane.message import codec
from walplane.message.ids import ResumeToken
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.meter import LogMeter
from walplane.wal.recovery.segments.budget import SegmentBudget
from walplane.wal.recovery.segments.store import Encoded, SegmentFormat, SegmentStore
from walplane.wal.recovery.segments.table import SegmentTable, StreamKey
from walplane.wal.recovery.segments.units import Backlog, Unit, folder_of

_BACKOFF_S = (0.1, 30.0)

MANIFEST = "segment.json"
"""Beside the parts of a segment that is stored whole."""

PART_BYTES = 32 << 20
"""Of bodies in one part: what a slow way to the store gets through in a minute or two."""

Offload = Callable[[Callable[[], Any]], Awaitable[Any]]


@dataclass(frozen=True)
class SegmentDeps:
    """What the wiring passes in for segments, one per process.

    Attributes:
        store: where they go.
        format: what their objects are.
        budget: of memory.
        offload: runs what takes long beside the loop.
        part_bytes: of bodies in one part, at most, unless one transaction has more.
    """

    store: SegmentStore
    format: SegmentFormat
    budget: SegmentBudget
    offload: Offload = asyncio.to_thread
    part_bytes: int = PART_BYTES


class SegmentWriter:
    """What waits of one log.

    Attributes:
        bytes: what it takes in memory.
    """

    def __init__(
        self,
        pchannel: str,
        table: SegmentTable,
        deps: SegmentDeps,
        meter: LogMeter,
        note: Callable[[str], None],
        on_part: Callable[[int, int], None],
    ) -> None:
        """Nothing waits.

        Args:
            pchannel: whose log it is.
            table: what is stored.
            deps: of the process.
            meter: counts what becomes of each attempt to store an object.
            note: told what goes wrong.
            on_part: told the id of a segment that got a part, and how many it has.
        """
        self.bytes = 0
        self._pchannel = pchannel
        self._table = table
        self._deps = deps
        self._meter = meter
        self._note = note
        self._on_part = on_part
        self._closed = False
        self._backlogs: dict[StreamKey, Backlog] = {}

    def clear(self) -> None:
        """Forgets what waits: all of it is read again."""
        self._backlogs.clear()
        self.bytes = 0

    def close(self) -> None:
        """Forgets what waits, and ends attempts to store it."""
        self._closed = True
        self.clear()

    def keys(self) -> set[StreamKey]:
        """The streams that something waits of, or that grow."""
        return self._table.streams.keys() | self._backlogs.keys()

    def position(self, done: ResumeToken) -> ResumeToken:
        """Where a reader must begin to meet all that waits; `done` if nothing does."""
        waiting = [each.before for each in self._backlogs.values()]
        return min([*waiting, done], key=lambda token: token.time_tick)

    def add(self, key: StreamKey, unit: Unit, place: Callable[[], ResumeToken]) -> None:
        """Takes the next unit of a stream, unless it is stored already; `place` lies before it."""
        stored = self._table.streams.get(key)
        if stored is not None and unit.tick <= stored.through:
            return
        backlog = self._backlogs.get(key)
        if backlog is None:
            backlog = self._backlogs[key] = Backlog(place())
        self.bytes += backlog.add(unit)

    def waiting_since(self, tick: int) -> list[StreamKey]:
        """The streams that nothing seals, and of which something at or below `tick` waits."""
        return [
            key
            for key, backlog in self._backlogs.items()
            if key.kind != log_pb2.STREAM_KIND_SEGMENT and backlog.units[0].first_tick <= tick
        ]

    async def store_largest(self) -> None:
        """Stores the stream that takes most."""
        if self._backlogs:
            await self.store(max(self._backlogs, key=lambda each: self._backlogs[each].bytes))

    async def seal(self, key: StreamKey, tick: int) -> None:
        """Stores what waits of a stream that `tick` ended; a segment is whole then."""
        stored = self._table.streams.get(key)
        if stored is not None and stored.sealed:
            return
        await self.store(key)
        if key.kind == log_pb2.STREAM_KIND_SEGMENT:
            await self._write_manifest(key, tick)
            self._table.seal(key, tick)

    async def store(self, key: StreamKey) -> None:
        """Writes what waits of a stream; what others wrote before in its place counts."""
        backlog = self._backlogs.get(key)
        if backlog is None:
            return
        about = self._about(key)
        while backlog.units:
            units = backlog.head(self._deps.part_bytes)
            objects = self._deps.format.encode(units, about)
            # one at a time: a process that ends waits for no more than that
            while encoded := await self._deps.offload(partial(next, objects, None)):
                part = await self._write_part(key, encoded, about)
                self._table.add(key, part)
                if key.kind == log_pb2.STREAM_KIND_SEGMENT:
                    self._on_part(key.segment_id, len(self._table.stored(key).parts))
                self.bytes -= backlog.drop_through(part.last_tick)
                if part.last_tick != encoded.last_tick:
                    break  # cut elsewhere by whoever wrote it
        self._backlogs.pop(key, None)  # gone already when the log was closed meanwhile

    async def _write_part(
        self, key: StreamKey, encoded: Encoded, about: dict[str, str]
    ) -> log_pb2.SegmentPart:
        folder = folder_of(self._pchannel, key)
        path = f"{folder}/{encoded.first_tick:020d}.{self._deps.format.suffix}"
        data = await self._persist(path, encoded.data)
        if data is not encoded.data:
            encoded = await self._deps.offload(partial(self._deps.format.describe, data, about))
        return log_pb2.SegmentPart(
            path=path,
            first_tick=encoded.first_tick,
            last_tick=encoded.last_tick,
            rows=encoded.rows,
            bytes=len(encoded.data),
            crc32c=codec.crc32c(encoded.data),
        )

    async def _write_manifest(self, key: StreamKey, tick: int) -> None:
        """Says that a segment is whole, and of which parts."""
        stored = self._table.stored(key).parts
        parts = [
            {
                "path": part.path,
                "first_tick": part.first_tick,
                "last_tick": part.last_tick,
                "rows": part.rows,
                "bytes": part.bytes,
                "crc32c": part.crc32c,
            }
            for part in stored
        ]
        rows = sum(part.rows for part in stored)
        about = self._about(key)
        said: dict[str, object] = {**about, "sealed_tick": tick, "rows": rows, "parts": parts}
        data = json.dumps(said, indent=1).encode()
        path = f"{folder_of(self._pchannel, key)}/{MANIFEST}"
        found = await self._persist(path, data)
        if found is not data and not _says(found, said):
            raise WalError(
                ErrorCode.UNRECOVERABLE,
                f"{path} is there and is none of this log, or names other parts than it wrote: "
                "give every cluster a segment store, or a prefix in it, of its own",
            )

    def _about(self, key: StreamKey) -> dict[str, str]:
        return {
            "pchannel": self._pchannel,
            "vchannel": key.vchannel,
            "collection_id": str(key.collection_id),
            "partition_id": str(key.partition_id),
            "segment_id": str(key.segment_id),
            "kind": log_pb2.StreamKind.Name(key.kind),
        }

    async def _persist(self, path: str, data: bytes) -> bytes:
        """Writes an object until it is there: what cannot be stored is never skipped.

        Returns:
            `data` itself, or what somebody wrote in its place before.
        """
        delay, most = _BACKOFF_S
        while True:
            try:
                found = await self._create(path, data)
            except Exception as error:
                self._meter.objects["failed"] += 1
                self._note(f"{path} cannot be stored, trying again: {error!r}")
            else:
                self._meter.objects["stored" if found is data else "found"] += 1
                return found
            await asyncio.sleep(delay)
            delay = min(2 * delay, most)
            if self._closed:
                raise WalError(ErrorCode.ON_SHUTDOWN, f"{self._pchannel} is closed here")

    async def _create(self, path: str, data: bytes) -> bytes:
        """One attempt. That an object is there counts once it was read.

        S3 refuses a create also while another of its name is on the way, which may fail yet.
        """
        store = self._deps.store
        return data if await store.create(path, data) else await store.read(path)


def _says(found: bytes, said: dict[str, object]) -> bool:
    """Whether a list that was found says what this log would have said."""
    try:
        there = json.loads(found)
    except ValueError:
        return False
    return isinstance(there, dict) and {**there, **said} == there
