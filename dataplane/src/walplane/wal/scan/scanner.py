"""One reader of one WAL: catches up from the backend, then tails from memory.

Contract: entries come in tick order, each once; after a batch with watermark T nothing at or below
T comes, but for this: a read that resumes at a token is given the parts of transactions from the
token's LastConfirmed on, before all else, since a Commit above the token's tick may need them. A
reader that falls behind the write-ahead buffer reads from the backend again by itself;
a slow one holds at most what it read at once, and never slows a writer. Layer: wal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType

from walplane.backends.interface import EARLIEST, Record, RecordScanner, Start, StartAt
from walplane.message.codec import RecordPlace, decode_frame
from walplane.message.ids import MessageID, RecordID, ResumeToken
from walplane.message.txn import concerns_txns
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.frames import BEFORE_ANY_OPEN, FrameFilter, OpenKey
from walplane.wal.meter import LogMeter
from walplane.wal.ports import HELD_OVERHEAD_BYTES, TURN_ENTRIES, LogEntry
from walplane.wal.scan.live import LiveLog, LivePosition
from walplane.wal.scan.reorder import ReorderBuffer
from walplane.wal.scan.request import HIDDEN, ScanBatch, ScanRequest, StartKind

BATCH_BYTES = 2 << 20
"""What a batch holds, about: a node counts with it."""


async def took_all(work: Iterator[bool]) -> bool:
    """Goes on with `work` until it says that there is enough; whether it came to its end.

    Others have their turns meanwhile; cancelled, it can be gone on with.
    """
    for enough in work:
        if enough:
            return False
        await asyncio.sleep(0)
    return True


class WALScanner:
    """Use as an async context manager; `next` until a batch says `end`.

    Raises:
        WalError: DATA_TRUNCATED or INVALID_ARGUMENT for a start that cannot be had; UNRECOVERABLE
            for damage; whatever stopped the WAL.
    """

    def __init__(self, log: LiveLog, request: ScanRequest, check: Callable[[], None]) -> None:
        """Reads `log`; `check` raises what stopped it."""
        self._log = log
        self._request = request
        self._check = check
        self._only = request.only
        first = request.start.message_id
        self._first = None if first is None else first[:3]
        self._end = _end_of(log, request)
        self._catch_up: _CatchUp | None = None
        self._place: int | None = None
        self._placed = False
        self._token = _start_token(log, request)  # never an entry: that would pin its bytes
        self._asked = 0 if self._token is None else self._token.time_tick
        self._begins: MessageID | None = None
        self._told = request.start.token is not None  # where it begins
        self.tick = _reached(log, self._asked)

    async def __aenter__(self) -> WALScanner:
        """The scanner itself."""
        self._log.meter.readers.add(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes it."""
        self._log.meter.readers.discard(self)
        await self.close()

    @property
    def tailing(self) -> bool:
        """Whether it reads from memory."""
        return self._place is not None

    @property
    def holding(self) -> bool:
        """Whether it keeps records of which `next` has yet to give the entries."""
        return self._catch_up is not None and self._catch_up.under_way

    async def close(self) -> None:
        """Releases what it reads from; idempotent."""
        if self._catch_up is not None:
            await self._catch_up.scanner.close()
            self._catch_up.tell(self._log.meter)
            self._catch_up = None

    async def next(self, *, wait: bool = True) -> ScanBatch:
        """The next batch: entries, or a higher watermark, or the end; waits for any of them.

        Or an empty batch with the watermark of before: for each part of the backend's log that has
        nothing for this read, so that whoever reads knows that it goes on.

        Cancelling it loses nothing: the next call goes on where this one was.

        Args:
            wait: False = an empty batch as well rather than waiting for something to be appended;
                `ready` is for that.
        """
        while True:
            self._check()
            batch = await self._read_some(wait)
            if batch is not None:
                return self._note(batch)

    async def ready(self) -> None:
        """Returns when `next` need not wait for anything to be appended; holds nothing meanwhile.

        Cancelling it disturbs nothing.
        """
        while self._place is not None:
            self._check()
            if self._catch_up is not None:
                await self.close()
            watermark = self._log.watermark()
            news = watermark > self.tick or self._at_end(watermark)
            if news or self._log.buffer.more_at(self._place):
                return
            await self._log.moved.wait()

    async def rest(self) -> None:
        """Lets go of the backend if nothing is lost by it; `next` takes it up again.

        What was read and did not get it ahead yet would be, however often it is read.
        """
        if self._catch_up is not None and self._catch_up.reorder.past_start:
            await self.close()

    async def _read_some(self, wait: bool) -> ScanBatch | None:
        if self._place is None and self._catch_up is None:
            self._place = self._place_in_memory()
            if self._place is None:
                self._catch_up = await _CatchUp.open(
                    self._log, self._request, self._token, self.tick, parts=not self._placed
                )
            self._placed = True  # what is read from here on is read once
        if self._place is None and self._catch_up is not None:
            return await self._read_backend(self._catch_up)
        if self._catch_up is not None:
            await self.close()  # of no use any more, and nothing taken from it waits here
        return await self._read_memory(wait)

    def _place_in_memory(self) -> int | None:
        if self._token is None or (not self._placed and self._log.spans(self.tick)):
            return None
        return self._log.buffer.place_after(self.tick)

    async def _read_backend(self, catch_up: _CatchUp) -> ScanBatch:
        entries = await catch_up.read(self._log)
        if self._begins is None and not self._told:
            self._begins = catch_up.begins_at(self._log.backend_name)
            if self._token is not None:  # or it would go on at what had been cut off before
                self._token = self._token.reaching(self._begins)
        watermark = catch_up.reorder.released
        if catch_up.past_parts:
            self._place = self._log.buffer.place_after(watermark)
        # Nothing waits from here on: a cancelled `next` would lose what was taken out above.
        live = self._log.live_position()
        all_of = live if watermark >= live.watermark else None
        return self._batch(entries, watermark, all_of) or ScanBatch((), self.tick)

    async def _read_memory(self, wait: bool) -> ScanBatch | None:
        place = self._place if self._place is not None else 0
        found = self._log.buffer.read(place, BATCH_BYTES)
        if found is None:  # overtaken by the writers: from the backend again
            self._place = None
            return None
        entries, self._place = found
        if entries and entries[0].last_tick <= self.tick:
            # The backend showed them before this log knew that they are written.
            entries = [item for item in entries if item.last_tick > self.tick]
            if not entries and self._log.buffer.more_at(self._place):
                return None
        live = self._log.live_position()
        # What lies behind this slice of the buffer is not delivered yet.
        watermark = entries[-1].last_tick if entries else live.watermark
        all_of = None if self._log.buffer.more_at(self._place) else live
        if not entries and watermark <= self.tick and not self._at_end(watermark):
            self._reach(all_of)
            if not wait:
                return ScanBatch((), self.tick)
            await self._log.moved.wait()
            return None
        return self._batch(entries, watermark, all_of)

    def _batch(
        self, entries: Sequence[LogEntry], watermark: int, all_of: LivePosition | None
    ) -> ScanBatch | None:
        """A batch of `entries`, if there is something in it; `all_of`: with it, it has all that."""
        wanted = list(filter(self._wants, entries))
        if entries:
            self._token = self._behind(entries)
        self._reach(all_of)
        end = self._at_end(watermark)
        if not wanted and watermark <= self.tick and not end:
            return None
        return ScanBatch(wanted, watermark, end)

    def _reach(self, all_of: LivePosition | None) -> None:
        """It has all that is settled: where the log is cut off next, it needs no place before.

        Its last entry says a place of when that was written.
        """
        if all_of is not None and self._token is not None:
            self._token = self._token.reaching(all_of.last_confirmed)

    def _behind(self, entries: Sequence[LogEntry]) -> ResumeToken:
        """The place behind `entries`; a barrier has no LastConfirmed, an earlier one will do."""
        token = entries[-1].token()
        if token.last_confirmed is None:
            known = (item.last_confirmed for item in reversed(entries))
            token = token.reaching(next(filter(None, known), None))
        known_place = self._begins if self._token is None else self._token.last_confirmed
        return _at_least(token.reaching(known_place), max(self.tick, self._asked))

    def _note(self, batch: ScanBatch) -> ScanBatch:
        self.tick = max(self.tick, batch.watermark)
        if self._token is not None:
            self._token = _at_least(self._token, self.tick)
        if self._told or self._begins is None:
            return batch
        self._told = True
        return replace(batch, begins_at=self._begins)

    def _at_end(self, watermark: int) -> bool:
        return self._end is not None and watermark >= self._end

    def _wants(self, item: LogEntry) -> bool:
        envelope = item.entry.envelope
        if envelope.type in HIDDEN or not self._only.may_need(item):
            return False
        if item.last_tick <= self._asked and not concerns_txns(envelope):
            return False
        if self._first is not None and item.message_id[:3] < self._first:
            return False
        return self._request.vchannel in ("", envelope.vchannel) or not envelope.vchannel


