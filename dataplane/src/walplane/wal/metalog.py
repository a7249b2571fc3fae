"""The meta topic: deltas and snapshots of named components, ordered and fenced.

Contract (rules §16): order in the topic gives crash consistency. A snapshot counts only with
its end; truncation to its begin follows only after the end was read back. A record of a lower
(term, open number) than an earlier one is void. One writer per open; opening takes exclusivity,
appends a barrier and reads the topic through it. Frames are cut by what the backend refused, which
may be less than it told. Layer: wal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog

from walplane.backends.interface import EARLIEST, BackendSession, Start, StartAt
from walplane.message.codec import RecordPlace, decode_frame
from walplane.message.ids import RecordID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.frames import BEFORE_ANY_OPEN, FrameFilter, FrameSender, OpenKey
from walplane.wal.limits import RecordLimits
from walplane.wal.ports import StaleTerm

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")

_FRAME_BYTES = 512 * 1024
_TRUNCATED_READS = 10  # in a row, before it counts as damage

ACK_TIMEOUT_S = 10.0
"""An acknowledgement of metadata that takes longer counts as lost, unless said otherwise."""

Progress = Callable[[], None]
"""Told of each read of a topic: a long one is no reason to give up."""


def _unwatched() -> None:
    """Nobody waits for progress."""


def meta_limits(max_record_bytes: int) -> RecordLimits:
    """Of the frames of a meta topic, for all of an owner's opens; half a record at the most."""
    return RecordLimits(max_record_bytes, min(_FRAME_BYTES, max_record_bytes // 2))


@dataclass
class MetaState:
    """What a meta topic says: the last whole snapshot and the deltas after it, in order."""

    snapshot: dict[str, list[bytes]] = field(default_factory=dict)
    deltas: list[tuple[str, bytes]] = field(default_factory=list)


class MetaLog:
    """The exclusive writer of one meta topic."""

    def __init__(
        self,
        session: BackendSession,
        topic: str,
        sender: FrameSender,
        barrier: log_pb2.MetaBarrier,
        ack_timeout_s: float,
        limits: RecordLimits,
    ) -> None:
        """Use `open`."""
        self._limits = limits
        self._ack_timeout_s = ack_timeout_s
        self._session = session
        self._topic = topic
        self._sender = sender
        self._barrier = barrier
        self._snapshots = 0
        self._snapshot_lock = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        session: BackendSession,
        topic: str,
        *,
        term: int,
        open_number: int,
        barrier_id: bytes,
        limits: RecordLimits,
        own_barriers: Collection[bytes] = (),
        ack_timeout_s: float = ACK_TIMEOUT_S,
        progress: Progress = _unwatched,
    ) -> tuple[MetaLog, MetaState]:
        """Takes the topic, appends a barrier and reads through it.

        Args:
            session: the client to use; stays the caller's to close, also after a failure.
            topic: name of the meta topic, made when missing.
            term: term of this owner.
            open_number: number of this open within the term.
            barrier_id: random id of this open.
            limits: `meta_limits`, with what earlier opens of this same owner learnt.
            own_barriers: ids of earlier opens of this same owner.
            ack_timeout_s: an acknowledgement that takes longer counts as lost.
            progress: told of each read of the topic.

        Raises:
            StaleTerm: a barrier of a higher term, or of this term by somebody else, is there.
            WalError: as the backend raises it.
        """
        await session.ensure_topic(topic)
        key = OpenKey(term, open_number)
        own = {barrier_id, *own_barriers}
        try:
            writer = await session.open_writer(topic, term, open_number)
        except WalError:
            await find_foreign(session, topic, term, own, progress)  # says who took it, if any
            raise
        sender = FrameSender(topic, writer, key)
        barrier = log_pb2.MetaBarrier(term=term, open_number=open_number, barrier_id=barrier_id)
        sent = sender.send(meta=[log_pb2.MetaRecord(barrier=barrier)])
        await sender.written(sent, ack_timeout_s)

        async def read_through_barrier() -> MetaState:
            reader = _StateReader(topic, term, own)

            def visit(_: RecordID, record: log_pb2.MetaRecord) -> bool:
                reader.take(record)
                return record.barrier.barrier_id == barrier_id

            await _read(session, topic, visit, progress=progress)
            return reader.state

        state = await _from_earliest(read_through_barrier)
        return cls(session, topic, sender, barrier, ack_timeout_s, limits), state

    async def append(self, *deltas: tuple[str, bytes]) -> None:
        """Adds (component, data) records, durable and in order when this returns.

        Raises:
            WalError: OUTCOME_UNKNOWN or CHANNEL_FENCED; every later call fails as well.
                INVALID_ARGUMENT when the backend refused a frame: the next open makes smaller
                ones; or, and `failure` is None then, when a record is known to be too large.
        """
        records = [
            log_pb2.MetaRecord(delta=log_pb2.MetaDelta(component=name, data=data))
            for name, data in deltas
        ]
        await self._write(records)

    async def snapshot(
        self, components: Mapping[str, Sequence[bytes]], *, truncate: bool = True
    ) -> None:
        """Replaces everything before it by `components`, then truncates the topic if told so.

        Deltas appended while this runs lie after it: the caller takes `components` and calls
        this without awaiting in between. A truncation that fails is left to the next snapshot.

        Raises:
            WalError: as `append`; UNRECOVERABLE when the snapshot does not read back whole.
        """
        async with self._snapshot_lock:
            self._snapshots += 1
            ident = self._snapshots
            begin = await self._write(self._snapshot_records(ident, components))
            if truncate:
                await self._truncate(await self._read_back(ident, begin))

    @property
    def failure(self) -> WalError | None:
        """Why nothing more can be written, if so; only a new open helps."""
        return self._sender.failure

    async def close(self) -> None:
        """Stops writing; what is in flight stays unknown. The session is the caller's."""
        self._sender.abandon(WalError(ErrorCode.ON_SHUTDOWN, f"{self._topic} is closed"))

    def _snapshot_records(
        self, ident: int, components: Mapping[str, Sequence[bytes]]
    ) -> Iterator[log_pb2.MetaRecord]:
        begin = log_pb2.MetaSnapshotBegin(snapshot_id=ident, barrier=self._barrier)
        yield log_pb2.MetaRecord(snapshot_begin=begin)
        parts = 0
        for name, items in components.items():
            for data in items:
                part = log_pb2.MetaSnapshotPart(snapshot_id=ident, component=name, data=data)
                yield log_pb2.MetaRecord(snapshot_part=part)
                parts += 1
        end = log_pb2.MetaSnapshotEnd(snapshot_id=ident, parts=parts)
        yield log_pb2.MetaRecord(snapshot_end=end)

    async def _write(self, records: Iterable[log_pb2.MetaRecord]) -> RecordID | None:
        """Writes all of them, in order; returns where the first one is, if that is known."""
        frames = list(self._frames(records))
        sent = [self._sender.send(meta=frame) for frame in frames]
        ids = []
        for frame, one in zip(frames, sent, strict=True):
            try:
                ids.append(await self._sender.written(one, self._ack_timeout_s))
            except WalError as error:
                if error.code is ErrorCode.INVALID_ARGUMENT and one.number == self._sender.due:
                    self._limits.refused([record.ByteSize() for record in frame])
                raise
        return ids[0]

    def _frames(self, records: Iterable[log_pb2.MetaRecord]) -> Iterator[list[log_pb2.MetaRecord]]:
        frame: list[log_pb2.MetaRecord] = []
        filled = 0
        for record in records:
            size = record.ByteSize()
            if size > self._limits.entry_bytes:
                raise self._too_large(record)
            if frame and filled + size > self._limits.frame_bytes:
                yield frame
                frame, filled = [], 0
            frame.append(record)
            filled += size
        yield frame

    def _too_large(self, record: log_pb2.MetaRecord) -> WalError:
        component = record.snapshot_part.component or record.delta.component
        return WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"{record.ByteSize()} bytes of {component!r} are larger than the "
            f"{self._limits.entry_bytes} that {self._topic} takes: raise the record limit of "
            "its storage again, then have another node own it",
        )

    async def _read_back(self, ident: int, begin: RecordID | None) -> RecordID:
        start = EARLIEST if begin is None else Start(StartAt.FROM, begin)
        found: list[RecordID] = []
        key = OpenKey(self._barrier.term, self._barrier.open_number)
        reader = _StateReader(self._topic, key.term, {self._barrier.barrier_id})

        def visit(record_id: RecordID, record: log_pb2.MetaRecord) -> bool:
            reader.take(record)
            if record.snapshot_begin.snapshot_id == ident:
                found.append(record_id)
            return record.snapshot_end.snapshot_id == ident

        await _read(self._session, self._topic, visit, start, key)
        if reader.snapshots == 0 or not found:
            raise WalError(
                ErrorCode.UNRECOVERABLE,
                f"snapshot {ident} of {self._topic} does not read back whole: what it replaces is "
                "kept; check the storage of the topic",
            )
        return found[-1]

    async def _truncate(self, begin: RecordID) -> None:
        try:
            await self._session.truncate(self._topic, begin)
        except WalError as error:  # what is superseded only costs room and reading
            _log.warning("not truncated, next time again", topic=self._topic, error=str(error))


