"""What an open does with the tail of its log: turns for others, what it saves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from walplane.backends.interface import Record
from walplane.backends.memory import MemoryBackend, MemoryScanner
from walplane.channel import meta_topic
from walplane.rpc.errors import WalError
from walplane.runtime import Runtime
from walplane.testkit.outside import TestAuthority, TestNode, TestOracle
from walplane.testkit.sim.loop import SimLoop
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import CH, V, World, create, entry, payloads_of, read_all
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


@pytest.mark.parametrize("topic", [CH, meta_topic(CH)])
@pytest.mark.parametrize(("read_s", "opens"), [(20.0, True), (61.0, False)])
def test_a_slow_replay_is_given_up_only_when_it_stands_still(
    read_s: float, opens: bool, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In virtual time: twenty frames and more, one a read, against 60 s."""
    loop = SimLoop(0)
    clock = Runtime(lambda: round(loop.time() * 1000), loop.time, random.Random(0))  # noqa: S311
    backend, oracle, authority = MemoryBackend(), TestOracle(), TestAuthority()

    async def one_slow_record(scanner: MemoryScanner) -> list[Record]:
        await asyncio.sleep(read_s if scanner._topic.name == topic else 0)
        record, *_ = await read(scanner)
        scanner._position = record.record_id[0] + 1
        return [record]

    async def main() -> None:
        first = TestNode(backend, oracle, authority, clock)
        wal = await first.open(CH, 1, UNSAVED)
        await create(wal, V)
        for number in range(20):
            await wal.append(entry(b"%d" % number, number=number))
        for _ in range(20 if topic != CH else 0):
            await wal.checkpoint(truncate=False)
        monkeypatch.setattr(MemoryScanner, "read", one_slow_record)
        await TestNode(backend, oracle, authority, clock).open(CH, 2, UNSAVED)

    read = MemoryScanner.read
    try:
        if opens:
            loop.run(main())
            assert loop.time() > 400
        else:
            with pytest.raises(WalError, match="got no further within 60 s"):
                loop.run(main())
    finally:
        loop.close()
