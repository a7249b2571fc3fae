"""Memory of a node: thousands of readers that take nothing, writers faster than the backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from walplane.backends.registry import open_backend
from walplane.client import ClientConfig, StreamingClient
from walplane.message.builder import insert
from walplane.node import NodeConfig
from walplane.node.config import TURN_BYTES
from walplane.node.consume import ConsumeStream
from walplane.node.turns import ReadTurns
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import streaming_pb2
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.reading import payloads
from walplane.testkit.waiting import until
from walplane.wal.config import WALConfig

READERS = 1500
TURNS = 64
PAYLOAD = 20_000
CONFIG = NodeConfig(
    wal=WALConfig(write_ahead_bytes=1 << 20, idle_tick_s=0.02),
    node_append_bytes=1 << 20,
    stream_append_bytes=1 << 20,
    read_bytes=TURNS * TURN_BYTES,
    reader_patience_s=0.2,
    write_ahead_bytes=1 << 20,
)


@pytest.fixture
async def backend() -> AsyncIterator[FaultyBackend]:
    made = FaultyBackend(await open_backend("memory:"))
    yield made
    await made.close()


@pytest.fixture
async def cluster(backend: FaultyBackend) -> AsyncIterator[MiniCluster]:
    async with MiniCluster(backend, config=CONFIG) as made:
        yield made


class StuckReader:
    """A Consume stream whose client takes the first so many responses and nothing more."""

    def __init__(self, cluster: MiniCluster, vchannel: str, takes: int) -> None:
        self._takes = takes
        self.held = 0
        node = cluster.members["n1"].node
        start = streaming_pb2.StartConsume(
            pchannel="test_0", vchannel=vchannel, follow=True, credit_bytes=1 << 30
        )
        edge = node.edge("test_0")
        stream = ConsumeStream(edge, start, node.config, self._write, node.read_turns)
        self.run = asyncio.create_task(stream.run(self._requests()))

    async def _requests(self) -> AsyncIterator[streaming_pb2.ConsumeRequest]:
        await asyncio.get_running_loop().create_future()
        yield streaming_pb2.ConsumeRequest()

    async def _write(self, data: bytes) -> None:
        if self._takes:
            self._takes -= 1
            return
        self.held = len(data)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.held = 0


async def test_readers_that_take_nothing_cost_no_memory_beyond_the_budget_and_slow_nobody(
    cluster: MiniCluster,
) -> None:
    vchannel = await cluster.create_vchannel("test_0", collection_id=1)
    node = cluster.members["n1"].node
    most = 0

    def measure() -> None:
        nonlocal most
        most = max(most, sum(reader.held for reader in readers))
        assert node.read_turns.held <= TURNS
        assert node.write_ahead.used <= 1 << 20

    async with StreamingClient.connect(cluster.address) as wal:
        await wal.append_many(insert(vchannel, b"x" * PAYLOAD) for _ in range(100))
        readers = [StuckReader(cluster, vchannel, takes=n % 3) for n in range(READERS)]
        for number in range(100):
            await wal.append(insert(vchannel, b"%d" % number * 5000), timeout=30)
            measure()
        async with asyncio.timeout(120):
            assert len(await payloads(wal, vchannel)) == 200, "a good reader gets all, in its turn"
        measure()
        assert most <= TURNS * TURN_BYTES
        lost = [reader.run.exception() for reader in readers if reader.run.done()]
        assert lost, "those that kept others waiting had to go"
        for error in lost:
            assert isinstance(error, WalError)
            assert (error.code, error.retry_after_ms) == (ErrorCode.RESOURCE_ACQUIRED, 1000)
        for reader in readers:
            reader.run.cancel()
        await asyncio.wait([reader.run for reader in readers])
        assert node.read_turns.held == 0


async def test_idle_readers_hold_no_turn_and_hear_of_what_comes(cluster: MiniCluster) -> None:
    vchannel = await cluster.create_vchannel("test_0", collection_id=1)
    node = cluster.members["n1"].node
    async with StreamingClient.connect(cluster.address) as wal, AsyncExitStack() as taken:
        got: list[bytes] = []

        async def tail() -> None:
            reader = wal.read(vchannel, start="latest")
            got.append((await anext(reader)).payload)

        tails = [asyncio.create_task(tail()) for _ in range(50)]
        taken.callback(lambda: [each.cancel() for each in tails])
        log = node.wal("test_0")
        await until(lambda: len(log.meter.readers) == 50)
        await until(lambda: all(each.tailing for each in log.meter.readers))
        await wal.append(insert(vchannel, b"a"))
        await until(lambda: len(got) == 50)
        await until(lambda: node.read_turns.held == 0)


async def test_a_writer_faster_than_the_backend_waits_and_loses_nothing(
    cluster: MiniCluster, backend: FaultyBackend
) -> None:
    vchannel = await cluster.create_vchannel("test_0", collection_id=1)
    node = cluster.members["n1"].node
    used: list[int] = []
    turn = asyncio.Lock()

    async def slow_ack() -> None:
        async with turn:  # one frame after the other, and each takes its time
            await asyncio.sleep(0.01)
        used.append(node.append_budget.used)
        assert node.append_budget.used <= CONFIG.channel_append_bytes
        assert node.write_ahead.used <= 1 << 20

    backend.before_ack = slow_ack
    config = ClientConfig(pending_bytes=8 << 20, entry_bytes=100_000)
    async with StreamingClient.connect(cluster.address, config=config) as wal:
        written = [b"%06d" % n + b"x" * PAYLOAD for n in range(600)]
        results = await asyncio.gather(*(wal.append(insert(vchannel, p)) for p in written))
        backend.before_ack = None
        assert [r.time_tick for r in results] == sorted({r.time_tick for r in results})
        assert await payloads(wal, vchannel) == written
    assert max(used) > 1 << 18, "the budget was what bounded it"


async def test_a_turn_goes_on_when_its_waiter_is_cancelled() -> None:
    turns = ReadTurns(1, 10.0)
    loop = asyncio.get_running_loop()
    first = loop.create_future()
    entered: list[int] = []

    async def read(number: int) -> None:
        async with turns.turn(loop.create_future()):
            entered.append(number)

    async with turns.turn(first):
        waiting = [asyncio.create_task(read(number)) for number in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
    waiting[1].cancel()  # in the moment in which it is its turn
    await asyncio.wait(waiting)
    assert entered == [2]
    assert turns.held == 0
    assert not first.done()


async def test_those_who_wait_for_a_turn_cost_nothing_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    take_back = ReadTurns._take_back

    def counted(turns: ReadTurns) -> None:
        nonlocal looks
        looks += 1
        take_back(turns)

    monkeypatch.setattr(ReadTurns, "_take_back", counted)
    turns, loop = ReadTurns(2, 0.05), asyncio.get_running_loop()

    async def read() -> None:
        lost: asyncio.Future[WalError] = loop.create_future()
        async with turns.turn(lost):
            await lost  # takes nothing until it is turned away

    await asyncio.wait([asyncio.create_task(read()) for _ in range(20)], timeout=0.4)
    assert 0 < looks < 20, "one timer for all, not one for each who waits"
    assert turns.held == 2
    lost_at_last = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in lost_at_last:
        task.cancel()
    await asyncio.gather(*lost_at_last, return_exceptions=True)
    assert turns.held == 0