async def highest_term(session: BackendSession, topic: str) -> int:
    """The highest term anybody wrote into `topic` under; 0 when it is empty. Fences nobody."""
    terms = [0]
    await _look(session, topic, lambda content: terms.append(content.term))
    return max(terms)


async def find_foreign(
    session: BackendSession,
    topic: str,
    term: int,
    own_barriers: Collection[bytes],
    progress: Progress = _unwatched,
) -> None:
    """A read-only look for another opener.

    Raises:
        StaleTerm: a barrier of a higher term, or of `term` by somebody else, is in `topic`.
    """
    reader = _StateReader(topic, term, set(own_barriers))

    def visit(content: log_pb2.FrameContent) -> None:
        for meta in content.meta:
            reader.take(meta)

    await _look(session, topic, visit, progress)


@dataclass
class _PendingSnapshot:
    """A snapshot whose end was not read yet; it replaces the first `covers` deltas."""

    ident: int
    covers: int
    components: dict[str, list[bytes]] = field(default_factory=dict)

    def add(self, part: log_pb2.MetaSnapshotPart) -> None:
        if part.snapshot_id == self.ident:
            self.components.setdefault(part.component, []).append(part.data)

    def ended_by(self, end: log_pb2.MetaSnapshotEnd) -> bool:
        """Whether it is whole with this end."""
        parts = sum(map(len, self.components.values()))
        return (end.snapshot_id, end.parts) == (self.ident, parts)


