from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from walplane.coord.oracle import COMPONENT, MAX_BATCH, Oracle, OracleState
from walplane.coord.settings import CoordSettings
from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.ticks import TICKS_PER_MS

BATCH = 16 << 20


class Clock:
    """Clocks that tests move."""

    def __init__(self) -> None:
        self.wall_ms = 1_700_000_000_000
        self.monotonic = 7.0

    def pass_ms(self, elapsed: int) -> None:
        self.wall_ms += elapsed
        self.monotonic += elapsed / 1000

    @property
    def runtime(self) -> Runtime:
        return Runtime(lambda: self.wall_ms, lambda: self.monotonic, random.Random(1))  # noqa: S311


class Log:
    """A meta topic that one oracle after another owns; appends wait while it is held."""

    def __init__(self) -> None:
        self.deltas: list[bytes] = []
        self.began = 0
        self.free = asyncio.Event()
        self.free.set()
        self.appended = asyncio.Event()
        self.owner: OracleState | None = None

    def open(self, clock: Clock, settings: CoordSettings | None = None) -> Oracle:
        """A new coordinator's oracle; the one before is fenced."""
        state = OracleState()
        for delta in self.deltas:
            state.apply(delta)
        self.owner = state
        pchannels = ["p_0", "p_1"]
        log = _Owned(self, state)
        return Oracle(log, state, clock.runtime, pchannels, settings or CoordSettings())


class _Owned:
    def __init__(self, log: Log, state: OracleState) -> None:
        self._log = log
        self._state = state

    async def append(self, component: str, data: bytes) -> None:
        assert component == COMPONENT
        self._log.began += 1
        await self._log.free.wait()
        if self._log.owner is not self._state:
            raise WalError(ErrorCode.CHANNEL_FENCED, "another coordinator has the meta topic")
        self._log.deltas.append(data)
        self._state.apply(data)
        self._log.appended.set()


async def test_the_first_tick_is_the_wall_clock() -> None:
    clock = Clock()
    batch = await Log().open(clock).batch({}, BATCH)
    assert (batch.first, batch.size, batch.lost) == (
        clock.wall_ms * TICKS_PER_MS,
        BATCH,
        frozenset(),
    )


async def test_batches_follow_each_other_without_an_append_each() -> None:
    log, clock = Log(), Clock()
    oracle = log.open(clock)
    batches = [await oracle.batch({}, BATCH) for _ in range(20)]
    assert all(after.first == before.first + BATCH for before, after in itertools.pairwise(batches))
    assert log.began == 1


async def test_who_gets_a_batch_is_told_how_far_all_are_ahead_of_the_clock() -> None:
    clock = Clock()
    oracle = Log().open(clock)
    ahead = [(await oracle.batch({}, BATCH)).ahead_ms for _ in range(3)]
    assert ahead == [64, 128, 192]
    clock.pass_ms(100)
    assert (await oracle.batch({}, BATCH)).ahead_ms == 156
    clock.pass_ms(1000)
    assert (await oracle.batch({}, 1)).ahead_ms == 0


async def test_a_new_oracle_starts_above_all_that_the_old_one_gave_and_may_still_give() -> None:
    log, clock = Log(), Clock()
    old = log.open(clock)
    await old.batch({}, BATCH)
    clock.wall_ms -= 3_600_000
    new = log.open(clock)
    given = await new.batch({}, BATCH)
    late = await old.batch({}, BATCH)  # below its mark still, without an append
    assert late.first + late.size <= given.first


async def test_a_fenced_oracle_gives_no_fresh_tick_and_none_above_its_mark() -> None:
    log, clock = Log(), Clock()
    old = log.open(clock)
    await old.batch({}, BATCH)
    log.open(clock)
    for call in (old.fresh("p_0", 1), old.batch({}, MAX_BATCH), old.batch({}, MAX_BATCH)):
        clock.pass_ms(5000)
        with pytest.raises(WalError) as caught:
            await call
        assert caught.value.code is ErrorCode.CHANNEL_FENCED


