"""Puts entries into tick order and lets them go as the watermark rises. Layer: wal."""

from __future__ import annotations

import heapq
import sys

from walplane.message.txn import concerns_txns
from walplane.rpc.v1 import log_pb2
from walplane.wal.ports import LogEntry


class ReorderBuffer:
    """A min-heap by tick (rules §3).

    Attributes:
        released: every tick up to here was let go.
        violations: entries that came at or below `released`; counted, never delivered.
        parts: whether parts of transactions from below the start are let through.
    """

    def __init__(self, released: int, *, parts: bool = False) -> None:
        """Entries at or below `released` are known to the reader already.

        Args:
            released: the reader's tick.
            parts: let parts of transactions through all the same, and what ended some: one whose
                Commit lies above `released` needs those that lie below.
        """
        self.parts = parts
        self.released = released
        self.violations = 0
        self._start = released
        self._heap: list[tuple[int, int, int, LogEntry]] = []  # by first tick; then its last one
        self._added = 0

    @property
    def past_start(self) -> bool:
        """Whether something above the start was let go, and all below it with that."""
        return self.released > self._start

    def add(self, log_entry: LogEntry) -> None:
        """Takes an entry in log order; one that begins at or below the start is a re-read."""
        envelope = log_entry.entry.envelope
        first = envelope.first_tick
        last = first + envelope.count - 1
        if last <= self.released and not self._early_part(envelope, last):
            if last > self._start:
                self.violations += 1
            return
        self._added += 1
        heapq.heappush(self._heap, (first, self._added, last, log_entry))

    def release(self, watermark: int, most: int = sys.maxsize) -> list[LogEntry]:
        """The entries at or below `watermark`, in tick order; `most` at a time."""
        ready: list[LogEntry] = []
        heap = self._heap
        while heap and heap[0][2] <= watermark:
            if len(ready) == most:
                watermark = ready[-1].last_tick
                break
            ready.append(heapq.heappop(heap)[3])
        self.released = max(self.released, watermark)
        return ready

    def _early_part(self, envelope: log_pb2.Envelope, last_tick: int) -> bool:
        return self.parts and last_tick <= self._start and concerns_txns(envelope)
