"""What a WAL does by itself while it serves: watchdogs, TimeTicks, idle ticks, checkpoints.

Contract: one task per WAL, a few steps a second, each cheap when nothing happened. Layer: wal.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from walplane.message import codec
from walplane.message.registry import MessageType
from walplane.message.types import MARK_TYPES
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.runtime import Runtime
from walplane.wal.ports import LogEntry, StaleTerm
from walplane.wal.running import failure_of
from walplane.wal.timetick.acks import TickRange

if TYPE_CHECKING:
    from walplane.wal.wal import WAL

_log = structlog.get_logger(__name__)

_STEP_S = 0.2
_LOST_S = 1.0  # longer than anything may ever wait between its ticks and the appender
_UNSAVED_TYPES = MARK_TYPES
"""Nothing of these is in a checkpoint: no reason to make one."""
_HEADER_ONLY = codec.encode_body(headers_pb2.TimeTickHeader().SerializeToString(), [b""])


class Upkeep:
    """The caretaker of one WAL."""

    def __init__(self, wal: WAL, runtime: Runtime) -> None:
        """Idle until `run`."""
        self._wal = wal
        self._now = runtime.monotonic
        self._beat = runtime.monotonic()
        self._last_entry = runtime.monotonic()
        self._awaited: tuple[TickRange | None, float] = (None, self._now())
        self._owed = False
        self._bytes = 0
        self._checkpointed = runtime.monotonic()
        self._saving: asyncio.Task[None] | None = None

    @property
    def unsaved_bytes(self) -> int:
        """Bodies written since the latest checkpoint began; read again, after an open."""
        return self._bytes

    def note_written(self, item: LogEntry) -> None:
        """An entry was written: a TimeTick will be owed, and a checkpoint some time."""
        if item.entry.envelope.type != MessageType.TIME_TICK:
            self._owed = True
            self._last_entry = self._now()
            self._bytes += item.size

    def note_replayed(self, item: LogEntry) -> None:
        """An open read an entry again: the next one would too, until a checkpoint covers it."""
        own = item.entry.envelope.type in _UNSAVED_TYPES
        if not own and item.last_tick > self._wal.recovery.checkpoint_tick:
            self._bytes += item.size

    def stalled(self) -> bool:
        """Whether this process was stopped for so long that it may not trust what it hears."""
        return self._now() - self._beat > self._wal.config.stall_limit_s

    async def run(self) -> None:
        """Works until it is cancelled."""
        self._beat = self._now()
        while True:
            await asyncio.sleep(min(_STEP_S, self._wal.config.idle_tick_s))
            if self.stalled() and self._wal.state == "serving":
                self._wal.distrust(_trouble(f"{self._wal.pchannel}: this process was stopped"))
            self._beat = self._now()
            if self._wal.state in ("serving", "closing"):
                self._watch_acknowledgements()
            if self._wal.state == "serving":
                self._watch_ticks()
            if self._wal.state == "serving":
                self._owe_time_tick()
                self._wal.expire_transactions()
                self._wal.seal_segments()
                self._move_idle_watermark()
                self._save_if_due()

    async def drain(self) -> None:
        """Waits for what is in flight, then writes the owed TimeTick and a checkpoint.

        Nothing is truncated: whoever waits for the log should not wait for that too. What cannot
        be written, or not within `close_timeout_s`, is left: the next owner finds it in the log.
        So is what a fence finds under way.
        """
        wal = self._wal
        draining = asyncio.create_task(self._drain(), name=f"drain-{wal.pchannel}")
        ends: set[asyncio.Future[Any]] = {draining, wal.stopped}
        most = wal.config.close_timeout_s
        try:
            await asyncio.wait(ends, timeout=most, return_when=asyncio.FIRST_COMPLETED)
        finally:
            draining.cancel()
            await asyncio.wait({draining})
        error = failure_of(draining, wal.pchannel)
        if draining.cancelled() or error is not None:
            why = str(error or f"fenced, or not done within {most:g} s")
            _log.warning("not drained", pchannel=wal.pchannel, error=why)

    async def _drain(self) -> None:
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.wait({self._saving})
        await asyncio.sleep(0)  # what was admitted before reaches the appender
        while not self._wal.appender.idle:
            await self._wal.moved.wait()
        self._wal.check()  # it may be fenced in this moment: nothing more is written then
        if self._owed and (written := self._send_time_tick()) is not None:
            await written
        if self._bytes and self._wal.recovery.poison is None:
            await self._wal.checkpoint(truncate=False)

    def _watch_acknowledgements(self) -> None:
        oldest, limit = self._wal.appender.oldest, self._wal.ack_timeout_s
        if oldest is not None and self._now() - oldest > limit:
            self._wal.distrust(
                _trouble(f"{self._wal.pchannel}: no acknowledgement for {limit:g} s")
            )

    def _watch_ticks(self) -> None:
        """Ends the WAL when the watermark waits for an entry that got lost on the way.

        An entry is in the appender from the step in which it gets its ticks until they are settled.
        One that is not will never be written, or never taken in: only a replay finds out.
        """
        oldest, (awaited, since) = self._wal.acks.oldest, self._awaited
        if oldest is None or oldest is not awaited:
            self._awaited = (oldest, self._now())
        elif self._now() - since > _LOST_S and not self._wal.appender.holds(oldest):
            self._wal.fence(
                WalError(
                    ErrorCode.INNER,
                    f"{self._wal.pchannel}: what became of the entry at tick {oldest.first} is not "
                    "known here any more, the next owner reads it; see this node's output for what "
                    "failed",
                )
            )

    def _owe_time_tick(self) -> None:
        silent = self._now() - self._last_entry > self._wal.config.silence_s
        if self._owed and silent and self._wal.acks.idle:
            self._send_time_tick()

    def _send_time_tick(self) -> asyncio.Future[object] | None:
        envelope = log_pb2.Envelope(
            version=1, type=MessageType.TIME_TICK, count=1, is_pchannel_level=True
        )
        written = self._wal.submit_own(codec.seal_entry(envelope, _HEADER_ONLY))
        self._owed = written is None
        return written  # type: ignore[return-value]

    def _move_idle_watermark(self) -> None:
        if self._wal.moved.watched:
            self._wal.move_idle()

    def _save_if_due(self) -> None:
        """Starts a checkpoint beside the watchdogs, which a slow one must not keep from working."""
        config = self._wal.config
        due = self._now() - self._checkpointed > config.checkpoint_s
        busy = self._saving is not None and not self._saving.done()
        news = self._bytes or self._wal.recovery.segments.changed
        quarantined = self._wal.recovery.poison is not None
        if busy or quarantined or not news:
            return
        if due or self._bytes > config.checkpoint_bytes:
            self._bytes = 0
            self._checkpointed = self._now()
            self._saving = self._wal.start_vital(self._save())

    async def _save(self) -> None:
        try:
            async with asyncio.timeout(self._wal.config.open_timeout_s):
                await self._wal.checkpoint()
        except (WalError, TimeoutError) as error:
            self._bytes = max(self._bytes, 1)  # it is due still
            _log.warning("no checkpoint", pchannel=self._wal.pchannel, error=repr(error))
            failure = error if isinstance(error, StaleTerm) else self._wal.meta_failure
            if failure is not None:
                self._wal.distrust(failure)


def _trouble(message: str) -> WalError:
    return WalError(ErrorCode.OUTCOME_UNKNOWN, message)
