"""Brings one log's segments to object storage, off the append path.

Contract: a reader of the log like any other, from the position that the checkpoint holds on. Rows
wait in memory until their segment is sealed, or memory is short, or they wait for as long as a
segment may grow and are of none; then they are written as a part,
`<first tick>.parquet`, which nobody ever overwrites: whoever comes to the same place later, after a
crash or as another owner, takes what is there and goes on behind it. So every row is in one part,
whoever died when. What cannot be stored is tried for ever; a log that cannot be read on is left as
it is: the position stays, nothing above it is cut off, appends go on. Layer: wal.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import structlog

from walplane.channel import is_cchannel
from walplane.message.ids import ResumeToken
from walplane.message.registry import MessageType
from walplane.message.txn import is_part
from walplane.message.txn_view import ImmutableTxnMessage
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.ticks import TICKS_PER_S
from walplane.wal.config import WALConfig
from walplane.wal.meter import Meters
from walplane.wal.ports import TURN_ENTRIES, LogEntry
from walplane.wal.recovery.segments.storing import SegmentDeps, SegmentWriter
from walplane.wal.recovery.segments.table import StreamKey
from walplane.wal.recovery.segments.units import Unit, key_of
from walplane.wal.scan.assembly import TxnAssembler
from walplane.wal.scan.buffer import Signal
from walplane.wal.scan.live import LiveLog
from walplane.wal.scan.request import Only, ScanBatch, ScanRequest, ScanStart, StartKind
from walplane.wal.scan.scanner import WALScanner
from walplane.wal.shard.seal import seal_of
from walplane.wal.shard.table import collection_of

if TYPE_CHECKING:
    from walplane.wal.recovery.state import RecoveryState

_log = structlog.get_logger(__name__)

_BACKOFF_S = (0.1, 30.0)
_DOUBLINGS = 9
_PACE_S = 0.1
_ATTEMPTS = 3  # at something unforeseen
_FATAL = {ErrorCode.UNRECOVERABLE, ErrorCode.INVALID_ARGUMENT}
_NO_LIMIT_BYTES = 1 << 62


class FlushedLog(LiveLog, Protocol):
    """What a flusher sees of its log."""

    config: WALConfig
    written: Signal
    recovery: RecoveryState

    def check(self) -> None:
        """Raises what ended the log, if it is over."""
        ...


class _WithSegments(Only):
    """Everything, what tells of segments included, which other readers are not given."""

    def may_need(self, _item: LogEntry) -> bool:
        return True


class _Quiet:
    """The log as its flusher reads it: woken by what is written, and not counted as a reader."""

    def __init__(self, log: FlushedLog) -> None:
        self.pchannel, self.buffer, self.moved = log.pchannel, log.buffer, log.written
        self.live_position, self.watermark = log.live_position, log.watermark
        self.spans = log.spans
        self.last_appended, self.open_scanner = log.last_appended, log.open_scanner
        self.backend_name = log.backend_name
        self.meter = Meters().of(log.pchannel)


class SegmentFlusher:
    """The flusher of one log.

    Attributes:
        table: what is stored; saved with the log's checkpoints.
    """

    def __init__(
        self, log: FlushedLog, deps: SegmentDeps, on_part: Callable[[int, int], None]
    ) -> None:
        """Idle until `run`; `on_part` is told of a segment and how many parts it has by now."""
        table = self.table = log.recovery.segments
        self._log = log
        self._deps = deps
        self._failures = 0  # in a row, without a step forward
        self._unforeseen = 0  # of these
        self._spoilt: Exception | None = None  # what went wrong while another log relieved this one
        self._reads = False  # since it began at the position
        self._lock = asyncio.Lock()  # one part at a time; others may come to relieve this one
        self._closed = False
        self._txns = TxnAssembler(_NO_LIMIT_BYTES)
        self._done = table.position
        self._last: LogEntry | None = None
        self._patience = int(log.config.shard.segment_lifetime_s * TICKS_PER_S)
        self._writer = SegmentWriter(log.pchannel, table, deps, log.meter, self._note, on_part)

    @property
    def backlog_bytes(self) -> int:
        """What waits in memory."""
        return self._writer.bytes

    async def run(self) -> None:
        """Works until it is cancelled, its log is over, or nothing can be done any more."""
        self._deps.budget.join(self)
        try:
            while True:
                try:
                    await self._tail()
                except Exception as error:
                    if self._over() or self._hopeless(error):
                        return
                    self._note(str(error))
                await asyncio.sleep(
                    min(_BACKOFF_S[0] * 2 ** min(self._failures, _DOUBLINGS), _BACKOFF_S[1])
                )
        finally:
            self._close()

    async def relieve(self) -> None:
        """Stores the largest stream that waits.

        What goes wrong is for `run` to judge, since others call this; nothing waits here then.
        """
        async with self._lock:
            try:
                await self._writer.store_largest()
                self._move()
            except Exception as error:
                self._begin()
                self._spoilt = error
                self._log.written.notify()  # `run` may wait for news

    # --- reading ---------------------------------------------------------------------------------

    async def _tail(self) -> None:
        async with self._lock:
            self._begin()
            self._spoilt = None
        self._reads = False
        start = ScanStart(StartKind.TOKEN, self._done)
        request = ScanRequest(start, only=_WithSegments())
        async with WALScanner(_Quiet(self._log), request, self._check) as scanner:
            while True:
                batch = await scanner.next()
                self._reads = True
                async with self._lock:
                    self._check()  # what waited may be gone, and the position stays
                    caught_up = await self._take(batch)
                await self._deps.budget.wait_below()
                # Once it has caught up, it pays to let more come together.
                await asyncio.sleep(_PACE_S if caught_up else 0)

    def _check(self) -> None:
        """Raises what ended the log, or what makes this one begin anew."""
        self._log.check()
        if self._spoilt is not None:
            raise self._spoilt

    def _begin(self) -> None:
        """Forgets what waits: all of it is read again."""
        self._done = self.table.position
        self._writer.clear()
        self._txns.clear()

    async def _take(self, batch: ScanBatch) -> bool:
        """Learns what is new; returns whether it is all there is."""
        live = self._log.live_position()
        begun, self._last = self._done, None
        for index, item in enumerate(batch.entries, 1):
            if item.last_tick > begun.time_tick or is_part(item.entry.envelope):
                for key, tick in self._learn(item, begun):
                    await self._writer.seal(key, tick)
            else:
                self._txns.pass_by(item)
            self._last = item
            if not index % TURN_ENTRIES:
                await asyncio.sleep(0)
        for key in self._writer.waiting_since(batch.watermark - self._patience):
            await self._writer.store(key)
        caught_up = batch.watermark >= live.watermark
        last = batch.entries[-1].token() if batch.entries else self._done
        last = last._replace(time_tick=batch.watermark)
        if caught_up:
            last = last._replace(last_confirmed=live.last_confirmed)
        self._done = max(self._done, last, key=lambda token: token.time_tick)
        self._move()
        return caught_up

    def _learn(self, item: LogEntry, begun: ResumeToken) -> Iterator[tuple[StreamKey, int]]:
        """Takes one entry; gives what it seals, and at which tick."""
        envelope = item.entry.envelope
        if envelope.HasField("txn"):
            txn = self._txns.take(item)
            if txn is not None and txn.time_tick > begun.time_tick:
                self._add_txn(txn)
            return
        self._txns.pass_by(item)
        key = key_of(envelope)
        if key is not None:
            self._writer.add(key, Unit(item.last_tick, (item,)), self._place)
        else:
            if envelope.type == MessageType.DROP_COLLECTION and not is_cchannel(envelope.vchannel):
                self.table.drop(envelope.vchannel, collection_of(envelope), item.last_tick)
            yield from self._sealed_by(item)

    def _add_txn(self, txn: ImmutableTxnMessage) -> None:
        bodies: dict[StreamKey, list[LogEntry]] = {}
        for each in txn.batches:
            key = key_of(each.entry.envelope)
            if key is not None:
                item = LogEntry(each.entry, each.message_id, each.open_number)
                bodies.setdefault(key, []).append(item)
        for key, items in bodies.items():
            self._writer.add(key, Unit(txn.time_tick, tuple(items), txn.time_tick), self._place)

    def _place(self) -> ResumeToken:
        """Where a reader begins that must meet the entry in hand and all above it."""
        if self._last is None or self._last.last_tick <= self._done.time_tick:
            return self._done
        return self._last.token()

    def _sealed_by(self, item: LogEntry) -> Iterator[tuple[StreamKey, int]]:
        seal = seal_of(item.entry)
        if seal is None:
            return
        if seal.segment_id:
            yield self._segment(item.entry.envelope, seal.segment_id), item.last_tick
        for key in self._writer.keys():
            if seal.segment_id:
                # Deletes have no seal of their own: they go with any of their VChannel's.
                deletes = key.kind == log_pb2.STREAM_KIND_DELETES
                sealed = deletes and key.vchannel == seal.vchannel
            else:
                sealed = seal.covers(key.vchannel, key.partition_id, key.segment_id)
            if sealed and self.table.began(key, item.last_tick):
                yield key, item.last_tick

    def _segment(self, envelope: log_pb2.Envelope, segment_id: int) -> StreamKey:
        """The stream of a segment, by its id alone if it is known."""
        for key in self._writer.keys():
            if key.segment_id == segment_id and key.vchannel == envelope.vchannel:
                return key
        return StreamKey(
            log_pb2.STREAM_KIND_SEGMENT,
            envelope.vchannel,
            collection_of(envelope),
            envelope.partition_id,
            segment_id,
        )

    def _move(self) -> None:
        """The position follows what is stored; never what was given up."""
        if self._closed or self.table.failure:
            return
        before = self.table.position.time_tick
        self.table.move(self._writer.position(self._done))
        if self.table.position.time_tick > before:
            self._failures, self._unforeseen, self.table.trouble = 0, 0, ""

    # --- trouble ---------------------------------------------------------------------------------

    def _note(self, trouble: str) -> None:
        self.table.trouble = trouble
        _log.warning("segments wait", pchannel=self._log.pchannel, reason=trouble)

    def _over(self) -> bool:
        """Whether the log is no more, which is the end of this as well."""
        try:
            self._log.check()
        except WalError:
            return True
        return False

    def _hopeless(self, error: Exception) -> bool:
        """Whether trying again is of no use; says so then."""
        self._failures += 1
        self._unforeseen += not isinstance(error, WalError)
        fatal = isinstance(error, WalError) and error.code in _FATAL
        if isinstance(error, WalError) and error.code is ErrorCode.DATA_TRUNCATED:
            # Behind the position the log may be cut off while this reads: from there it goes on.
            fatal = not self._reads
        if fatal or self._unforeseen >= _ATTEMPTS:
            self._fail(error)
            return True
        return False

    def _fail(self, error: Exception) -> None:
        position = self.table.position
        self.table.failure = (
            f"the segments of {self._log.pchannel} above {position} cannot be stored: {error!r}; "
            "the log is kept from there on, and appends go on"
        )
        trace = "".join(traceback.format_exception(error))
        _log.error("segments quarantined", pchannel=self._log.pchannel, trace=trace)

    def _close(self) -> None:
        self._closed = True
        self._writer.close()
        self._deps.budget.leave(self)
