"""Whether a log keeps its own rules, entry by entry in log order. Layer: wal.

Contract: pure; feed it every entry that counts, the log's own among them, in the order of the log,
from wherever the log begins now. Memory does not grow with the log. What one pass can tell:

    I3 ticks are unique
    I5 message ids grow, terms and open numbers never fall
    I6 reading from an entry's LastConfirmed finds everything above its tick
    I7 nothing comes at or below a watermark that was told before; watermarks never fall
    I8 parts of a transaction lie between its Begin and the one record that ends it
    I9 what lies behind a barrier lies above its tick, what lies before it below
    I13 a producer's batches are there once, in order, without a gap
    also bodies match their checksums, nothing of a collection comes after its drop, and every
    Insert names a segment that was created before it and not sealed
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict

from walplane.channel import cchannel_name
from walplane.message.codec import check_entry
from walplane.message.registry import MessageType
from walplane.message.types import TYPE_NAMES
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.audit.producers import ProducerAudit
from walplane.wal.audit.segments import SegmentAudit
from walplane.wal.audit.txns import TxnAudit
from walplane.wal.ports import LogEntry

_KEPT_VIOLATIONS = 100
_WINDOW = 100_000  # entries above the watermark; more than any node has in flight
_DROPPED = 50_000


class LogAudit:
    """One PChannel's log.

    Attributes:
        violations: the first of them, each one sentence that names the place.
        found: how many there were.
        entries: seen, and the messages and bytes of bodies in them.
        first_tick: lowest tick seen, 0 before any; `last_tick` is the highest.
    """

    def __init__(self, pchannel: str) -> None:
        """Nothing seen yet."""
        self.pchannel = pchannel
        self.violations: list[str] = []
        self.found = 0
        self.entries = self.messages = self.bytes = 0
        self.first_tick = self.last_tick = 0
        self._watermark = 0
        self._stamped = 0
        self._last: LogEntry | None = None
        self._window: list[tuple[int, int, LogEntry]] = []  # above the watermark, by tick
        self._producers = ProducerAudit(self._report, name)
        self._dropped: OrderedDict[str, LogEntry] = OrderedDict()
        self._txns = TxnAudit(self._report)
        self._segments = SegmentAudit(self._report, name)

    @property
    def open_transactions(self) -> int:
        """Transactions that no record ended yet."""
        return len(self._txns.open)

    def take(self, item: LogEntry) -> None:
        """Checks the next entry."""
        self._check_place(item)
        self._check_ticks(item)
        self._check_confirmed(item)
        self._producers.take(item)
        self._check_content(item)
        self._txns.take(item, self.first_tick or item.first_tick)
        self._segments.take(item, self.first_tick or item.first_tick)
        self._count(item)

    def damaged(self, error: WalError) -> None:
        """The log cannot be read on."""
        self._report("damage", error.message)

    def finish(self) -> None:
        """The log ends here."""
        self._txns.finish()

    def _report(self, rule: str, what: str) -> None:
        self.found += 1
        if len(self.violations) < _KEPT_VIOLATIONS:
            self.violations.append(f"{rule} {self.pchannel}: {what}")

    def _check_place(self, item: LogEntry) -> None:
        last, self._last = self._last, item
        if last is None:
            return
        if item.message_id <= last.message_id:
            self._report("I5", f"{name(item)} comes after {name(last)}")
        if _key(item) < _key(last):
            self._report("I5", f"{name(item)} is of an older owner than {name(last)} before it")

    def _check_ticks(self, item: LogEntry) -> None:
        envelope = item.entry.envelope
        first_tick, last_tick, watermark = item.first_tick, item.last_tick, envelope.watermark
        if watermark < self._stamped:
            told = f"{self._stamped} was told before"
            self._report("I7", f"{name(item)} carries watermark {watermark}, {told}")
        if watermark >= first_tick:
            self._report("I7", f"{name(item)} carries watermark {watermark} itself")
        self._stamped = max(self._stamped, watermark)
        if first_tick <= self._watermark:
            self._report("I7", f"{name(item)} comes after watermark {self._watermark}")
        if envelope.type == MessageType.RECOVERY_BARRIER:
            if first_tick <= self.last_tick:
                self._report("I9", f"barrier {name(item)} is not above tick {self.last_tick}")
            self._watermark = max(self._watermark, last_tick)
        self._watermark = max(self._watermark, watermark)
        self._place(item, first_tick, last_tick)

    def _place(self, item: LogEntry, first_tick: int, last_tick: int) -> None:
        """Puts the entry among those in flight, where it must not share a tick."""
        window = self._window
        while window and (window[0][1] <= self._watermark or len(window) > _WINDOW):
            window.pop(0)
        at = bisect_left(window, (first_tick,))
        beside = window[max(at - 1, 0) : at + 1]
        for first, last, other in beside:
            if first <= last_tick and first_tick <= last:
                self._report("I3", f"{name(item)} shares ticks with {name(other)}")
        window.insert(at, (first_tick, last_tick, item))

    def _check_confirmed(self, item: LogEntry) -> None:
        confirmed = item.last_confirmed
        if confirmed is None:
            return
        if confirmed > item.message_id:
            self._report("I6", f"LastConfirmed {confirmed} of {name(item)} lies behind it")
        for first, _, other in reversed(self._window):
            if first <= item.last_tick:
                return
            if other.message_id < confirmed:
                self._report("I6", f"{confirmed} of {name(item)} misses {name(other)}")

    def _check_content(self, item: LogEntry) -> None:
        envelope = item.entry.envelope
        try:
            check_entry(item.entry)
        except WalError as error:
            self._report("damage", f"{name(item)}: {error.message}")
        vchannel = envelope.vchannel
        drop = self._dropped.get(vchannel)
        if drop is not None:
            self._report("order", f"{name(item)} is of {vchannel}, which {name(drop)} dropped")
        elif _drops(envelope, self.pchannel):
            self._dropped[vchannel] = item
            if len(self._dropped) > _DROPPED:
                self._dropped.popitem(last=False)

    def _count(self, item: LogEntry) -> None:
        self.entries += 1
        self.messages += item.entry.envelope.count
        self.bytes += item.size
        self.first_tick = min(self.first_tick or item.first_tick, item.first_tick)
        self.last_tick = max(self.last_tick, item.last_tick)


def name(item: LogEntry) -> str:
    """The entry as violations call it."""
    envelope = item.entry.envelope
    known = TYPE_NAMES.get(envelope.type, f"type {envelope.type}")
    ticks = f"ticks {item.first_tick}-{item.last_tick}"
    return f"{known} {item.message_id} ({ticks}, term {envelope.term} open {item.open_number})"


def _key(item: LogEntry) -> tuple[int, int]:
    return item.entry.envelope.term, item.open_number


def _drops(envelope: log_pb2.Envelope, pchannel: str) -> bool:
    """The control channel is told of every drop, and stays."""
    dropped = envelope.type == MessageType.DROP_COLLECTION
    return dropped and envelope.vchannel not in ("", cchannel_name(pchannel))
