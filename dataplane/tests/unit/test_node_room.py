"""Room for appends in flight, of a stream, its PChannel and the node, and for answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from walplane.backends.memory import MemoryBackend
from walplane.node import NodeConfig, StreamingNode
from walplane.node.produce import MOST_UNTAKEN, ProduceStream
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.flow import ByteBudget
from walplane.rpc.v1 import streaming_pb2
from walplane.runtime import Runtime
from walplane.testkit.faulty import Fault, FaultyBackend
from walplane.testkit.outside import TestAuthority, TestOracle
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import create, entry

HUNG, OTHER = "test_0", "test_1"
CONFIG = NodeConfig(node_append_bytes=8000, stream_append_bytes=8000, drain_timeout_s=0.1)


@pytest.fixture
async def backend() -> AsyncIterator[FaultyBackend]:
    made = FaultyBackend(MemoryBackend())
    yield made
    await made.close()


@pytest.fixture
async def node(backend: FaultyBackend) -> AsyncIterator[StreamingNode]:
    authority = TestAuthority()
    made = StreamingNode("n1", backend, TestOracle(), authority, Runtime.system(), CONFIG)
    for pchannel in (HUNG, OTHER):
        authority.terms[pchannel] = 1
        await made.assign(pchannel, 1)
        await create(made.wal(pchannel), f"{pchannel}_1v0")
    yield made
    backend.faults = lambda _: Fault.NONE
    await made.close()


class Stream:
    """A Produce stream of one client."""

    def __init__(self, node: StreamingNode, pchannel: str) -> None:
        self.answers: dict[int, streaming_pb2.AppendResponse] = {}
        self.read = 0
        self.takes = asyncio.Event()
        self.takes.set()
        self._vchannel = f"{pchannel}_1v0"
        self._requests: asyncio.Queue[streaming_pb2.ProduceRequest] = asyncio.Queue()
        budgets = node.append_budgets(pchannel)
        stream = ProduceStream(node.edge(pchannel), budgets, node.config, self._write)
        self.budgets = stream.budgets
        self.run = asyncio.create_task(stream.run(self._sent()))

    def send(self, request_id: int, *, wait_ms: int = 0, vchannel: str = "") -> None:
        made = entry(b"x" * 1000, vchannel=vchannel or self._vchannel)
        append = streaming_pb2.AppendRequest(request_id=request_id, entry=made, wait_ms=wait_ms)
        self._requests.put_nowait(streaming_pb2.ProduceRequest(append=append))

    async def stop(self) -> None:
        self.run.cancel()
        await asyncio.wait({self.run})

    async def _sent(self) -> AsyncIterator[streaming_pb2.ProduceRequest]:
        while True:
            request = await self._requests.get()
            self.read += 1
            yield request

    async def _write(self, response: streaming_pb2.ProduceResponse) -> None:
        await self.takes.wait()
        self.answers |= {each.request_id: each for each in response.appends}


async def test_one_that_hangs_leaves_room_for_the_others(
    node: StreamingNode, backend: FaultyBackend
) -> None:
    backend.faults = lambda topic: Fault.LOSE_ACK if topic == HUNG else Fault.NONE
    stuck = [Stream(node, HUNG) for _ in range(3)]
    for stream in stuck:
        for request_id in range(10):
            stream.send(request_id)
    await until(lambda: all(stream.read for stream in stuck))
    other = Stream(node, OTHER)
    for request_id in range(10):
        other.send(request_id)
    await until(lambda: len(other.answers) == 10)
    assert not any(stream.answers for stream in stuck)
    assert 0 < node.append_budget.used <= CONFIG.channel_append_bytes
    for stream in [*stuck, other]:
        await stream.stop()


async def test_streams_that_wait_for_room_are_counted(
    node: StreamingNode, backend: FaultyBackend
) -> None:
    """As much as a PChannel may have in flight is far from what its node may have."""

    def held_back() -> int:
        return node.meters.of(HUNG).held_back

    backend.faults = lambda topic: Fault.LOSE_ACK if topic == HUNG else Fault.NONE
    streams = [Stream(node, HUNG) for _ in range(3)]
    for stream in streams:
        for request_id in range(10):
            stream.send(request_id)
    await until(lambda: held_back() == 3)
    await streams[0].stop()
    assert held_back() == 2
    backend.faults = lambda _: Fault.NONE
    node.wal(HUNG).distrust(WalError(ErrorCode.OUTCOME_UNKNOWN, "as the watchdog would"))
    await until(lambda: held_back() == 0)
    for stream in streams[1:]:
        await stream.stop()


@pytest.mark.parametrize("full", range(3))
@pytest.mark.parametrize("cancelled", [False, True])
async def test_who_waits_for_any_of_the_three_leaves_no_trace(
    node: StreamingNode, full: int, cancelled: bool
) -> None:
    stream = Stream(node, OTHER)
    await stream.budgets[full].acquire(100_000)
    stream.send(1, wait_ms=0 if cancelled else 1)
    if cancelled:
        await until(lambda: stream.read == 1)
        await asyncio.sleep(0)
        await stream.stop()
    else:
        await until(lambda: 1 in stream.answers)
        refused = WalError.from_proto(stream.answers[1].error)
        assert refused.code is ErrorCode.RESOURCE_ACQUIRED
        assert "nothing is written" in refused.message
        stream.budgets[full].release(100_000)
        stream.send(2)
        await until(lambda: 2 in stream.answers)
        assert stream.answers[2].HasField("result")
        await stream.budgets[full].acquire(100_000)
        await stream.stop()
    assert [budget.used for budget in stream.budgets] == [
        100_000 if place == full else 0 for place in range(3)
    ]


async def test_a_client_that_takes_no_answers_is_not_read_on(node: StreamingNode) -> None:
    stream = Stream(node, OTHER)
    stream.takes.clear()
    sent = 3 * MOST_UNTAKEN
    for request_id in range(sent):
        stream.send(request_id, vchannel=f"{OTHER}_9v0")  # refused: nothing is in flight
    await until(lambda: stream.read > MOST_UNTAKEN)
    read = stream.read
    for _ in range(1000):
        await asyncio.sleep(0)
    assert stream.read == read < 2 * MOST_UNTAKEN
    stream.takes.set()
    await until(lambda: len(stream.answers) == sent)
    stream.takes.clear()
    for request_id in range(sent):
        stream.send(request_id, vchannel=f"{OTHER}_9v0")
    await until(lambda: stream.read > sent + MOST_UNTAKEN)
    await stream.stop()


def test_a_log_has_half_of_its_nodes_room(node: StreamingNode) -> None:
    assert NodeConfig().channel_append_bytes == 64 << 20
    one, again, other = map(node.append_budgets, (HUNG, HUNG, OTHER))
    assert one[0] is again[0] is not other[0]
    assert {id(each[1]) for each in (one, again, other)} == {id(node.append_budget)}
    assert isinstance(one[0], ByteBudget)
