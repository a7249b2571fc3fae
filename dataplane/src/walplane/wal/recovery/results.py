"""Results of producers' batches, in the order of the log, bounded in bytes and age.

Contract: the oldest go first, whoever's they are; which go depends on the log alone. Layer: wal.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from walplane.message.ids import MessageID
from walplane.rpc.v1 import log_pb2
from walplane.ticks import TICKS_PER_MS
from walplane.wal.ports import AppendResult

_RESULT_BYTES = 900  # of one result in memory, with all objects around it, as measured


class Window:
    """One producer on one VChannel.

    Attributes:
        expected: number of the next new batch.
        first: number of the oldest batch whose result is kept.
        kept: how many results are; those of the latest batches.
        last_tick: of its batches.
        size: bytes in memory, besides the results.
        epoch: of a named producer: tick of its last open.
        opener: who opened it last.
    """

    __slots__ = ("epoch", "expected", "first", "kept", "last_tick", "opener", "size")

    def __init__(self, expected: int, size: int) -> None:
        """Nothing is kept yet."""
        self.expected = self.first = expected
        self.kept = 0
        self.last_tick = 0
        self.size = size
        self.epoch = 0
        self.opener = b""


class KeptResult(NamedTuple):
    """A batch's checksum, the result it got, and the number of the batch after it."""

    crc: int
    result: AppendResult
    next_number: int


class KeptResults:
    """The results of all windows that share the bounds.

    Attributes:
        used: bytes in memory of the windows and what is kept for them, about.
        tick: the newest that was seen: age is told by the log, not by a clock.
    """

    def __init__(self, max_bytes: int, age_ms: int) -> None:
        """Keeps `max_bytes`, nothing older than `age_ms` of tick time."""
        self.used = 0
        self.tick = 0
        self._max_bytes = max_bytes
        self._age = age_ms * TICKS_PER_MS
        self._kept: OrderedDict[tuple[Window, int], KeptResult] = OrderedDict()

    @property
    def full(self) -> bool:
        """Whether more is held than may be."""
        return self.used > self._max_bytes

    def get(self, window: Window, number: int) -> KeptResult | None:
        """The result of a batch, while it is kept."""
        return self._kept.get((window, number))

    def of(self, window: Window) -> Iterator[tuple[int, KeptResult]]:
        """All results of `window` with their numbers, the oldest first."""
        number = window.first
        for _ in range(window.kept):
            kept = self._kept[window, number]
            yield number, kept
            number = kept.next_number

    def add(self, window: Window, number: int, kept: KeptResult, most: int) -> None:
        """Keeps the newest result of all; `most` of the window's."""
        if number != window.expected:  # what lies between is not known
            self.drop(window)
            window.first = number
        self._kept[window, number] = kept
        self.used += _RESULT_BYTES
        window.kept += 1
        window.expected = kept.next_number
        while window.kept > most:
            self._drop_oldest(window)

    def drop(self, window: Window) -> None:
        """Forgets all results of `window`."""
        while window.kept:
            self._drop_oldest(window)

    def trim(self) -> None:
        """Forgets the oldest until the rest is within bounds, or nothing is left."""
        while self._kept:
            (window, _), kept = next(iter(self._kept.items()))
            if not self.full and kept.result.first_tick + self._age >= self.tick:
                return
            self._drop_oldest(window)

    def _drop_oldest(self, window: Window) -> None:
        window.first = self._kept.pop((window, window.first)).next_number
        window.kept -= 1
        self.used -= _RESULT_BYTES


def result_from_proto(stored: log_pb2.ProducerWindow.Result) -> AppendResult:
    """The result that `AppendResult.write_to` put there."""
    confirmed = None
    if stored.HasField("last_confirmed"):
        confirmed = MessageID.from_proto(stored.last_confirmed)
    return AppendResult(
        message_id=MessageID.from_proto(stored.message_id),
        first_tick=stored.first_tick,
        count=stored.count,
        last_confirmed=confirmed,
        term=stored.term,
        open_number=stored.open_number,
    )