async def test_a_fresh_tick_waits_for_an_append_that_began_after_the_request() -> None:
    log, clock = Log(), Clock()
    oracle = log.open(clock)
    held = await oracle.batch({"p_0": 1}, BATCH)
    log.free.clear()
    before = log.began
    request = asyncio.create_task(oracle.fresh("p_0", 2))
    await asyncio.sleep(0)
    assert log.began == before + 1
    assert not request.done()
    while_it_waits = await oracle.batch({"p_0": 1}, BATCH)
    log.free.set()
    fresh = await request
    assert fresh >= max(held.first, while_it_waits.first) + BATCH


async def test_after_a_fresh_tick_lower_terms_are_lost_also_for_the_next_oracle() -> None:
    log, clock = Log(), Clock()
    oracle = log.open(clock)
    await oracle.fresh("p_0", 5)
    for each in (oracle, log.open(clock)):
        assert (await each.batch({"p_0": 4, "p_1": 1}, 1)).lost == {"p_0"}
        assert (await each.batch({"p_0": 5, "p_1": 1}, 1)).lost == set()
        with pytest.raises(WalError, match="under term 5 only, not under 4") as caught:
            await each.fresh("p_0", 4)
        assert caught.value.code is ErrorCode.UNMATCHED_CHANNEL_TERM


async def test_a_higher_term_that_overtakes_refuses_the_lower_request() -> None:
    log, clock = Log(), Clock()
    oracle = log.open(clock)
    log.free.clear()
    lower = asyncio.create_task(oracle.fresh("p_0", 4))
    higher = asyncio.create_task(oracle.fresh("p_0", 5))
    await asyncio.sleep(0)
    log.owner.terms["p_0"] = 5  # type: ignore[union-attr]
    log.free.set()
    with pytest.raises(WalError) as caught:
        await lower
    assert caught.value.code is ErrorCode.UNMATCHED_CHANNEL_TERM
    assert await higher > 0


async def test_the_mark_is_raised_before_anybody_waits_for_it() -> None:
    log, clock = Log(), Clock()
    oracle = log.open(clock)
    raiser = asyncio.create_task(oracle.raise_ahead())
    await oracle.batch({}, BATCH)
    began = log.began
    log.appended.clear()
    clock.pass_ms(2000)
    await oracle.batch({}, BATCH)
    async with asyncio.timeout(5):
        await log.appended.wait()
    assert log.began == began + 1
    clock.pass_ms(1500)
    log.free.clear()
    await oracle.batch({}, BATCH)
    raiser.cancel()


async def test_callers_wait_for_the_mark_no_longer_than_the_deadline() -> None:
    log, clock = Log(), Clock()
    oracle = log.open(clock, CoordSettings(call_timeout_s=0.01))
    log.free.clear()
    for call in (oracle.batch({}, BATCH), oracle.fresh("p_0", 1)):
        with pytest.raises(WalError, match="in time") as caught:
            await call
        assert caught.value.code is ErrorCode.INNER
    log.free.set()
    assert (await oracle.batch({}, BATCH)).size == BATCH


async def test_waiters_for_the_mark_share_one_append() -> None:
    log, clock = Log(), Clock()
    oracle = log.open(clock)
    batches = await asyncio.gather(*(oracle.batch({}, BATCH) for _ in range(10)))
    assert len({batch.first for batch in batches}) == 10
    assert log.began == 1


async def test_nonsense_is_refused() -> None:
    oracle = Log().open(Clock())
    for size in (0, -1, MAX_BATCH + 1):
        with pytest.raises(WalError, match="ask for 1 to") as caught:
            await oracle.batch({}, size)
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    with pytest.raises(WalError, match="'p_9' is no PChannel") as caught:
        await oracle.fresh("p_9", 1)
    assert caught.value.code is ErrorCode.CHANNEL_NOT_EXIST
