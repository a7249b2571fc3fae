"""Producers' windows: the last batches of each (producer, VChannel) and their results.

Contract (architecture §6): batches are numbered consecutively from 0; a repeat inside the window
gets the first result, a number below it or from an unknown producer is OUTCOME_UNKNOWN, a gap is
INVALID_REQUEST_SEQ. The window is a component of the checkpoint: saved in its snapshots, rebuilt by
observing the log; observing an entry twice changes nothing. Layer: wal.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from walplane.message.ids import MessageID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.ports import AppendResult, LogEntry

ProducerKey = tuple[bytes, str]


class Window:
    """One producer on one VChannel.

    Attributes:
        expected: number of the next new batch.
    """

    __slots__ = ("expected", "results")

    def __init__(self) -> None:
        """No batch yet."""
        self.expected = 0
        self.results: OrderedDict[int, tuple[int, AppendResult]] = OrderedDict()


class ProducerWindows:
    """The windows of one PChannel; the least recently used producers are forgotten first."""

    component = "producers"

    def __init__(self, results: int, producers: int) -> None:
        """Keeps `results` per window, and `producers` windows."""
        self._results = results
        self._producers = producers
        self._windows: OrderedDict[ProducerKey, Window] = OrderedDict()

    def observe(self, log_entry: LogEntry) -> None:
        """Learns of a written entry, in log order."""
        envelope = log_entry.entry.envelope
        if envelope.HasField("producer"):
            key = (envelope.producer.producer_id, envelope.vchannel)
            crc = log_entry.entry.body_crc32c
            self._record(key, envelope.producer.number, crc, log_entry.result())

    def expected(self, key: ProducerKey) -> int:
        """The number the next new batch of `key` must have."""
        window = self._windows.get(key)
        return 0 if window is None else window.expected

    def find(self, key: ProducerKey, number: int, crc: int) -> AppendResult | None:
        """The first result of a repeated batch; None when `number` is new.

        Raises:
            WalError: OUTCOME_UNKNOWN below the window or for an unknown producer;
                INVALID_ARGUMENT when the repeat carries something else than the first did.
        """
        window = self._windows.get(key)
        if window is None:
            if number == 0:
                return None
            raise _unknown(key, number, "the producer is not known here")
        if number >= window.expected:
            return None
        self._windows.move_to_end(key)
        stored = window.results.get(number)
        if stored is None:
            raise _unknown(key, number, "it lies below the window of kept results")
        if stored[0] != crc:
            raise different_payload(key, number)
        return stored[1]

    def save(self) -> list[bytes]:
        """The component's snapshot."""
        return [_to_proto(key, window).SerializeToString() for key, window in self._windows.items()]

    def load(self, parts: Iterable[bytes]) -> None:
        """Takes over what `save` made."""
        for part in parts:
            proto = log_pb2.ProducerWindow.FromString(part)
            key = (proto.producer_id, proto.vchannel)
            for stored in proto.results:
                self._record(key, stored.number, stored.body_crc32c, result_from_proto(stored))

    def _record(self, key: ProducerKey, number: int, crc: int, result: AppendResult) -> None:
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = Window()
            while len(self._windows) > self._producers:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(key)
        if number < window.expected:
            return
        window.expected = number + 1
        window.results[number] = (crc, result)
        while len(window.results) > self._results:
            window.results.popitem(last=False)


def different_payload(key: ProducerKey, number: int) -> WalError:
    """The error of a repeat whose payload is not that of the first."""
    return WalError(
        ErrorCode.INVALID_ARGUMENT,
        f"batch {number} of producer {key[0].hex()} on {key[1]} was sent before with another "
        "payload: number new batches on",
    )


def _unknown(key: ProducerKey, number: int, why: str) -> WalError:
    return WalError(
        ErrorCode.OUTCOME_UNKNOWN,
        f"batch {number} of producer {key[0].hex()} on {key[1]} may or may not be written: {why}; "
        "read the channel to find out, then start a new producer",
    )


def _to_proto(key: ProducerKey, window: Window) -> log_pb2.ProducerWindow:
    proto = log_pb2.ProducerWindow(producer_id=key[0], vchannel=key[1])
    for number, (crc, result) in window.results.items():
        stored = result_to_proto(result)
        stored.number, stored.body_crc32c = number, crc
        proto.results.append(stored)
    return proto


def result_to_proto(result: AppendResult) -> log_pb2.ProducerWindow.Result:
    """A result as a snapshot keeps it, without number and checksum."""
    stored = log_pb2.ProducerWindow.Result(
        message_id=result.message_id.to_proto(),
        first_tick=result.first_tick,
        count=result.count,
        term=result.term,
        open_number=result.open_number,
    )
    if result.last_confirmed is not None:
        stored.last_confirmed.CopyFrom(result.last_confirmed.to_proto())
    return stored


def result_from_proto(stored: log_pb2.ProducerWindow.Result) -> AppendResult:
    """The result that `result_to_proto` made."""
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
