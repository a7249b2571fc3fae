"""Which ticks are settled: the watermark, and the position it is safe to read on from.

Contract: the watermark passes a tick only when every lower allocated tick is settled; entries
leave in tick order as it passes them. LastConfirmed passes a record only when every tick that was
allocated before the record finished writing is settled, and never passes the Begin of a transaction
that no record ended (rules §4): so at any moment every message above the watermark, and every
part of a transaction that ends above it, lies at or after LastConfirmed. Layer: wal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from walplane.message.ids import MessageID
from walplane.wal.ports import LogEntry


class TickRange:
    """Consecutive ticks of one entry, from allocation, at `since`, to settlement."""

    __slots__ = ("first", "last", "log_entry", "settled", "since")

    def __init__(self, first: int, count: int, since: float) -> None:
        """Allocated, not settled."""
        self.first = first
        self.last = first + count - 1
        self.since = since
        self.settled = False
        self.log_entry: LogEntry | None = None


class AckManager:
    """Allocated ranges of one PChannel in tick order.

    Args:
        watermark: every tick up to here is settled already.
        last_confirmed: the recovered LastConfirmed.
        on_confirmed: takes each written entry, in tick order, as the watermark passes it.
        monotonic: seconds, for the age of what is not settled.
        floor: the record of the oldest Begin that is open at a watermark; None = none is.
    """

    def __init__(
        self,
        watermark: int,
        last_confirmed: MessageID | None,
        on_confirmed: Callable[[LogEntry], None],
        monotonic: Callable[[], float],
        floor: Callable[[int], MessageID | None] = lambda _: None,
    ) -> None:
        """Starts with nothing allocated."""
        self.watermark = watermark
        self.last_allocated = watermark
        self._confirmed = last_confirmed
        self._floor = floor
        self._on_confirmed = on_confirmed
        self._monotonic = monotonic
        self._open: deque[TickRange] = deque()
        self._written: deque[tuple[MessageID, int]] = deque()

    @property
    def last_confirmed(self) -> MessageID | None:
        """Where it is safe to read on from; None = the earliest record."""
        confirmed, floor = self._confirmed, self._floor(self.watermark)
        return confirmed if confirmed is None or floor is None else min(confirmed, floor)

    @property
    def idle(self) -> bool:
        """Whether every allocated tick is settled."""
        return not self._open

    @property
    def oldest(self) -> TickRange | None:
        """The lowest ticks that are not settled: the watermark waits for them."""
        return self._open[0] if self._open else None

    def allocate(self, first: int, count: int) -> TickRange:
        """Registers ticks `first` .. `first + count - 1`, which lie above all before."""
        if first <= self.last_allocated:
            raise AssertionError(f"tick {first} given after {self.last_allocated}")
        ticks = TickRange(first, count, self._monotonic())
        self.last_allocated = ticks.last
        self._open.append(ticks)
        return ticks

    def confirm(self, ticks: TickRange, log_entry: LogEntry) -> None:
        """The entry of `ticks` is written."""
        ticks.log_entry = log_entry
        self.settle(ticks)

    def settle(self, ticks: TickRange) -> None:
        """Nothing of `ticks` will appear any more, or all of it has."""
        ticks.settled = True
        while self._open and self._open[0].settled:
            done = self._open.popleft()
            self.watermark = done.last
            if done.log_entry is not None:
                self._on_confirmed(done.log_entry)
        self._advance_confirmed()

    def record_written(self, message_id: MessageID) -> None:
        """A record finished writing; `message_id` is that of its first message."""
        self._written.append((message_id, self.last_allocated))
        self._advance_confirmed()

    def advance(self, tick: int) -> None:
        """Moves an idle PChannel's watermark to `tick`, which lies above all allocated."""
        if self._open or tick <= self.last_allocated:
            raise AssertionError("only an idle watermark moves by itself, and only upwards")
        self.last_allocated = self.watermark = tick
        self._advance_confirmed()

    def _advance_confirmed(self) -> None:
        while self._written and self._written[0][1] <= self.watermark:
            self._confirmed = self._written.popleft()[0]
