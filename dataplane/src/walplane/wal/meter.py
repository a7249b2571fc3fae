"""What is counted about the logs of one process, for whoever scrapes it. Layer: wal.

Contract: plain numbers, written by the event loop alone, once a frame or more rarely; all that is
text or a label is made when somebody asks. What is counted outlives the WAL that counted it, so
that a log that was lost still tells so. Bounded: one meter a PChannel, three classes of latencies.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from walplane.message.registry import MessageType
from walplane.message.types import DATA_TYPES
from walplane.rpc.errors import ErrorCode
from walplane.wal.interceptors.base import AppendOp

LATENCY_BOUNDS_S = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
OPEN_BOUNDS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 180.0, 600.0)
_CLASSES: dict[int, str] = {
    **dict.fromkeys(DATA_TYPES, "data"),
    **dict.fromkeys(
        (MessageType.BEGIN_TXN, MessageType.COMMIT_TXN, MessageType.ROLLBACK_TXN), "txn"
    ),
}


class Durations:
    """How many took how long, in seconds.

    Attributes:
        bounds: of the buckets.
        counts: by bucket: at most `bounds[i]`; the last one is for what took longer.
        total_s: their sum.
    """

    __slots__ = ("bounds", "counts", "total_s")

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS_S) -> None:
        """None yet."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_s += seconds


class MeteredReader(Protocol):
    """What is asked of an open reader."""

    @property
    def tailing(self) -> bool:
        """Whether it reads from memory."""
        ...


class DroppedFrames(Protocol):
    """What a filter of frames counted."""

    void: int
    repeated: int
    orphaned: int


class LogMeter:
    """The counters of one PChannel, over all its owners in this process.

    Attributes:
        frames: acknowledged; entries, messages and bytes (of bodies) are what was in them.
        refused: appends that failed, by code.
        opens: by what became of them.
        reopens: self-reopens.
        lost: WALs that ended without having been released.
        dropped: frames that do not count, by why, as opens and readers met them.
        reorder_violations: entries that came at or below a tick that was let go (rules §3).
        expired: transactions that were rolled back because nothing was heard of them.
        objects: of segments, by what became of each attempt to store one.
        delivered_bytes: bodies sent to readers in other processes.
        readers: open ones.
        held_back: Produce streams that are not read on, since an append waits for room in flight.
        waiting: since when, in monotonic seconds, appends wait for a lock or for ticks; oldest
            first.
    """

    def __init__(self, latencies: dict[str, Durations], lock_waits: Durations) -> None:
        """Nothing yet; `latencies` and `lock_waits` are those that all logs share."""
        self.frames = self.entries = self.messages = self.bytes = 0
        self.refused: Counter[ErrorCode] = Counter()
        self.opens: Counter[str] = Counter()
        self.reopens = self.lost = 0
        self.dropped: Counter[str] = Counter()
        self.reorder_violations = 0
        self.expired = 0
        self.objects: Counter[str] = Counter()
        self.delivered_bytes = 0
        self.readers: set[MeteredReader] = set()
        self.held_back = 0
        self.waiting: dict[int, float] = {}
        self._lock_waits = lock_waits
        self._latencies = latencies

    def acknowledged(self, ops: Iterable[AppendOp], now: float) -> None:
        """A frame was acknowledged at `now`, in monotonic seconds."""
        entries = messages = size = 0
        for op in ops:
            entries += 1
            size += op.size
            if op.ticks is not None:
                messages += op.ticks.last - op.ticks.first + 1
            kind = _CLASSES.get(op.kind, "other")
            self._latencies[kind].add(now - op.since)
        self.frames += 1
        self.entries += entries
        self.messages += messages
        self.bytes += size

    def wait_begins(self, op: AppendOp, now: float) -> None:
        """`op` waits for a lock or for ticks; `wait_over` follows."""
        self.waiting[id(op)] = now

    def wait_over(self, op: AppendOp) -> float:
        """It waits no more; since when it did."""
        return self.waiting.pop(id(op))

    def lock_wait_over(self, op: AppendOp, now: float) -> None:
        """It has the lock, or gave up."""
        self._lock_waits.add(now - self.wait_over(op))

    def frames_dropped(self, frames: DroppedFrames) -> None:
        """An open or a reader is done with its filter of frames."""
        self.dropped["void"] += frames.void
        self.dropped["repeated"] += frames.repeated
        self.dropped["orphaned"] += frames.orphaned


class Meters:
    """The meters of one process.

    Attributes:
        latencies: from the append to its acknowledgement, by class of message type: `data`
            (inserts and deletes), `txn` (begins and ends), `other`.
        lock_waits: how long those took that waited for a lock.
        opens: how long those took that came to serve.
        logs: by PChannel.
    """

    def __init__(self) -> None:
        """No log yet."""
        self.latencies = {name: Durations() for name in ("data", "txn", "other")}
        self.lock_waits = Durations()
        self.opens = Durations(OPEN_BOUNDS_S)
        self.logs: dict[str, LogMeter] = {}

    def of(self, pchannel: str) -> LogMeter:
        """The meter of `pchannel`."""
        meter = self.logs.get(pchannel)
        if meter is None:
            meter = self.logs[pchannel] = LogMeter(self.latencies, self.lock_waits)
        return meter
