"""What an open does with the tail of its log: turns for others, what it saves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from walplane.testkit.waiting import until
from walplane.testkit.wal_world import World, entry, payloads_of, read_all
from walplane.wal.config import WALConfig
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.state import RecoveryState

TAIL, BURST = 3000, 1500
UNSAVED = WALConfig(checkpoint_s=3600, idle_tick_s=0.02)


@pytest.fixture
def world_url(each_url: str) -> str:
    return each_url


@pytest.fixture
async def crashed(world: World) -> AsyncIterator[World]:
    """A log whose owner left `TAIL` entries behind its checkpoint, and was never heard of again."""
    wal = await world.open(1, UNSAVED)
    for first in range(0, TAIL, BURST):
        burst = range(first, first + BURST)
        await asyncio.gather(*(wal.append(entry(b"%d" % i, number=i)) for i in burst))
    yield world


async def test_others_have_their_turns_while_a_log_is_replayed(
    crashed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    seen: list[int] = []
    observe = RecoveryState.observe

    def noting(state: RecoveryState, item: LogEntry) -> None:
        seen.append(turns)
        observe(state, item)

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(RecoveryState, "observe", noting)
    working = asyncio.create_task(other())
    wal = await crashed.open(2, UNSAVED)
    working.cancel()
    assert wal.replayed >= TAIL
    longest = max(seen.count(turn) for turn in set(seen))
    assert longest < TAIL // 2, f"{longest} entries at a time"
    assert payloads_of(await read_all(wal)) == [b"%d" % i for i in range(TAIL)]


async def test_what_was_replayed_is_saved_though_nothing_comes_after_it(crashed: World) -> None:
    wal = await crashed.open(2, WALConfig(checkpoint_s=0.05, idle_tick_s=0.02))
    await until(lambda: wal.recovery.checkpoint_tick >= wal.buffer.floor)
    assert wal.unsaved_bytes == 0
    third = await crashed.open(3, UNSAVED)
    assert third.replayed < TAIL, "all but what was in flight with the last one"
    repeat = await third.append(entry(b"%d" % (TAIL - 1), number=TAIL - 1))
    assert repeat.term == 1


async def test_a_log_that_is_opened_and_left_alone_saves_nothing(world: World) -> None:
    wal = await world.open(1)
    await wal.append(entry(b"a"))
    await wal.close()
    second = await world.open(2, UNSAVED)
    third = await world.open(3, UNSAVED)
    assert (second.unsaved_bytes, third.unsaved_bytes) == (0, 0)
