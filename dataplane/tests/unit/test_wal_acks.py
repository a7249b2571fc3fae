"""Watermark and LastConfirmed over tick ranges that are acknowledged in any order."""

from __future__ import annotations

from time import monotonic

from hypothesis import given
from hypothesis import strategies as st

from walplane.message.ids import MessageID
from walplane.rpc.v1 import log_pb2
from walplane.wal.ports import LogEntry
from walplane.wal.timetick.acks import AckManager, TickRange


def written(ticks: TickRange, record: int) -> LogEntry:
    envelope = log_pb2.Envelope(first_tick=ticks.first, count=ticks.last - ticks.first + 1)
    return LogEntry(log_pb2.Entry(envelope=envelope), MessageID("memory", (record,)), 0)


def test_watermark_waits_for_the_lowest_open_tick() -> None:
    confirmed: list[LogEntry] = []
    acks = AckManager(100, None, confirmed.append, monotonic)
    low, high = acks.allocate(101, 10), acks.allocate(200, 5)
    acks.confirm(high, written(high, 1))
    assert (acks.watermark, confirmed) == (100, [])
    acks.confirm(low, written(low, 2))
    assert acks.watermark == 204
    assert [item.first_tick for item in confirmed] == [101, 200]


def test_a_definitely_failed_append_settles() -> None:
    acks = AckManager(0, None, lambda item: None, monotonic)
    failed, ok = acks.allocate(1, 1), acks.allocate(2, 1)
    acks.confirm(ok, written(ok, 1))
    acks.settle(failed)
    assert acks.watermark == 2


def test_last_confirmed_stays_behind_ticks_allocated_before_the_record_was_written() -> None:
    acks = AckManager(0, None, lambda item: None, monotonic)
    slow, fast = acks.allocate(1, 1), acks.allocate(2, 1)
    acks.confirm(fast, written(fast, 7))
    acks.record_written(MessageID("memory", (7,)))
    assert acks.last_confirmed is None, "`slow` may still be written behind record 7"
    acks.confirm(slow, written(slow, 8))
    acks.record_written(MessageID("memory", (8,)))
    assert acks.last_confirmed == MessageID("memory", (8,))


def test_an_idle_watermark_moves_on() -> None:
    acks = AckManager(5, None, lambda item: None, monotonic)
    acks.advance(50)
    assert (acks.watermark, acks.last_allocated) == (50, 50)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_reading_from_last_confirmed_misses_nothing_above_the_watermark(
    counts: list[int], random: object
) -> None:
    """The pair (watermark, LastConfirmed) is a safe start at every moment (I6)."""
    acks = AckManager(0, None, lambda item: None, monotonic)
    open_ranges: list[TickRange] = []
    place: dict[int, int] = {}  # first tick -> record
    tick = record = 0
    for count in counts:
        tick += 1
        open_ranges.append(acks.allocate(tick, count))
        tick += count - 1
        while open_ranges and random.random() < 0.5:  # type: ignore[attr-defined]
            done = open_ranges.pop(random.randrange(len(open_ranges)))  # type: ignore[attr-defined]
            record += 1
            place[done.first] = record
            acks.confirm(done, written(done, record))
            acks.record_written(MessageID("memory", (record,)))
        confirmed = 0 if acks.last_confirmed is None else acks.last_confirmed.record[0]
        assert all(at >= confirmed for first, at in place.items() if first > acks.watermark)
        assert all(first > acks.watermark for first in (item.first for item in open_ranges))
