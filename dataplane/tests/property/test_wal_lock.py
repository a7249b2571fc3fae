"""The fair lock under any mixture of holders, cancellations and deadlines."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from walplane.wal.lock import RWLock


@dataclass
class Watch:
    """What the holders see of each other."""

    shared: int = 0
    exclusive: int = 0
    got: list[int] = field(default_factory=list)

    def enter(self, number: int, exclusive: bool) -> None:
        self.got.append(number)
        if exclusive:
            self.exclusive += 1
        else:
            self.shared += 1
        assert self.exclusive <= 1
        assert not (self.exclusive and self.shared)

    def leave(self, exclusive: bool) -> None:
        if exclusive:
            self.exclusive -= 1
        else:
            self.shared -= 1


@dataclass(frozen=True)
class Holder:
    exclusive: bool
    arrives: int  # in turns of the loop after the one before
    holds: int  # turns
    cancelled: int | None  # turns after its arrival
    deadline: bool


HOLDERS = st.lists(
    st.builds(
        Holder,
        exclusive=st.booleans(),
        arrives=st.integers(0, 3),
        holds=st.integers(0, 4),
        cancelled=st.none() | st.integers(0, 8),
        deadline=st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def hold(lock: RWLock, watch: Watch, number: int, holder: Holder) -> None:
    if holder.deadline:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.0001):
                await lock.acquire(exclusive=holder.exclusive)
                await use(lock, watch, number, holder)
        return
    await lock.acquire(exclusive=holder.exclusive)
    await use(lock, watch, number, holder)


async def use(lock: RWLock, watch: Watch, number: int, holder: Holder) -> None:
    watch.enter(number, holder.exclusive)
    try:
        await turns(holder.holds)
    finally:
        watch.leave(holder.exclusive)
        lock.release(exclusive=holder.exclusive)


async def run(holders: list[Holder]) -> Watch:
    lock, watch = RWLock(), Watch()
    tasks: list[asyncio.Task[None]] = []
    stoppers = []
    for number, holder in enumerate(holders):
        await turns(holder.arrives)
        task = asyncio.create_task(hold(lock, watch, number, holder))
        tasks.append(task)
        if holder.cancelled is not None:
            stoppers.append(asyncio.create_task(cancel_later(task, holder.cancelled)))
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks, *stoppers, return_exceptions=True)
    for task in tasks:
        assert task.cancelled() or task.exception() is None
    assert lock.idle
    assert lock.try_acquire(exclusive=True)
    return watch


async def cancel_later(task: asyncio.Task[None], after: int) -> None:
    await turns(after)
    task.cancel()


@given(HOLDERS)
def test_exclusive_excludes_and_whoever_arrives_first_goes_first(holders: list[Holder]) -> None:
    watch = asyncio.run(run(holders))
    assert watch.got == sorted(watch.got)
    patient = {n for n, h in enumerate(holders) if h.cancelled is None and not h.deadline}
    assert patient <= set(watch.got)


async def test_whoever_comes_between_grant_and_wake_up_does_not_overtake() -> None:
    lock, got = RWLock(), []
    await lock.acquire(exclusive=True)

    async def reader(name: str) -> None:
        await lock.acquire(exclusive=False)
        got.append(name)
        lock.release(exclusive=False)

    waiting = asyncio.create_task(reader("waited"))
    await asyncio.sleep(0)
    late = asyncio.create_task(reader("late"))  # runs before the wake-up that follows
    lock.release(exclusive=True)
    await asyncio.gather(waiting, late)
    assert got == ["waited", "late"]


async def test_a_free_lock_is_taken_without_giving_up_the_loop() -> None:
    lock = RWLock()
    coroutine = lock.acquire(exclusive=False)
    with suppress(StopIteration):
        coroutine.send(None)
    assert not lock.idle
    lock.release(exclusive=False)
    assert lock.idle


async def test_a_reader_that_waits_behind_a_writer_goes_on_when_the_writer_gives_up() -> None:
    lock = RWLock()
    await lock.acquire(exclusive=False)
    writer = asyncio.create_task(lock.acquire(exclusive=True))
    await asyncio.sleep(0)
    reader = asyncio.create_task(lock.acquire(exclusive=False))
    await asyncio.sleep(0)
    assert not reader.done()
    writer.cancel()
    async with asyncio.timeout(1):
        await reader
