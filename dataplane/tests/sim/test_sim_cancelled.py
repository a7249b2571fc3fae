"""A program's call is cancelled before each step of its process, one after the other.

Whatever the step: the call ends, nothing of it stays behind, the same client goes on, and what the
call did is in the log once, whole and in its place, or not at all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

import pytest

from walplane.client import StreamingClient
from walplane.client.config import ClientConfig
from walplane.client.reader import Reader
from walplane.message.builder import insert
from walplane.testkit.sim.backend import Manners
from walplane.testkit.sim.cluster import EdgeShape, Shape, SimCluster
from walplane.testkit.sim.judge import undisturbed
from walplane.testkit.sim.loop import SimLoop
from walplane.testkit.sim.process import PROCESS, Process
from walplane.wal.config import WALConfig

T = TypeVar("T")
MOST_STEPS = 500
SHAPE = Shape(
    nodes=1,
    pchannels=2,
    # Little room for anything, so that calls wait for it as well.
    wal=WALConfig(checkpoint_s=5, idle_tick_s=0.05, write_ahead_bytes=300),
    client=ClientConfig(pending_bytes=4000, read_ahead_bytes=600),
    manners=Manners(evicts=0, silent_fence=0, read_records=3),
    max_record_bytes=20_000,
    sync_s=0.0005,
    lease_s=4,
    link_waits=0,
    append_bytes=1 << 20,
    edge=EdgeShape(300, 4000, 2000, reader_patience_s=5, window=2, slow_s=0),
)


class CountingLoop(SimLoop):
    """Knows whose tasks are not done."""

    def __init__(self) -> None:
        super().__init__(1)
        self._owners: dict[asyncio.Task[Any], Process | None] = {}

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        task = super().create_task(coro, name=name, context=context)
        self._owners[task] = PROCESS.get() if context is None else context.get(PROCESS)
        task.add_done_callback(self._owners.__delitem__, context=Context())
        return task

    def tasks_of(self, process: Process) -> Counter[str]:
        return Counter(
            task.get_coro().__qualname__  # type: ignore[union-attr]
            for task, owner in self._owners.items()
            if owner is process
        )


Work = Callable[[], Awaitable[object]]


class World:
    """A node, and a client beside it or in its process."""

    def __init__(self, loop: CountingLoop, *, local: bool) -> None:
        self._loop = loop
        self._cluster = SimCluster(loop, SHAPE, 1)
        self._local = local
        self._process: Process
        self.numbers: dict[int, int] = {}  # by step, which one a named producer was told

    async def start(self) -> None:
        while not hasattr(self._cluster.nodes["n0"], "node"):  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)  # until its PChannels are served
        self._node = self._cluster.nodes["n0"]
        self._process = self._node.process if self._local else self._cluster.process("user")
        await self._process.start(self._enter())

    def connect(self) -> StreamingClient:
        node = self._node.node
        return self._cluster.client(self._process, {node.node_id: node} if self._local else None)

    async def run(self, work: Work, cancelled_at: int = 0) -> bool:
        """Has the process do `work`, within a bound; whether it was cancelled before its end."""
        cut_off = False

        async def whole() -> None:
            await work()

        def cancel() -> None:
            nonlocal cut_off
            cut_off = task.cancel()

        task = self._process.start(whole())
        self._process.burn(cancelled_at, cancel)
        done, _ = await asyncio.wait({task}, timeout=20)
        self._process.burn(0, cancel)
        assert done, f"step {cancelled_at}: it goes on"
        if not task.cancelled():
            task.result()
        return cut_off

    def standing(self) -> tuple[Counter[str], list[int]]:
        """Its tasks, and what is taken of anything that calls give back."""
        appends, node = self.client._appends, self._node.node
        logs = self._node.wals
        taken = [
            appends._pending.used,
            len(appends._pending._waiters),
            len(appends._turns.last),
            len(appends._openings),
            node.append_budget.used,
            node.read_turns.held,
            sum(len(log.recovery.txns.open) for log in logs),
            sum(log.appender.bytes_pending for log in logs),
        ]
        return self._loop.tasks_of(self._process), taken

    async def settled(self, step: int, before: tuple[Counter[str], list[int]]) -> None:
        """Returns once nothing is there that was not `before`; sooner than anything expires."""
        for _ in range(40):
            tasks, taken = self.standing()
            left = tasks - before[0]
            if not left and taken == before[1]:
                return
            await asyncio.sleep(0.05)
        pytest.fail(f"step {step}: tasks {dict(left)} are left; {before[1]} taken, now {taken}")

    async def payloads(self) -> list[str]:
        return [m.payload.decode() async for m in self.client.read(self.first, follow=False)]

    async def _enter(self) -> None:
        self.client = await self.connect().__aenter__()
        self.first, self.second = (await self.client.create_collection("c", 2)).vchannels
        await self.probe("0")

    async def probe(self, name: str) -> None:
        for vchannel in (self.first, self.second):
            await self.client.append(insert(vchannel, f"{name}/probe".encode()), timeout=10)


Call = Callable[[World, str], Awaitable[object]]


async def append(world: World, name: str) -> None:
    await world.client.append(insert(world.first, f"{name}/0".encode()), idempotency_key=name)


async def append_many(world: World, name: str) -> None:
    await world.client.append_many(
        insert(vchannel, f"{name}/{number}/{'x' * 900}".encode())
        for number in range(6)
        for vchannel in (world.first, world.second)
    )


async def producer(world: World, name: str) -> None:
    async with world.client.producer("p", world.first) as named:
        world.numbers[int(name)] = named.next_number
        await named.append(insert(world.first, f"{name}/p3".encode()))
        await named.append_many(insert(world.first, f"{name}/p{n}".encode()) for n in range(3))


async def txn(world: World, name: str) -> None:
    async with world.client.txn(world.first) as parts:
        await parts.append(insert(world.first, f"{name}/txn0".encode()))
        await parts.flush()
        await parts.append(insert(world.first, f"{name}/txn1".encode()))


async def rollback(world: World, name: str) -> None:
    async with world.client.txn(world.first) as parts:
        await parts.append(insert(world.first, f"{name}/gone".encode()))
        await parts.flush()
        await parts.rollback()


async def client(world: World, name: str) -> None:
    async with world.connect() as client:
        await client.append(insert(world.first, f"{name}/0".encode()))
        reader = client.reader(world.first)
        async for _ in reader.batches():
            break


@pytest.fixture(autouse=True)
def world_apart() -> Iterator[None]:
    """What is left of a world is freed behind its test, and says nothing then."""
    with undisturbed():
        yield


def play(main: Callable[[World], Awaitable[None]], *, local: bool) -> None:
    loop = CountingLoop()

    async def started() -> None:
        world = World(loop, local=local)
        await world.start()
        await main(world)

    loop.run(started())
    assert not loop.failures


@pytest.mark.parametrize("local", [False, True], ids=["remote", "local"])
@pytest.mark.parametrize("call", [append, append_many, producer, txn, rollback, client])
def test_a_call_cancelled_anywhere_leaves_nothing_behind(call: Call, *, local: bool) -> None:
    async def main(world: World) -> None:
        for step in range(1, MOST_STEPS):
            before = world.standing()
            cut_off = await world.run(partial(call, world, str(step)), step)
            await world.run(partial(world.probe, str(step)))
            await world.settled(step, before)
            if not cut_off:
                break
        await world.run(partial(check, world, step))

    async def check(world: World, steps: int) -> None:
        payloads = [payload for payload in await world.payloads() if payload]
        places = [int(payload.partition("/")[0]) for payload in payloads]
        assert places == sorted(places), "what a call did lies before what came after it"
        counts = Counter(payloads)
        assert max(counts.values()) == 1
        assert not any(payload.endswith("gone") for payload in payloads)
        named = [int(payload[:-3]) for payload in payloads if payload[-3:-1] == "/p"]
        for step, number in world.numbers.items():
            assert number == sum(place < step for place in named)
        for step in range(steps + 1):
            assert f"{step}/probe" in counts
            assert counts[f"{step}/txn0"] == counts[f"{step}/txn1"]

    play(main, local=local)


@pytest.mark.parametrize("local", [False, True], ids=["remote", "local"])
@pytest.mark.parametrize("by", ["batch", "message"])
def test_a_read_cancelled_anywhere_goes_on_with_the_next_message(by: str, *, local: bool) -> None:
    async def main(world: World) -> None:
        await world.run(partial(fill, world))
        for step in range(1, MOST_STEPS):
            before = world.standing()
            reader = world.client.reader(world.first, follow=False)
            got: list[bytes] = []

            async def read(reader: Reader = reader, got: list[bytes] = got) -> None:
                if by == "batch":
                    async for batch in reader.batches():
                        got.extend(batch.payloads)
                else:
                    async for message in reader:
                        got += [message.payload]  # at once, since it may be cut off

            cut_off = await world.run(read, step)
            await world.run(read, step)
            await world.run(read)
            assert [payload.decode() for payload in got] == written, f"step {step}"
            await world.settled(step, before)
            if not cut_off:
                break

    written: list[str] = []

    async def fill(world: World) -> None:
        for number in range(3):
            await append_many(world, f"{number}")
            await txn(world, f"{number}")
        written.extend(await world.payloads())

    play(main, local=local)
