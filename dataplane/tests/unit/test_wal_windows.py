"""Producers' windows: repeats, gaps, unknown numbers, bounds, snapshots."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.ticks import TICKS_PER_MS
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.results import KeptResults
from walplane.wal.recovery.windows import ProducerWindows, WindowLimits

KEY = (b"p", "c_0_1v0")
LIMITS = WindowLimits(results=4, producers=4, max_bytes=1 << 20, age_ms=1000, numbers_ms=7000)


def batch(
    number: int, crc: int = 7, *, producer: bytes = KEY[0], ms: int = 0, record: int | None = None
) -> LogEntry:
    envelope = log_pb2.Envelope(
        vchannel=KEY[1],
        first_tick=100 + number + ms * TICKS_PER_MS,
        count=1,
        term=3,
        producer=log_pb2.ProducerBatch(producer_id=producer, number=number),
    )
    envelope.last_confirmed.CopyFrom(MessageID("memory", (1,)).to_proto())
    entry = log_pb2.Entry(envelope=envelope, body_crc32c=crc)
    return LogEntry(entry, MessageID("memory", (number if record is None else record,)), 2)


def other_entry(ms: int) -> LogEntry:
    """One of nobody's, at `ms` of tick time."""
    entry = log_pb2.Entry(envelope=log_pb2.Envelope(first_tick=ms * TICKS_PER_MS, count=1))
    return LogEntry(entry, MessageID("memory", (10_000 + ms,)), 2)


def windows_with(*numbers: int, limits: WindowLimits = LIMITS) -> ProducerWindows:
    windows = ProducerWindows(limits)
    for number in numbers:
        windows.observe(batch(number))
    return windows


def unknown(windows: ProducerWindows, number: int, *, since: int = 0) -> bool:
    try:
        windows.find(KEY, number, 7, since)
    except WalError as error:
        assert error.code is ErrorCode.OUTCOME_UNKNOWN
        return True
    return False


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
    restored = ProducerWindows(LIMITS)
    restored.load(windows_with(0, 1, 2).save())
    assert restored.expected(KEY) == 3
    assert restored.find(KEY, 2, 7) == windows_with(0, 1, 2).find(KEY, 2, 7)


def test_who_wrote_longest_ago_is_forgotten_first_whoever_was_asked_about() -> None:
    windows = ProducerWindows(LIMITS._replace(producers=2))
    for number, producer in enumerate((b"a", b"b", b"a")):
        windows.observe(batch(windows.expected((producer, KEY[1])), producer=producer, ms=number))
    windows.find((b"b", KEY[1]), 0, 7)
    windows.observe(batch(0, producer=b"c", ms=3))
    assert windows.expected((b"a", KEY[1])) == 2
    assert windows.expected((b"b", KEY[1])) == 0
    assert windows.forgotten_tick == 100 + TICKS_PER_MS


def test_results_leave_with_age_and_the_number_that_is_due_stays() -> None:
    windows = windows_with(0, 1)
    windows.observe(other_entry(ms=900))
    assert not unknown(windows, 1)
    windows.observe(other_entry(ms=1100))
    assert unknown(windows, 1), "its result is gone, and it is not new"
    assert windows.find(KEY, 2, 7) is None, "who comes back late goes on"
    windows.observe(other_entry(ms=7200))
    assert unknown(windows, 2), "after seven times the age nobody knows the producer"
    assert windows.held_bytes == 0


def test_a_barrier_ages_nothing_since_its_own_writer_does_not_observe_it() -> None:
    windows = windows_with(0)
    barrier = other_entry(ms=9000)
    barrier.entry.envelope.type = MessageType.RECOVERY_BARRIER
    windows.observe(barrier)
    windows.observe(batch(1, ms=9001))
    assert windows.expected(KEY) == 2
    assert windows.forgotten_tick == 0


def test_all_results_together_are_bounded_in_bytes_and_the_oldest_go_first() -> None:
    windows = ProducerWindows(LIMITS._replace(max_bytes=6000, producers=100))
    for number in range(40):
        producer = b"idle" if number < 2 else b"busy"
        windows.observe(batch(number if number < 2 else number - 2, producer=producer, ms=number))
        assert windows.held_bytes <= 6000
    assert windows.find((b"idle", KEY[1]), 2, 7) is None
    for number in range(30):  # so many producers that not even their numbers find room
        windows.observe(batch(0, producer=b"%d" % number, ms=100 + number))
        assert windows.held_bytes <= 6000
    assert windows.find((b"29", KEY[1]), 1, 7) is None
    assert windows.forgotten_tick >= 100 + 110 * TICKS_PER_MS


def test_batch_0_of_a_producer_that_may_have_been_forgotten_is_not_new() -> None:
    windows = windows_with(0, limits=LIMITS._replace(producers=1))
    windows.observe(batch(0, producer=b"another", ms=1))
    assert windows.forgotten_tick == 100
    assert unknown(windows, 0, since=99)
    assert windows.find(KEY, 0, 7, since_tick=100) is None, "all it ever wrote would be known"


def test_windows_of_several_owners_of_the_bounds_share_them() -> None:
    kept = KeptResults(4000, 1000)
    first, second = (ProducerWindows(LIMITS, kept) for _ in range(2))
    first.observe(batch(0))
    for number in range(4):
        second.observe(batch(number, producer=b"q", ms=1 + number))
    assert kept.used <= 4000
    assert unknown(first, 0)
    second.release()
    first.release()
    assert kept.used == 0


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 60), st.integers(0, 60))
def test_whatever_is_forgotten_nothing_is_new_twice_and_recovery_forgets_the_same(
    draw: random.Random, length: int, saved_at: int
) -> None:
    limits = WindowLimits(
        draw.choice([1, 2, 8]),
        draw.choice([1, 2, 8]),
        draw.choice([1500, 3000, 1 << 20]),
        *draw.choice([(1, 7), (20, 140), (1000, 7000)]),
    )
    log = list(_log(draw, length))
    live = ProducerWindows(limits)
    snapshot: list[bytes] = []
    for place, item in enumerate(log):
        live.observe(item)
        if place == saved_at:
            snapshot = live.save()
        for written in log[: place + 1]:
            _check_not_new(live, written, log)
    if saved_at < length:
        recovered = ProducerWindows(limits)
        recovered.load(snapshot)
        for item in log[max(0, saved_at - draw.randrange(3)) :]:  # the last few once more
            recovered.observe(item)
        assert recovered.save() == live.save()
        assert recovered.held_bytes == live.held_bytes


def _log(draw: random.Random, length: int) -> Iterable[LogEntry]:
    due: dict[bytes, int] = {}
    ms = 0
    for record in range(length):
        ms += draw.choice([1, 1, 1, 10, 100])
        producer = draw.choice([b"a", b"b", b"c", b"d"])
        due[producer] = due.get(producer, -1) + 1
        yield batch(due[producer], producer=producer, ms=ms, record=record)


def _check_not_new(windows: ProducerWindows, written: LogEntry, log: list[LogEntry]) -> None:
    producer = written.entry.envelope.producer
    began = next(i for i in log if i.entry.envelope.producer.producer_id == producer.producer_id)
    key = (producer.producer_id, KEY[1])
    try:
        found = windows.find(key, producer.number, 7, began.first_tick - 1)
    except WalError as error:
        assert error.code is ErrorCode.OUTCOME_UNKNOWN
    else:
        assert found == written.result()