class _StateReader:
    """Folds meta records into a state; refuses barriers of other openers."""

    def __init__(self, topic: str, term: int, own_barriers: set[bytes]) -> None:
        self._topic = topic
        self._term = term
        self._own = own_barriers
        self._pending: _PendingSnapshot | None = None
        self.state = MetaState()
        self.snapshots = 0  # whole ones so far

    def take(self, record: log_pb2.MetaRecord) -> None:
        if record.HasField("barrier"):
            self._check(record.barrier)
            self._pending = None  # a snapshot lies within one open
        elif record.HasField("delta"):
            self.state.deltas.append((record.delta.component, record.delta.data))
        elif record.HasField("snapshot_begin"):
            self._check(record.snapshot_begin.barrier)
            ident = record.snapshot_begin.snapshot_id
            self._pending = _PendingSnapshot(ident, len(self.state.deltas))
        elif record.HasField("snapshot_part") and self._pending is not None:
            self._pending.add(record.snapshot_part)
        elif record.HasField("snapshot_end") and self._pending is not None:
            pending, self._pending = self._pending, None
            if pending.ended_by(record.snapshot_end):
                self.state = MetaState(pending.components, self.state.deltas[pending.covers :])
                self.snapshots += 1
            else:
                _log.error("a snapshot lacks parts and does not count", topic=self._topic)

    def _check(self, barrier: log_pb2.MetaBarrier) -> None:
        foreign = barrier.term == self._term and barrier.barrier_id not in self._own
        if barrier.term > self._term or foreign:
            raise StaleTerm(self._topic, self._term, barrier.term)


async def _read(
    session: BackendSession,
    topic: str,
    visit: Callable[[RecordID, log_pb2.MetaRecord], bool],
    start: Start = EARLIEST,
    floor: OpenKey = BEFORE_ANY_OPEN,
    progress: Progress = _unwatched,
) -> None:
    """Shows `visit` the valid records from `start` on until it says that it has seen enough."""
    scanner = await session.open_scanner(topic, start)
    frames = FrameFilter(topic, floor)
    try:
        while True:
            records = await scanner.read()
            progress()
            for record in records:
                content = decode_frame(record.data, RecordPlace(topic, record.record_id))
                if not frames.admit(content):
                    continue
                if any(visit(record.record_id, meta) for meta in content.meta):
                    return
    finally:
        await scanner.close()


async def _look(
    session: BackendSession,
    topic: str,
    visit: Callable[[log_pb2.FrameContent], None],
    progress: Progress = _unwatched,
) -> None:
    """Shows `visit` every frame that is in `topic` now, some maybe twice; fences nobody."""
    await _from_earliest(partial(_look_once, session, topic, visit, progress))


async def _from_earliest(read: Callable[[], Awaitable[_T]]) -> _T:
    """What `read` finds from the earliest record on, which may move while it reads.

    Nothing fences a truncation: that of an owner of old, or of the present one, may come between
    two records. What it leaves begins with a whole snapshot, so there is nothing wrong with it.
    """
    for _ in range(_TRUNCATED_READS):
        try:
            return await read()
        except WalError as error:
            if error.code is not ErrorCode.DATA_TRUNCATED:
                raise
    return await read()


async def _look_once(
    session: BackendSession,
    topic: str,
    visit: Callable[[log_pb2.FrameContent], None],
    progress: Progress,
) -> None:
    last = await session.last_record_id(topic)
    if last is None:
        return
    scanner = await session.open_scanner(topic, EARLIEST)
    try:
        while True:
            records = await scanner.read()
            progress()
            for record in records:
                visit(decode_frame(record.data, RecordPlace(topic, record.record_id)))
                if record.record_id >= last:
                    return
    finally:
        await scanner.close()