class _CatchUp:
    """Reads the backend's records, keeps the valid frames, puts their entries in tick order.

    Attributes:
        past_parts: whether all parts of transactions from below the start were given: memory may
            hold what comes after it long before.
    """

    def __init__(
        self,
        scanner: RecordScanner,
        topic: str,
        reorder: ReorderBuffer,
        since: tuple[OpenKey, int],
        *,
        earliest: bool,
        resumes: bool,
    ) -> None:
        self.scanner = scanner
        self.reorder = reorder
        self.past_parts = not reorder.parts
        self._first: RecordID = ()
        self._read_to: RecordID = ()
        self._work: Iterator[bool] | None = None  # on what was read last
        self._released: list[LogEntry] = []  # by that work so far
        self._resumes = resumes
        self._earliest = earliest
        self._frames = FrameFilter(topic)
        self._since, self._start = since
        self._topic = topic

    @classmethod
    async def open(
        cls,
        log: LiveLog,
        request: ScanRequest,
        token: ResumeToken | None,
        tick: int,
        *,
        parts: bool,
    ) -> _CatchUp:
        first = request.start.message_id if token is None else None
        since, start = (BEFORE_ANY_OPEN, 0), EARLIEST
        if token is not None:
            since = OpenKey(token.term, token.open_number), token.time_tick
            if token.last_confirmed is not None:
                start = Start(StartAt.FROM, record_of(log, token.last_confirmed))
        elif first is not None:
            start = Start(StartAt.FROM, record_of(log, first))
        scanner = await log.open_scanner(start)
        reorder = ReorderBuffer(tick, parts=parts)
        earliest = start is EARLIEST
        # Nothing was confirmed yet when the token was taken: it needs the log's very beginning.
        begins = parts and request.start.kind is StartKind.EARLIEST
        resumes = earliest and tick > 0 and not begins
        return cls(scanner, log.pchannel, reorder, since, earliest=earliest, resumes=resumes)

    @property
    def under_way(self) -> bool:
        """Whether some of the records that were read are not taken in yet."""
        return self._work is not None

    async def read(self, log: LiveLog) -> list[LogEntry]:
        """The entries that the next records let go, of a batch at a time.

        Others have their turns meanwhile. Cancelling it loses nothing: the next call goes on.
        """
        live = log.live_position()
        if self._work is None:
            if self._read_to >= live.record:
                return self._release_all(live)
            self._work = self._take(await self._records(log), log.backend_name)
        if await took_all(self._work):
            self._work = None
        released, self._released = self._released, []
        if self._work is None and self._read_to >= live.record:
            released += self._release_all(live)
        self.past_parts |= self.reorder.past_start
        return released

    def begins_at(self, backend: str) -> MessageID | None:
        """The first record that was read; None before that."""
        return MessageID(backend, self._first) if self._first else None

    def _take(self, records: list[Record], backend: str) -> Iterator[bool]:
        """Takes `records` in, a few milliseconds of them at a time.

        Gives whether it took enough in for a batch since it said so last: what waits to be let go
        is held as well.
        """
        taken = held = 0
        for record in records:
            content = decode_frame(record.data, RecordPlace(self._topic, record.record_id))
            if self._resumes and not self._read_to and content.number:
                raise self._cut_off()
            self._read_to = record.record_id
            self._first = self._first or record.record_id
            if self._void(content) or not self._frames.admit(content):
                continue
            entries, opens, watermark = content.entries, content.open_number, 0
            for begin in range(0, len(entries), TURN_ENTRIES):
                for index, entry in enumerate(entries[begin : begin + TURN_ENTRIES], begin):
                    envelope = entry.envelope  # kept: it would be made anew for each who asks
                    watermark = envelope.watermark
                    message_id = MessageID(backend, record.record_id, index)
                    self.reorder.add(LogEntry(entry, message_id, opens))
                taken += index + 1 - begin
                if taken >= TURN_ENTRIES:
                    taken = 0
                    yield False
            while len(some := self.reorder.release(watermark, TURN_ENTRIES)) == TURN_ENTRIES:
                self._released += some
                yield len(self._released) * HELD_OVERHEAD_BYTES >= BATCH_BYTES
            self._released += some
            held += len(record.data) + len(entries) * HELD_OVERHEAD_BYTES
            if held >= BATCH_BYTES:
                held = 0
                yield True

    async def _records(self, log: LiveLog) -> list[Record]:
        """The next records; the first one moves when the log is cut off in the same moment."""
        try:
            return await self.scanner.read()
        except WalError as error:
            if error.code is not ErrorCode.DATA_TRUNCATED or self._read_to or not self._earliest:
                raise
        await self.scanner.close()
        self.scanner = await log.open_scanner(EARLIEST)
        return await self.scanner.read()

    def _cut_off(self) -> WalError:
        return WalError(
            ErrorCode.DATA_TRUNCATED,
            f"{self._topic} was cut off above tick {self.reorder.released}, where this read goes "
            "on: what lies between is in the segment store; read from earliest",
        )

    def _release_all(self, live: LivePosition) -> list[LogEntry]:
        self.past_parts = True
        return self.reorder.release(live.watermark)

    def tell(self, meter: LogMeter) -> None:
        """What was met on the way, once it is over."""
        meter.frames_dropped(self._frames)
        meter.reorder_violations += self.reorder.violations

    def _void(self, content: log_pb2.FrameContent) -> bool:
        """Whether the token tells that a later open had fenced the frame's writer.

        Only that open, or one behind it, wrote above the token's tick. The filter can tell by
        itself once it has seen that open, which may lie before the first record there is.
        """
        if (content.term, content.open_number) >= self._since:
            return False
        for entry in content.entries:
            if entry.envelope.first_tick + entry.envelope.count - 1 > self._start:
                self._frames.void += 1
                return True
        return False


