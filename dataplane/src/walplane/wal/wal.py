"""One PChannel's log, held under a term: append, scan, and the ways back from trouble.

Contract: an append is acknowledged only when it is durable and every frame before it is; a failed
frame freezes watermark and LastConfirmed until a self-reopen has found out what happened, and the
callers wait for that. What the log shows of another owner ends this WAL at once. Layer: wal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import structlog

from walplane.backends.interface import BackendSession, RecordScanner, Start
from walplane.prompt import PromptFuture, PromptTask
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.appender import Appender, Pending, refuse
from walplane.wal.config import WALConfig
from walplane.wal.frames import OpenKey
from walplane.wal.interceptors.base import AppendOp, append_op, chain
from walplane.wal.interceptors.coordinator import CoordinatorInterceptor
from walplane.wal.interceptors.idempotency import IdempotencyInterceptor
from walplane.wal.interceptors.lock import LockInterceptor
from walplane.wal.interceptors.named import ProducerOpens
from walplane.wal.interceptors.replicate import ReplicateInterceptor, ReplicationRole
from walplane.wal.interceptors.shard import ShardInterceptor
from walplane.wal.interceptors.timetick import TimeTickInterceptor
from walplane.wal.limits import RecordLimits, too_large
from walplane.wal.metalog import MetaState
from walplane.wal.opener import Beginning, OpenedLog
from walplane.wal.ownership import Ownership, WALDeps
from walplane.wal.ports import AppendResult, LogEntry
from walplane.wal.recovery.segments.deletion import Deletion
from walplane.wal.recovery.segments.flusher import SegmentFlusher
from walplane.wal.recovery.state import RecoveryState, checkpoint_at
from walplane.wal.recovery.truncation import Truncation
from walplane.wal.reopening import requeue, settle_known
from walplane.wal.running import Running, answer_of, failure_of
from walplane.wal.scan.buffer import Signal, WriteAheadBuffer
from walplane.wal.scan.live import LivePosition
from walplane.wal.scan.request import ScanRequest
from walplane.wal.scan.scanner import WALScanner
from walplane.wal.shard.manager import ShardManager
from walplane.wal.spans import AppendSpans
from walplane.wal.status import WALStatus
from walplane.wal.ticks_ahead import ticks_ahead
from walplane.wal.timetick.acks import AckManager
from walplane.wal.txn.expiry import TxnExpiry, roll_back
from walplane.wal.txn.sessions import TxnSessions
from walplane.wal.upkeep import Upkeep

_log = structlog.get_logger(__name__)


class WAL:
    """Use `open`.

    Attributes:
        stopped: done when the WAL is over: with the reason when it ended by itself, else None.
        buffer: confirmed entries for tailing readers.
        limits: of what goes into a record.
        meter: counts what this log and its other owners in this process do.
        moved: notified whenever the watermark moved.
        written: the same, but not when an idle watermark moves by itself.
        recovery: what replay rebuilt and appends keep up to date.
        opens: opens named producers.
        shards: which segment an Insert goes to, and which are to be sealed.
        role: of the cluster among those that replicate.
    """

    def __init__(self, pchannel: str, term: int, deps: WALDeps, config: WALConfig) -> None:
        """Not open yet."""
        self.pchannel = pchannel
        self.term = term
        self.config = config
        self.meter = deps.meters.of(pchannel)
        self.recovery = RecoveryState(config)
        self.moved = Signal()
        self.written = Signal(self.moved)
        self.stopped: asyncio.Future[WalError | None] = asyncio.get_running_loop().create_future()
        self.state = "opening"
        self.role = ReplicationRole.PRIMARY
        self.buffer = WriteAheadBuffer(0, config.write_ahead_bytes, deps.write_ahead)
        self._deps = deps
        self.limits = RecordLimits(deps.backend.max_record_bytes, config.frame_bytes)
        self._ownership = Ownership(pchannel, term, deps, config)
        self._readers: BackendSession | None = None
        self._reader_lock = asyncio.Lock()
        self._running = Running()
        self._closing: asyncio.Task[None] | None = None
        self._upkeep = Upkeep(self, deps.runtime)
        self._truncation = Truncation(pchannel, self.recovery.segments, config.retention_s)
        self._deletion = Deletion(pchannel, self.recovery.segments, config, deps.segments)
        self._sessions = TxnSessions(self.recovery.txns, config.open_txns)
        now, recovery = deps.runtime.monotonic, self.recovery
        self._expiry = TxnExpiry(recovery.txns, self._sessions, now)
        self.opens = ProducerOpens(recovery.named, self.start_append, self.settled_tick)
        idempotency = IdempotencyInterceptor(recovery, self.opens)
        self.shards = ShardManager(recovery.shards, config.shard, deps.growth, now, pchannel)
        segments, on_part = deps.segments, self.shards.note_files
        self._flusher = SegmentFlusher(self, segments, on_part) if segments else None
        timetick = TimeTickInterceptor(
            deps.reserve, lambda: self._acks, self._sessions, self._leads, self.meter, now
        )
        lock = LockInterceptor(self.meter, now)
        shard = ShardInterceptor(self.shards, lambda op: self._appender.submit(op))
        replicate = ReplicateInterceptor(pchannel, lambda: self.role)
        coordinator = CoordinatorInterceptor(pchannel, recovery)
        forward = chain([lock, replicate, coordinator, timetick, shard], self._submit)
        self._chain = partial(idempotency.append, forward=forward)

    @classmethod
    async def open(cls, pchannel: str, term: int, deps: WALDeps, config: WALConfig) -> WAL:
        """Opens the log under `term` and serves it.

        Raises:
            StaleTerm: the log shows another owner; `term_floor` says above which term to grant.
            WalError: the open failed or got no further for `config.open_timeout_s`; nothing is
                left behind.
        """
        wal = cls(pchannel, term, deps, config)

        def begin(meta: MetaState) -> Beginning:
            wal.recovery.load(meta)
            found = wal.recovery.checkpoint_id
            return None if found is None else found.record, found

        def observe(item: LogEntry, _key: OpenKey, _number: int) -> None:
            wal.recovery.observe(item)
            wal._upkeep.note_replayed(item)

        try:
            opened = await wal._ownership.take(begin, observe)
        except BaseException:
            wal.buffer.close()  # the node's other buffers look at it for as long as it is there
            raise
        wal.buffer.floor = opened.barrier_tick
        wal._serve(opened)
        # The fresh tick lies above all that the reserve holds: it is filled before it is needed.
        deps.reserve.take(1, opened.barrier_tick)
        wal.start_vital(wal._upkeep.run())
        if wal._flusher:
            wal._running.start(wal._flusher.run())
        return wal

    # --- appends -----------------------------------------------------------------------------

    @property
    def max_entry_bytes(self) -> int:
        """An entry whose envelope and body are larger together is refused."""
        return self.limits.entry_bytes

    @property
    def ack_timeout_s(self) -> float:
        """After how long a missing acknowledgement makes the log open itself again."""
        return self.config.ack_timeout_s or self._deps.backend.ack_timeout_s

    async def append(
        self, entry: log_pb2.Entry, *, lock_wait_s: float | None = None
    ) -> AppendResult:
        """Appends one entry, as `start_append` does; cancelling the call does not take it back.

        Raises:
            WalError: INVALID_ARGUMENT, INVALID_REQUEST_SEQ, OUTCOME_UNKNOWN, TRANSACTION_EXPIRED,
                INVALID_TRANSACTION_STATE or RESOURCE_ACQUIRED from the chain;
                CHANNEL_FENCED or ON_SHUTDOWN when this WAL is over.
        """
        op = append_op(entry)
        if lock_wait_s is not None:
            op.deadline = asyncio.get_running_loop().time() + lock_wait_s
        append = self.start_append(op)
        return await answer_of(append, self.pchannel)

    def start_append(self, op: AppendOp) -> PromptTask[AppendResult]:
        """Starts to append one entry; those of a VChannel are written in the order of the calls.

        Args:
            op: what is appended; it is the WAL's from now on.

        Returns:
            The append, which nobody but this WAL cancels; it raises what `append` raises.

        Raises:
            WalError: ON_SHUTDOWN, CHANNEL_FENCED or INVALID_ARGUMENT: it did not start.
        """
        self.check()
        if self.state == "closing":
            raise WalError(
                ErrorCode.ON_SHUTDOWN, f"{self.pchannel} is being closed here: ask discovery for it"
            )
        self.recovery.check()
        op.since = self._deps.runtime.monotonic()
        if op.stored > self.max_entry_bytes:
            raise too_large(op, self.max_entry_bytes, self.pchannel)
        if self._deps.tracing.on:
            op.spans = AppendSpans.start(self._deps.tracing, op.envelope)
        append = self._running.keep(PromptTask(self._chain(op)))
        if op.spans is not None:
            append.add_done_callback(op.spans.ended)
        return append

    def has_vchannel(self, vchannel: str) -> bool:
        """Whether the log says that `vchannel` exists."""
        return vchannel in self.recovery.shards

    def has_written(self, envelope: log_pb2.Envelope) -> bool:
        """Whether the log holds this batch of its producer, or the end of its transaction."""
        return self.recovery.holds(envelope)

    def _leads(self, op: AppendOp) -> int:
        self.check()  # what waited until this WAL was over takes no ticks and no segment
        self.recovery.check()  # nor what waited for the entry that could not be taken in
        return self.shards.plan(op)

    def _submit(self, op: AppendOp) -> Awaitable[AppendResult]:
        self.check()
        return self._appender.submit(op)

    def submit_own(self, entry: log_pb2.Entry) -> PromptFuture[AppendResult] | None:
        """Appends an entry of the WAL's own; None while no tick is left for it."""
        first = self._deps.reserve.take(entry.envelope.count, self._acks.last_allocated)
        if first is None:
            return None
        op = append_op(entry, self._acks.allocate(first, 1))
        op.since = self._deps.runtime.monotonic()
        return self._appender.submit(op)

    def move_idle(self) -> None:
        """Moves the watermark of an idle log to a new tick; reaches tailing readers only.

        Does nothing while anything is in flight, or others may have taken the owner for dead.
        """
        idle = self.state == "serving" and self._acks.idle and self._appender.idle
        if not (idle and self._deps.may_tick_idle()):
            return
        if (tick := self._deps.reserve.take(1, self._acks.last_allocated)) is not None:
            self._acks.advance(tick)
            self.moved.notify()

    def expire_transactions(self) -> None:
        """Rolls back what was not heard of for its keepalive, by the node's own ticks."""
        if not self.recovery.txns.open or self.recovery.poison is not None:
            return
        # Taken and thrown away: this is how the reserve, and tick time with it, goes on.
        tick = self._deps.reserve.take(1, self._acks.last_allocated)
        for txn in [] if tick is None else self._expiry.due(tick):
            now = self._deps.runtime.monotonic()
            self._running.start(roll_back(txn, self._chain, self.meter, now))

    def seal_segments(self) -> None:
        """Seals what a policy says; cheap while there is nothing to seal."""
        if self.recovery.poison is None:
            self.shards.seal_due(self.submit_own)

    def check(self) -> None:
        """Raises what ended this WAL, if it is over."""
        if self.stopped.done():
            raise self.stopped.result() or WalError(
                ErrorCode.ON_SHUTDOWN, f"{self.pchannel} is closed here: ask discovery for it"
            )

    # --- reading -----------------------------------------------------------------------------

    def scan(self, request: ScanRequest) -> WALScanner:
        """A reader; any number of them cost only what they read."""
        self.check()
        return WALScanner(self, request, self.check)

    @property
    def backend_name(self) -> str:
        """The backend's name in MessageIDs."""
        return self._deps.backend.name

    def live_position(self) -> LivePosition:
        """How far the log is settled now."""
        acks, served = self._acks, self._served_open
        return LivePosition(acks.watermark, self._last_record, acks.last_confirmed, served)

    def watermark(self) -> int:
        """Every tick up to here is settled."""
        return self._acks.watermark

    def settled_tick(self) -> int:
        """Up to here everything written is settled; idle ticks do not count."""
        return min(self.buffer.last_tick, self._acks.watermark)

    def spans(self, tick: int) -> bool:
        """Whether some transaction may begin at or below `tick` and end above it."""
        return self.recovery.txns.spans(tick)

    def last_appended(self) -> int:
        """The highest tick given to an append so far."""
        return self._acks.last_allocated

    async def open_scanner(self, start: Start) -> RecordScanner:
        """A scanner of the data topic, on a client of the readers' own."""
        async with self._reader_lock:
            session = self._readers = self._readers or await self._deps.backend.session()
            if self.stopped.done():  # `_release` may have come by before there was one
                await session.close()
                self.check()
        return await session.open_scanner(self.pchannel, start)

    # --- state -------------------------------------------------------------------------------

    @property
    def open_number(self) -> int:
        """How often this owner opened the log again."""
        return self._ownership.key.open_number

    @property
    def replayed(self) -> int:
        """Entries that the latest open read again."""
        return self._opened.replayed

    @property
    def unsaved_bytes(self) -> int:
        """Bodies written since the latest checkpoint began."""
        return self._upkeep.unsaved_bytes

    @property
    def acks(self) -> AckManager:
        """Ticks of the current open."""
        return self._acks

    @property
    def appender(self) -> Appender:
        """The appender of the current open."""
        return self._appender

    def status(self) -> WALStatus:
        """What `walplane status` shows."""
        return WALStatus.of(self, self._ownership.attempts, self._ownership.last_error)

    @property
    def meta_failure(self) -> WalError | None:
        """Why nothing more can be saved under this open, if so."""
        return self._opened.meta.failure

    async def checkpoint(self, *, truncate: bool = True) -> None:
        """Saves components and checkpoint; the next open replays only what comes after.

        Raises:
            WalError: it is not known to be saved; `meta_failure` tells whether it ever can be.
        """
        confirmed = self._acks.last_confirmed
        checkpoint = checkpoint_at(self._acks.watermark, confirmed, self._ownership.key)
        parts = self.recovery.snapshot(checkpoint)
        stored = self.recovery.segments.position
        await self._opened.meta.snapshot(parts, truncate=truncate)
        self.recovery.saved(checkpoint)
        if truncate and self._deps.segments is not None:
            await self._truncation.after(self._opened.session, checkpoint, stored.last_confirmed)
            self._running.start(self._deletion.after(checkpoint.time_tick, stored.time_tick))

    async def close(self) -> None:
        """Takes no more appends, waits for those in flight, saves a checkpoint, lets go of all.

        Whoever appends meanwhile is told ON_SHUTDOWN, and finds the next owner. Idempotent;
        cancelling the call does not take it back.
        """
        if self._closing is None:
            if not self.stopped.done():
                self.state = "closing"
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    # --- opening and reopening ---------------------------------------------------------------

    def _serve(self, opened: OpenedLog) -> None:
        self._opened = opened
        self._served_open = self.open_number  # not that of an open under way
        self.meter.frames_dropped(opened.frames)
        self._last_record = opened.barrier_id.record
        txns = self.recovery.txns
        txns.renew(opened.barrier_tick)
        self.shards.rebuild(opened.barrier_tick)
        monotonic = self._deps.runtime.monotonic
        self._acks = AckManager(
            opened.barrier_tick, opened.last_confirmed, self.buffer.add, monotonic, txns.floor_at
        )
        self._appender = Appender(
            opened.sender,
            self._ownership.key,
            self.backend_name,
            self._acks,
            self.config,
            self.limits,
            monotonic,
            self.meter,
            self._upkeep.stalled,
            self._written,
            self.written.notify,
            self.distrust,
        )
        if self.state != "closing":
            self.state = "serving"
        self.written.notify()

    def _written(self, item: LogEntry) -> None:
        self.recovery.observe(item)
        self.shards.written(item)
        self._last_record = max(self._last_record, item.message_id.record)
        self._upkeep.note_written(item)

    def distrust(self, reason: WalError) -> None:
        """The backend's client cannot be trusted any more: open again, then go on."""
        if self.state == "closing":
            # Nothing is left to do that a new open would be worth. Readers hear that the owner is
            # gone, not that some append is unknown: to that they could only give up.
            self._end(WalError(ErrorCode.ON_SHUTDOWN, f"it was being closed: {reason.message}"))
        if self.state != "serving":
            return
        self.state = "reopening"
        self.meter.reopens += 1
        self._ownership.last_error = str(reason)
        _log.warning("self-reopen", pchannel=self.pchannel, term=self.term, reason=str(reason))
        self._appender.stop(reason)
        self.start_vital(self._reopen())

    async def _reopen(self) -> None:
        await self._opened.session.close()
        old_key = self._ownership.key
        found: dict[int, list[LogEntry]] = {}

        def begin(_meta: MetaState) -> Beginning:
            found.clear()
            return self._last_record, self._acks.last_confirmed

        def observe(item: LogEntry, key: OpenKey, number: int) -> None:
            if key == old_key:
                found.setdefault(number, []).append(item)

        opened = await self._ownership.retake(begin, observe, lambda: self._acks.last_allocated)
        self._opened = opened  # whatever comes now, it is released with the rest
        ticks = await ticks_ahead(self._appender.unsettled, self._deps.reserve, opened.barrier_tick)
        if self.stopped.done():
            return
        # From here on nothing waits: what arrives later queues behind what is put back here.
        flying, queued = self._appender.unsettled()
        count = partial(self.meter.acknowledged, now=self._deps.runtime.monotonic())
        lost = settle_known(flying, found, self._acks, self._written, count)
        self._serve(opened)
        again = (self._acks, self._appender, self.shards, self._refusal)
        for pending in lost + queued:
            requeue(pending, ticks[id(pending)], *again)

    def _refusal(self, pending: Pending) -> WalError | None:
        most, op = self.max_entry_bytes, pending.op
        return too_large(op, most, self.pchannel) if op.stored > most else None

    # --- ending ------------------------------------------------------------------------------

    def fence(self, reason: WalError) -> None:
        """Ends this WAL at once with `reason`: it is no owner any more."""
        _log.error("stopped", pchannel=self.pchannel, term=self.term, reason=str(reason))
        self._end(reason)

    def _end(self, reason: WalError | None) -> None:
        self.state = "stopped" if reason else "closed"
        if not self.stopped.done():
            self.stopped.set_result(reason)
        self.shards.leave()
        flying, queued = self._appender.unsettled()
        self._appender.stop(WalError(ErrorCode.ON_SHUTDOWN, f"{self.pchannel} is closed here"))
        # What became of these only the next owner can tell.
        why = reason.message if reason is not None else "it is closed here; ask discovery"
        for pending in [item for frame in flying for item in frame.entries] + queued:
            refuse(pending, WalError(ErrorCode.CHANNEL_FENCED, f"{self.pchannel} went away: {why}"))
        self.written.notify()

    async def _close(self) -> None:
        async with AsyncExitStack() as rest:  # whatever fails, the rest is done
            rest.push_async_callback(self._release)
            if not self.stopped.done():
                rest.callback(self._end, None)
                await self._upkeep.drain()

    async def _release(self) -> None:
        async with AsyncExitStack() as rest:
            rest.callback(self.buffer.close)
            await self._running.cancel()
            for held in (self._readers, self._opened.session, self._opened.meta):
                if held is not None:
                    rest.push_async_callback(held.close)

    def start_vital(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts what this WAL cannot be without: when it fails, the WAL is over and says why."""
        task: asyncio.Task[None] = self._running.start(work)
        task.add_done_callback(self._vital_ended)
        return task

    def _vital_ended(self, task: asyncio.Task[None]) -> None:
        if (error := failure_of(task, self.pchannel)) is not None and not self.stopped.done():
            self.fence(error)
