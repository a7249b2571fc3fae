"""A read of a log as it lies in the backend, for whoever checks it. Layer: wal.

Contract: every entry that counts, the log's own among them, in the order of the log and not of the
ticks, up to the last record that was settled when the read began. What is cut off before the first
record was read is not missed. Holds what one read of the backend gives, and a batch of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType

from walplane.backends.interface import EARLIEST, Record, RecordScanner, Start, StartAt
from walplane.message.codec import RecordPlace, decode_frame
from walplane.message.ids import MessageID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.wal.frames import FrameFilter
from walplane.wal.ports import HELD_OVERHEAD_BYTES, TURN_ENTRIES, LogEntry
from walplane.wal.scan.live import LiveLog
from walplane.wal.scan.request import EVERYTHING, ScanBatch, ScanRequest, StartKind
from walplane.wal.scan.scanner import BATCH_BYTES, record_of, took_all

_STARTS = frozenset({StartKind.EARLIEST, StartKind.FROM_ID})


class RawScanner:
    """Use as an async context manager; `next` until a batch says `end`; watermarks are 0.

    Raises:
        WalError: INVALID_ARGUMENT for a request that follows, filters or starts elsewhere;
            DATA_TRUNCATED; UNRECOVERABLE for damage; whatever stopped the WAL.
    """

    def __init__(self, log: LiveLog, request: ScanRequest, check: Callable[[], None]) -> None:
        """Reads `log`; `check` raises what stopped it."""
        part = request.vchannel or request.only != EVERYTHING
        if request.follow or part or request.start.kind not in _STARTS:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"a raw read of {log.pchannel} is one of the whole PChannel, from the earliest "
                "entry or from a message id, to the present end",
            )
        self._log = log
        self._check = check
        self._first = request.start.message_id
        self._end = log.live_position().record
        self._frames = FrameFilter(log.pchannel)
        self._scanner: RecordScanner | None = None
        self._begun = self._over = False
        self._work: Iterator[bool] | None = None  # on what was read last
        self._entries: list[LogEntry] = []  # that this work gave so far

    async def __aenter__(self) -> RawScanner:
        """The scanner itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes it."""
        scanner, self._scanner = self._scanner, None
        if scanner is not None:
            await scanner.close()

    async def ready(self) -> None:
        """Nothing to wait for: what is read was appended before."""

    @property
    def holding(self) -> bool:
        """Whether it keeps records of which `next` has yet to give the entries."""
        return self._work is not None

    async def rest(self) -> None:
        """Lets go of nothing: it would have to begin again."""

    async def next(self, *, wait: bool = True) -> ScanBatch:
        """The next entries, perhaps none; cancelling it loses nothing.

        It never waits for anything to be appended, whatever `wait` says. Others have their turns
        meanwhile.
        """
        self._check()
        if self._work is None:
            self._work = self._take(await self._read())
        if await took_all(self._work):
            self._work = None
        entries, self._entries = self._entries, []
        return ScanBatch(entries, 0, end=self._over)

    def _take(self, records: list[Record]) -> Iterator[bool]:
        """Takes `records` apart, a few milliseconds of them at a time.

        Gives whether that is enough for a batch since it said so last.
        """
        taken = held = 0
        for record in records:
            content = decode_frame(record.data, RecordPlace(self._log.pchannel, record.record_id))
            if record.record_id <= self._end and self._frames.admit(content):
                held += len(record.data) + len(content.entries) * HELD_OVERHEAD_BYTES
                for index, entry in enumerate(content.entries):
                    message_id = MessageID(self._log.backend_name, record.record_id, index)
                    self._entries.append(LogEntry(entry, message_id, content.open_number))
                    taken += 1
                    if not taken % TURN_ENTRIES:
                        yield False
            if record.record_id >= self._end:
                self._over = True
                return
            if held >= BATCH_BYTES:
                held = 0
                yield True

    async def _read(self) -> list[Record]:
        """The next records; the first one moves when the log is cut off in the same moment."""
        if self._scanner is None:
            self._scanner = await self._log.open_scanner(self._start())
        try:
            records = await self._scanner.read()
        except WalError as error:
            at_earliest = self._first is None and not self._begun
            if error.code is not ErrorCode.DATA_TRUNCATED or not at_earliest:
                raise
            cut_off, self._scanner = self._scanner, None
            await cut_off.close()
            self._scanner = await self._log.open_scanner(EARLIEST)
            records = await self._scanner.read()
        self._begun = True
        return records

    def _start(self) -> Start:
        if self._first is None:
            return EARLIEST
        return Start(StartAt.FROM, record_of(self._log, self._first))