def record_of(log: LiveLog, message_id: MessageID) -> RecordID:
    """The record that `message_id` names.

    Raises:
        WalError: INVALID_ARGUMENT when it is a place on another backend.
    """
    if message_id.backend != log.backend_name:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"{message_id} is no position in {log.pchannel}, which lies on {log.backend_name}",
        )
    return message_id.record


def _reached(log: LiveLog, tick: int) -> int:
    """How much of what lies at or below `tick` is there already.

    What is written until then may be part of a transaction that ends above.
    """
    return min(tick, log.watermark())


def _at_least(token: ResumeToken, tick: int) -> ResumeToken:
    return token if token.time_tick >= tick else token.at(tick)


def _end_of(log: LiveLog, request: ScanRequest) -> int | None:
    """The tick at which the read ends; None when it does not."""
    until = request.only.until_tick
    if request.follow:
        return until or None
    return min(log.last_appended(), until) if until else log.last_appended()


def _start_token(log: LiveLog, request: ScanRequest) -> ResumeToken | None:
    """A token when the start is a tick that is known; None when it is a place in the log."""
    start, before = request.start, max(request.only.from_tick - 1, 0)
    if start.kind is StartKind.TOKEN and start.token is not None:
        return _at_least(start.token, before)
    if start.kind is StartKind.LATEST:
        live = log.live_position()
        return _at_least(ResumeToken(live.last_confirmed, live.watermark, 0, 0), before)
    if start.kind is StartKind.EARLIEST:
        return ResumeToken(None, before, 0, 0)
    return None
