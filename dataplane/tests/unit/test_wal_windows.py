"""Producers' windows: repeats, gaps, unknown numbers, snapshots."""

from __future__ import annotations

import pytest

from walplane.message.ids import MessageID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.windows import ProducerWindows

KEY = (b"p", "c_0_1v0")


def batch(number: int, crc: int = 7) -> LogEntry:
    envelope = log_pb2.Envelope(
        vchannel=KEY[1],
        first_tick=100 + number,
        count=1,
        term=3,
        producer=log_pb2.ProducerBatch(producer_id=KEY[0], number=number),
    )
    envelope.last_confirmed.CopyFrom(MessageID("memory", (1,)).to_proto())
    entry = log_pb2.Entry(envelope=envelope, body_crc32c=crc)
    return LogEntry(entry, MessageID("memory", (number,)), 2)


def windows_with(*numbers: int, results: int = 4, producers: int = 4) -> ProducerWindows:
    windows = ProducerWindows(results, producers)
    for number in numbers:
        windows.observe(batch(number))
    return windows


def test_a_repeat_gets_the_first_result() -> None:
    result = windows_with(0, 1).find(KEY, 1, 7)
    assert result is not None
    assert (result.first_tick, result.term, result.open_number) == (101, 3, 2)
    assert result.last_confirmed == MessageID("memory", (1,))


def test_observing_twice_changes_nothing() -> None:
    windows = windows_with(0, 1, 0, 1)
    assert windows.expected(KEY) == 2


def test_a_new_number_is_new() -> None:
    assert windows_with(0).find(KEY, 1, 7) is None
    assert windows_with().find(KEY, 0, 7) is None


@pytest.mark.parametrize(
    ("windows", "number", "crc", "code"),
    [
        (windows_with(0, 1), 1, 8, ErrorCode.INVALID_ARGUMENT),
        (windows_with(0, 1, 2, 3, 4), 0, 7, ErrorCode.OUTCOME_UNKNOWN),
        (windows_with(), 3, 7, ErrorCode.OUTCOME_UNKNOWN),
    ],
    ids=["another payload", "below the window", "unknown producer"],
)
def test_what_cannot_be_answered_is_refused(
    windows: ProducerWindows, number: int, crc: int, code: ErrorCode
) -> None:
    with pytest.raises(WalError) as error:
        windows.find(KEY, number, crc)
    assert error.value.code is code


def test_a_snapshot_restores_the_window() -> None:
    restored = ProducerWindows(4, 4)
    restored.load(windows_with(0, 1, 2).save())
    assert restored.expected(KEY) == 3
    assert restored.find(KEY, 2, 7) == windows_with(0, 1, 2).find(KEY, 2, 7)


def test_the_least_recently_used_producer_is_forgotten_first() -> None:
    windows = ProducerWindows(4, 2)
    for producer in (b"a", b"b", b"a", b"c"):
        item = batch(windows.expected((producer, KEY[1])))
        item.entry.envelope.producer.producer_id = producer
        windows.observe(item)
    assert windows.expected((b"a", KEY[1])) == 2
    assert windows.expected((b"b", KEY[1])) == 0
