"""No tick is given twice, whatever clocks and crashes do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from walplane.coord.oracle import TickSource
from walplane.ticks import TICKS_PER_MS

HOUR_MS = 3_600_000
LEAD_MS = 3000

steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 64 << 20)),
        st.tuples(st.just("persist"), st.integers(1, 64 << 20)),
        st.tuples(st.just("elapse"), st.integers(0, 10_000)),
        st.tuples(st.just("jump"), st.integers(-HOUR_MS, HOUR_MS)),
        st.tuples(st.just("crash"), st.just(0)),
    ),
    max_size=60,
)


@given(steps)
def test_ticks_are_unique_and_grow_over_crashes_and_clock_jumps(
    history: list[tuple[str, int]],
) -> None:
    wall, monotonic = 1_700_000_000_000, 50.0
    persisted, last = 0, 0
    source = TickSource(persisted, LEAD_MS)
    for step, value in history:
        if step == "elapse":
            wall, monotonic = wall + value, monotonic + value / 1000
        elif step == "jump":
            wall += value
        elif step == "crash":
            source = TickSource(persisted, LEAD_MS)
        elif step == "persist":
            persisted = source.wanted_mark(value, wall, monotonic)
            source.mark = persisted
        else:
            first = source.take(value, wall, monotonic)
            if first is not None:
                assert first > last
                last = first + value - 1
                assert last < persisted


@given(steps, st.integers(1, 64 << 20))
def test_after_the_wanted_mark_is_persisted_the_ticks_are_there(
    history: list[tuple[str, int]], count: int
) -> None:
    wall, monotonic = 1_700_000_000_000, 50.0
    source = TickSource(0, LEAD_MS)
    for step, value in history:
        if step == "elapse":
            wall, monotonic = wall + value, monotonic + value / 1000
        elif step == "jump":
            wall += value
        elif step == "take":
            source.take(value, wall, monotonic)
        source.mark = source.wanted_mark(count, wall, monotonic)
        assert source.take(count, wall, monotonic) is not None
        assert not source.low


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(-HOUR_MS, HOUR_MS)), max_size=30))
def test_the_physical_part_passes_at_least_as_fast_as_time(
    moments: list[tuple[int, int]],
) -> None:
    wall, monotonic = 1_700_000_000_000, 50.0
    source = TickSource(0, LEAD_MS)

    def tick() -> int:
        source.mark = source.wanted_mark(1, wall, monotonic)
        first = source.take(1, wall, monotonic)
        assert first is not None
        return first

    start, passed = tick(), 0
    for elapsed, jump in moments:
        passed += elapsed
        wall, monotonic = wall + elapsed + jump, monotonic + elapsed / 1000
        now = tick()
        assert now - start >= passed * TICKS_PER_MS - 2 * len(moments)  # a float's last bits
        assert now // TICKS_PER_MS >= wall


def test_batches_taken_faster_than_time_passes_do_not_speed_the_clock_up() -> None:
    wall, monotonic = 1_700_000_000_000, 50.0
    source = TickSource(0, LEAD_MS)
    for _ in range(1000):
        source.mark = source.wanted_mark(16 << 20, wall, monotonic)
        first = source.take(16 << 20, wall, monotonic)
        assert first is not None
        assert first // TICKS_PER_MS - wall <= 100
        wall, monotonic = wall + 100, monotonic + 0.1
