"""Producers' windows: the last batches of each (producer, VChannel) and their results.

Contract (rules §13): batches are numbered consecutively from 0; a repeat inside the window
gets the first result, a number below it or from an unknown producer is OUTCOME_UNKNOWN, a gap is
INVALID_REQUEST_SEQ. Results are bounded per window, and in bytes and age over all of them; the
number that is due next is kept longer, so that who comes back late goes on. What is forgotten
depends on the log alone. A component of the checkpoint: saved in its snapshots, rebuilt by
observing the log; observing an entry twice changes nothing. Layer: wal.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.ticks import TICKS_PER_MS
from walplane.wal.ports import AppendResult, LogEntry
from walplane.wal.recovery.results import (
    KeptResult,
    KeptResults,
    Window,
    result_from_proto,
)

ProducerKey = tuple[bytes | str, str]
"""Id or name of a producer, and the VChannel."""

_WINDOW_BYTES = 500  # of one window in memory, besides its names, as measured


class WindowLimits(NamedTuple):
    """What is kept, at most.

    Attributes:
        results: of one window.
        producers: windows.
        max_bytes: of all of them in memory.
        age_ms: how long results are kept, in milliseconds of tick time.
        numbers_ms: how long it is known which number is due.
    """

    results: int
    producers: int
    max_bytes: int
    age_ms: int
    numbers_ms: int


def producer_key_of(envelope: log_pb2.Envelope) -> ProducerKey:
    """Whose batch an entry is."""
    producer = envelope.producer
    return producer.name or producer.producer_id, envelope.vchannel


def number_after(envelope: log_pb2.Envelope) -> int:
    """The number that is due after a batch: named producers number messages, others batches."""
    return envelope.producer.number + (envelope.count if envelope.producer.name else 1)


def title(key: ProducerKey) -> str:
    """The producer, for people."""
    return f"producer {key[0].hex() if isinstance(key[0], bytes) else key[0]} on {key[1]}"


class ProducerWindows:
    """The windows of one PChannel, or of one transaction; those not heard of longest go first.

    Attributes:
        forgotten_tick: a producer all of whose batches lie above it was never forgotten.
    """

    component = "producers"

    def __init__(self, limits: WindowLimits, kept: KeptResults | None = None) -> None:
        """Empty; `kept` is shared with other windows."""
        self.forgotten_tick = 0
        self._limits = limits
        self._lasts = limits.numbers_ms * TICKS_PER_MS
        self._kept = KeptResults(limits.max_bytes, limits.age_ms) if kept is None else kept
        self._windows: OrderedDict[ProducerKey, Window] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        """What they and those they share with take in memory, about."""
        return self._kept.used

    def __len__(self) -> int:
        """Producers of which something is known."""
        return len(self._windows)

    def observe(self, log_entry: LogEntry) -> None:
        """Learns of a written entry, in log order."""
        envelope = log_entry.entry.envelope
        if envelope.type == MessageType.RECOVERY_BARRIER:
            return  # whoever wrote it does not observe it, and must forget what the next one does
        kept, tick = self._kept, log_entry.last_tick
        if tick > kept.tick:
            kept.tick = tick
        if envelope.HasField("producer"):
            self._record(log_entry, envelope)
        self._forget()

    def expected(self, key: ProducerKey) -> int:
        """The number the next new batch of `key` must have."""
        window = self._windows.get(key)
        return 0 if window is None else window.expected

    def find(
        self, key: ProducerKey, number: int, crc: int, since_tick: int = 0
    ) -> AppendResult | None:
        """The first result of a repeated batch; None when `number` is new.

        Args:
            key: whose batch.
            number: its number.
            crc: checksum of its body.
            since_tick: all that the producer ever had written lies above it; 0 = not said.

        Raises:
            WalError: OUTCOME_UNKNOWN below the window or for an unknown producer;
                INVALID_ARGUMENT when the repeat carries something else than the first did.
        """
        window = self._windows.get(key)
        if window is None:
            if number == 0 and (not since_tick or since_tick >= self.forgotten_tick):
                return None
            raise _unknown(key, number, "the producer is not known here")
        if number >= window.expected:
            return None
        stored = self._kept.get(window, number)
        if stored is None:
            raise _unknown(key, number, "it lies below the window of kept results")
        if stored.crc != crc:
            raise different_payload(key, number)
        return stored.result

    def release(self) -> None:
        """Forgets everything: nobody asks any more."""
        for window in self._windows.values():
            self._let_go(window)
        self._windows.clear()

    def save(self) -> list[bytes]:
        """The component's snapshot."""
        common = log_pb2.ProducerWindow(forgotten_tick=self.forgotten_tick)
        parts = [common] if self.forgotten_tick else []
        parts += [self._to_proto(key, window) for key, window in self._windows.items()]
        return [part.SerializeToString() for part in parts]

    def load(self, parts: Iterable[bytes]) -> None:
        """Takes over what `save` made."""
        results: list[tuple[Window, int, KeptResult]] = []
        for part in parts:
            proto = log_pb2.ProducerWindow.FromString(part)
            self.forgotten_tick = max(self.forgotten_tick, proto.forgotten_tick)
            if proto.vchannel:
                results += self._load(proto)
        results.sort(key=lambda each: each[2].result.message_id)
        for each in results:
            self._kept.add(*each, self._limits.results)
        self._forget()

    def _load(self, proto: log_pb2.ProducerWindow) -> list[tuple[Window, int, KeptResult]]:
        """Makes a saved window; returns its results."""
        found = [(stored.number, result_from_proto(stored)) for stored in proto.results]
        numbers = [number for number, _ in found]
        key = (proto.name or proto.producer_id, proto.vchannel)
        window = self._make(key, numbers[0] if numbers else proto.next_number)
        window.epoch, window.opener = proto.epoch, proto.opener
        window.last_tick = proto.last_tick
        self._kept.tick = max(self._kept.tick, window.last_tick)
        following = [*numbers[1:], proto.next_number or numbers[-1] + 1] if numbers else []
        return [
            (window, number, KeptResult(stored.body_crc32c, result, after))
            for stored, (number, result), after in zip(proto.results, found, following, strict=True)
        ]

    def _record(self, log_entry: LogEntry, envelope: log_pb2.Envelope) -> None:
        window = self._touch(log_entry, envelope)
        number = envelope.producer.number
        if window is None or number < window.expected:
            return
        crc = log_entry.entry.body_crc32c
        kept = KeptResult(crc, log_entry.result(), number_after(envelope))
        self._kept.add(window, number, kept, self._limits.results)

    def _touch(self, log_entry: LogEntry, envelope: log_pb2.Envelope) -> Window | None:
        """The window of an entry, now the latest heard of, unless the entry was seen before."""
        key, tick = producer_key_of(envelope), log_entry.last_tick
        window = self._windows.get(key)
        if window is None:
            if tick <= self.forgotten_tick:
                return None  # it was forgotten, and is seen again
            window = self._make(key, envelope.producer.number)
        elif tick <= window.last_tick:
            return window
        else:
            self._windows.move_to_end(key)
        window.last_tick = tick
        return window

    def _make(self, key: ProducerKey, expected: int) -> Window:
        size = _WINDOW_BYTES + len(key[0]) + len(key[1])
        window = self._windows[key] = Window(expected, size)
        self._kept.used += size
        return window

    def _forget(self) -> None:
        self._kept.trim()
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if self._fits() and window.last_tick + self._lasts >= self._kept.tick:
                return
            self._remove(key)
            self.forgotten_tick = max(self.forgotten_tick, window.last_tick)

    def _fits(self) -> bool:
        return len(self._windows) <= self._limits.producers and not self._kept.full

    def _remove(self, key: ProducerKey) -> None:
        self._let_go(self._windows.pop(key))

    def _let_go(self, window: Window) -> None:
        self._kept.drop(window)
        self._kept.used -= window.size

    def _to_proto(self, key: ProducerKey, window: Window) -> log_pb2.ProducerWindow:
        proto = log_pb2.ProducerWindow(
            vchannel=key[1],
            next_number=window.expected,
            last_tick=window.last_tick,
            epoch=window.epoch,
            opener=window.opener,
        )
        if isinstance(key[0], str):
            proto.name = key[0]
        else:
            proto.producer_id = key[0]
        for number, kept in self._kept.of(window):
            stored = proto.results.add(number=number, body_crc32c=kept.crc)
            kept.result.write_to(stored)
        return proto


def different_payload(key: ProducerKey, number: int) -> WalError:
    """The error of a repeat whose payload is not that of the first."""
    return WalError(
        ErrorCode.INVALID_ARGUMENT,
        f"batch {number} of {title(key)} was sent before with another "
        "payload: number new batches on",
    )


def _unknown(key: ProducerKey, number: int, why: str) -> WalError:
    return WalError(
        ErrorCode.OUTCOME_UNKNOWN,
        f"batch {number} of {title(key)} may or may not be written: {why}; "
        "read the channel to find out, then start a new producer",
    )
