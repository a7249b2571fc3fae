"""What the simulation must notice when it is switched off around the segment store.

Contract: as `mutations`; hunted among the seeds that have a store. Layer: testkit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from walplane.backends.interface import EARLIEST, BackendSession, RecordScanner, Start
from walplane.message.ids import MessageID, ResumeToken
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.testkit.sim.mutations import Mutation, patched
from walplane.testkit.sim.objects import Objects
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.segments.deletion import Deletion
from walplane.wal.recovery.segments.flusher import SegmentFlusher
from walplane.wal.recovery.segments.store import Encoded
from walplane.wal.recovery.segments.storing import SegmentWriter
from walplane.wal.recovery.segments.table import Dropped, SegmentTable, StreamKey
from walplane.wal.recovery.segments.units import Unit, key_of
from walplane.wal.recovery.truncation import Truncation
from walplane.wal.wal import WAL

_after = Truncation.after
_open_scanner = WAL.open_scanner
_write_part = SegmentWriter._write_part


async def _cut_by_checkpoint(
    self: Truncation,
    session: BackendSession,
    checkpoint: log_pb2.WALCheckpoint,
    _stored: MessageID | None,
) -> None:
    confirmed = None
    if checkpoint.HasField("last_confirmed"):
        confirmed = MessageID.from_proto(checkpoint.last_confirmed)
    await _after(self, session, checkpoint, confirmed)


async def _cut_by_position(
    self: Truncation,
    session: BackendSession,
    checkpoint: log_pb2.WALCheckpoint,
    _stored: MessageID | None,
) -> None:
    """By the present one, which no snapshot says yet."""
    now = self._table.position.last_confirmed
    if now is not None:
        checkpoint.last_confirmed.CopyFrom(now.to_proto())
    await _after(self, session, checkpoint, now)


def _wait_for_nothing(_writer: SegmentWriter, done: ResumeToken) -> ResumeToken:
    return done


async def _try_once(self: SegmentWriter, path: str, data: bytes) -> bytes:
    try:
        return await self._create(path, data)
    except OSError:
        return data


def _overwrite(self: Objects, path: str, data: bytes) -> bool:
    self.data[path] = data
    return True


def _forget(_table: SegmentTable, _parts: Iterable[bytes]) -> None:
    return None


async def _believe_own(
    self: SegmentWriter, key: StreamKey, encoded: Encoded, about: dict[str, str]
) -> log_pb2.SegmentPart:
    part = await _write_part(self, key, encoded, about)
    part.last_tick, part.rows = encoded.last_tick, encoded.rows
    return part


def _learn_bodies(
    self: SegmentFlusher, item: LogEntry, begun: ResumeToken
) -> Iterator[tuple[StreamKey, int]]:
    key = key_of(item.entry.envelope)
    if key is None:
        yield from self._sealed_by(item)
    elif item.last_tick > begun.time_tick:
        self._writer.add(key, Unit(item.last_tick, (item,)), self._place)


def _due_at_once(self: Deletion, _tick: int, _position: int) -> list[Dropped]:
    return list(self._table.dropped.values())


async def _open_what_is_left(self: WAL, start: Start) -> RecordScanner:
    try:
        return await _open_scanner(self, start)
    except WalError as error:
        if error.code is not ErrorCode.DATA_TRUNCATED:
            raise
        return await _open_scanner(self, EARLIEST)


def _mutation(name: str, target: object, attribute: str, instead: object) -> Mutation:
    return Mutation(name, patched(target, attribute, instead), 100, needs_store=True)


STORE_MUTATIONS = (
    _mutation("cut off behind what is stored", Truncation, "after", _cut_by_checkpoint),
    _mutation("cut off behind what is saved", Truncation, "after", _cut_by_position),
    _mutation("position below what waits", SegmentWriter, "position", _wait_for_nothing),
    _mutation("what cannot be stored waits", SegmentWriter, "_persist", _try_once),
    _mutation("conditional creation", Objects, "put", _overwrite),
    _mutation("what is stored is remembered", SegmentTable, "load", _forget),
    _mutation("a part in place counts", SegmentWriter, "_write_part", _believe_own),
    _mutation("stored when committed", SegmentFlusher, "_learn", _learn_bodies),
    _mutation("DATA_TRUNCATED is told", WAL, "open_scanner", _open_what_is_left),
    _mutation("deleted behind the checkpoint", Deletion, "due", _due_at_once),
)
