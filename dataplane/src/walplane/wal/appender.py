"""Adaptive group commit: entries become frames, frames become acknowledged entries.

Contract: a frame leaves at once while fewer than K are in flight; what queues meanwhile leaves
together. Each entry is stamped with term, watermark and LastConfirmed when its frame leaves. An
entry is acknowledged when its frame and all before it are durable; after a failure nothing more
is, and `unsettled` tells what a self-reopen has to find out about. Layer: wal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

from walplane.message.codec import ENTRY_ROOM_BYTES
from walplane.message.ids import MessageID, RecordID
from walplane.prompt import PromptFuture
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.config import WALConfig
from walplane.wal.frames import FrameSender, OpenKey
from walplane.wal.interceptors.base import AppendOp
from walplane.wal.limits import RecordLimits
from walplane.wal.meter import LogMeter
from walplane.wal.ports import AppendResult, LogEntry
from walplane.wal.timetick.acks import AckManager, TickRange


class Pending(NamedTuple):
    """An entry that waits to be written, or whose frame is in flight."""

    op: AppendOp
    result: PromptFuture[AppendResult]


class FlyingFrame(NamedTuple):
    """A frame in flight, and the LastConfirmed that its entries were stamped with."""

    number: int
    entries: list[Pending]
    since: float
    confirmed: MessageID | None


class Appender:
    """The last link of the append chain, for one open of the log."""

    def __init__(
        self,
        sender: FrameSender,
        key: OpenKey,
        backend: str,
        acks: AckManager,
        config: WALConfig,
        limits: RecordLimits,
        monotonic: Callable[[], float],
        meter: LogMeter,
        stalled: Callable[[], bool],
        on_written: Callable[[LogEntry], None],
        on_settled: Callable[[], None],
        on_trouble: Callable[[WalError], None],
    ) -> None:
        """Writes through `sender`.

        Args:
            sender: the frames of this open.
            key: (term, open number) of this open.
            backend: name in MessageIDs.
            acks: ticks of this open.
            config: number of frames in flight.
            limits: size of a frame.
            monotonic: seconds, for the age of what is in flight.
            meter: counts what is acknowledged.
            stalled: whether this process was stopped for so long that it may not acknowledge.
            on_written: takes each written entry in log order.
            on_settled: told after each frame that was acknowledged.
            on_trouble: told once when a frame's outcome is unknown.
        """
        self._sender = sender
        self._key = key
        self._backend = backend
        self._acks = acks
        self._config = config
        self._limits = limits
        self._monotonic = monotonic
        self._meter = meter
        self._stalled = stalled
        self._on_written = on_written
        self._on_settled = on_settled
        self._on_trouble = on_trouble
        self._queue: deque[Pending] = deque()
        self._flying: deque[FlyingFrame] = deque()
        self._stopped = False
        self.bytes_pending = 0

    @property
    def oldest(self) -> float | None:
        """When the oldest frame in flight left, in monotonic seconds."""
        return self._flying[0].since if self._flying else None

    @property
    def oldest_append(self) -> float | None:
        """When the oldest append came that waits here or is in flight, in monotonic seconds."""
        waiting = self._flying[0].entries if self._flying else self._queue
        return waiting[0].op.since if waiting else None

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self._queue and not self._flying

    def holds(self, ticks: TickRange) -> bool:
        """Whether the entry of `ticks` waits here or is in flight."""
        flying = (pending for frame in self._flying for pending in frame.entries)
        return any(pending.op.ticks is ticks for pending in chain(flying, self._queue))

    def submit(self, op: AppendOp) -> PromptFuture[AppendResult]:
        """Queues an entry behind all before it."""
        result: PromptFuture[AppendResult] = PromptFuture()
        if op.answer is not None:
            result.listen(op.answer)  # first: the chain listens once this returns
        self.requeue(Pending(op, result))
        return result

    def requeue(self, pending: Pending) -> None:
        """Queues an entry whose caller waits already."""
        self._queue.append(pending)
        self.bytes_pending += pending.op.size
        self._pump()

    def stop(self, reason: WalError) -> None:
        """Acknowledges nothing more; `unsettled` stays as it is."""
        self._stopped = True
        self._sender.abandon(reason)

    def unsettled(self) -> tuple[list[FlyingFrame], list[Pending]]:
        """Frames whose outcome is unknown, and entries that were never sent; in order."""
        return list(self._flying), list(self._queue)

    def _pump(self) -> None:
        while self._queue and not self._stopped:
            if len(self._flying) >= self._config.frames_in_flight:
                return
            self._send_frame()

    def _send_frame(self) -> None:
        frame: list[Pending] = []
        entries: list[log_pb2.Entry] = []
        bodies: list[bytes] = []
        size = 0
        while self._queue:
            op = self._queue[0].op
            size += op.stored + ENTRY_ROOM_BYTES
            if frame and size > self._limits.frame_bytes:
                break
            frame.append(self._queue.popleft())
            entries.append(op.entry)
            bodies.append(op.take_body())
        confirmed = self._stamp(frame)
        number = self._sender.hand_over(self._settle, entries=entries, bodies=bodies)
        self._flying.append(FlyingFrame(number, frame, self._monotonic(), confirmed))

    def _stamp(self, frame: list[Pending]) -> MessageID | None:
        watermark, confirmed = self._acks.watermark, self._acks.last_confirmed
        proto = confirmed.to_proto() if confirmed is not None else None
        for pending in frame:
            envelope = pending.op.envelope
            envelope.term = self._key.term
            envelope.watermark = watermark
            if pending.op.ticks is not None:
                envelope.first_tick = pending.op.ticks.first
            if proto is not None:
                envelope.last_confirmed.CopyFrom(proto)
            else:  # what its sender says of it must not get into the log
                envelope.ClearField("last_confirmed")
            if pending.op.spans is not None:
                pending.op.spans.sent(envelope)
        return confirmed

    def _settle(self, record_id: RecordID | None, error: WalError | None) -> None:
        if self._stopped:
            return
        if record_id is None or self._stalled():
            unknown = WalError(ErrorCode.OUTCOME_UNKNOWN, "what became of a frame is not known")
            reason = error or unknown
            if reason.code is ErrorCode.INVALID_ARGUMENT:
                self._limits.refused([item.op.stored for item in self._flying[0].entries])
            self.stop(reason)
            self._on_trouble(reason)
            return
        self._acknowledge(self._flying.popleft(), record_id)
        self._pump()

    def _acknowledge(self, frame: FlyingFrame, record_id: RecordID) -> None:
        items = [
            self._log_entry(pending.op, MessageID(self._backend, record_id, index), frame.confirmed)
            for index, pending in enumerate(frame.entries)
        ]
        settle(frame.entries, items, self._acks, self._on_written)
        self.bytes_pending -= sum(pending.op.size for pending in frame.entries)
        self._acks.record_written(MessageID(self._backend, record_id))
        self._meter.acknowledged([pending.op for pending in frame.entries], self._monotonic())
        self._on_settled()

    def _log_entry(
        self, op: AppendOp, message_id: MessageID, confirmed: MessageID | None
    ) -> LogEntry:
        """`op` as it lies in the log, with what is known of it and need not be read again."""
        (term, opens), ticks = self._key, op.ticks
        if ticks is None:
            return LogEntry(op.entry, message_id, opens, op.size, op.stored)
        result = AppendResult(message_id, ticks.first, op.count, confirmed, term, opens)
        return LogEntry(op.entry, message_id, opens, op.size, op.stored, ticks.last, result)


def settle(
    entries: Sequence[Pending],
    items: Sequence[LogEntry],
    acks: AckManager,
    on_written: Callable[[LogEntry], None],
) -> None:
    """Acknowledges entries that are durable as `items`; cannot fail (the chain's law).

    The answer is on its way before the chain lets go and the WAL takes the entry in: the caller's
    processor works on it meanwhile, and nobody can ask in between, since it is one step of the
    loop. No link can change it: that is the chain's law too.
    """
    for pending, item in zip(entries, items, strict=True):
        if pending.op.spans is not None:
            pending.op.spans.written(item)
        if not pending.result.done():
            pending.result.set_result(item.result())
        on_written(item)
        if pending.op.ticks is not None:
            acks.confirm(pending.op.ticks, item)


def refuse(pending: Pending, error: WalError) -> None:
    """Fails an entry towards its caller, who may be gone."""
    if not pending.result.done():
        pending.result.set_exception(error)
        pending.result.exception()
