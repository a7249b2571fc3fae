"""The coordinator as a whole, over gRPC on loopback and a backend in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import pytest

from walplane.backends.memory import MemoryBackend
from walplane.coord.coord import SERVICE_NAMES, Coord
from walplane.coord.settings import CoordSettings
from walplane.message.ids import MessageID
from walplane.rpc.errors import MAX_TEXT_BYTES, ErrorCode, WalError
from walplane.rpc.v1 import coord_pb2, coord_pb2_grpc, log_pb2
from walplane.runtime import Runtime
from walplane.wal.ports import AppendResult, StaleTerm

SETTINGS = CoordSettings(retry_s=(0.001, 0.01), call_timeout_s=2.0)
PATIENCE = 10.0
STATES = coord_pb2.ChannelState


@dataclass
class Node:
    """Opens a PChannel as the open protocol does: reads the term, takes a fresh tick."""

    coord: Coord
    node_id: str = "node"
    address: str = "127.0.0.1:7650"
    held: dict[str, int] = field(default_factory=dict)
    ticks: list[int] = field(default_factory=list)

    async def assign(self, pchannel: str, term: int) -> None:
        assert await self.coord.channels.current_term(pchannel) == term
        self.ticks.append(await self.coord.oracle.fresh(pchannel, term))
        self.held[pchannel] = term

    async def release(self, pchannel: str, term: int) -> None:
        if self.held.get(pchannel) == term:
            del self.held[pchannel]

    async def append(self, entry: log_pb2.Entry) -> AppendResult:
        tick = (await self.coord.oracle.batch(self.held, 1)).first
        return AppendResult(MessageID("memory", (tick,)), tick, 1, None, 1, 1)


@asynccontextmanager
async def cluster(
    backend: MemoryBackend, pchannel_count: int | None = None
) -> AsyncIterator[tuple[Coord, Node, coord_pb2_grpc.StreamingCoordAsyncStub, grpc.aio.Channel]]:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    async with (
        asyncio.timeout(3 * PATIENCE),
        Coord.open(
            backend, "p", Runtime.system(), pchannel_count=pchannel_count, settings=SETTINGS
        ) as coord,
    ):
        node = Node(coord)
        coord.add_to(server)
        await server.start()
        try:
            async with (
                coord.serving(node, node),
                grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
            ):
                yield coord, node, coord_pb2_grpc.StreamingCoordStub(channel), channel
        finally:
            await server.stop(None)


async def failure(call: Awaitable[object]) -> WalError:
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return WalError.from_rpc(caught.value, "coord")


async def snapshot_with(
    stream: AsyncIterator[coord_pb2.DiscoverResponse], term: int
) -> coord_pb2.DiscoverResponse:
    """The first snapshot in which every PChannel is ASSIGNED, the first one under `term`."""
    async for snapshot in stream:
        states = {each.state for each in snapshot.assignments}
        if states == {STATES.CHANNEL_STATE_ASSIGNED} and snapshot.assignments[0].term == term:
            return snapshot
    raise AssertionError("discovery ended")


async def test_a_cluster_comes_up_and_comes_up_again_above_all_it_gave() -> None:
    backend = MemoryBackend()
    last = 0
    for generation in (1, 2, 3):
        async with cluster(backend, 4) as (coord, node, stub, _):
            stream = stub.Discover(aiter_of())
            snapshot = await snapshot_with(aiter(stream), generation)
            assert snapshot.version_global == coord.term == generation
            assert snapshot.cchannel == "p_0_vcchan"
            assert [each.pchannel for each in snapshot.assignments] == ["p_0", "p_1", "p_2", "p_3"]
            assert {each.address for each in snapshot.assignments} == {node.address}
            assert min(node.ticks) > last
            last = max(node.ticks)
        assert node.held == {}


async def aiter_of(
    *requests: coord_pb2.DiscoverRequest,
) -> AsyncIterator[coord_pb2.DiscoverRequest]:
    for request in requests:
        yield request
    await asyncio.Event().wait()


async def test_collections_are_made_listed_described_and_dropped() -> None:
    backend = MemoryBackend()
    async with cluster(backend, 4) as (_, _, stub, _):
        request = coord_pb2.CreateCollectionRequest(name="flights", shards=2)
        made = await stub.CreateCollection(request)
        assert (made.name, len(made.vchannels), made.schema_version) == ("flights", 2, 1)
        assert made.created_tick > 0
        again = await failure(stub.CreateCollection(request))
        assert again.code is ErrorCode.INVALID_ARGUMENT
        assert "already exists" in again.message
        stream = aiter(stub.Discover(aiter_of()))
        assert sum(each.vchannels for each in (await anext(stream)).assignments) == 2
    async with cluster(backend) as (_, _, stub, _):
        listed = await stub.ListCollections(coord_pb2.ListCollectionsRequest())
        assert list(listed.collections) == [made]
        describe = coord_pb2.DescribeCollectionRequest(name="flights")
        assert await stub.DescribeCollection(describe) == made
        dropped = await stub.DropCollection(coord_pb2.DropCollectionRequest(name="flights"))
        assert dropped.collection_id == made.collection_id
        unknown = await failure(stub.DescribeCollection(describe))
        assert unknown.code is ErrorCode.INVALID_ARGUMENT
        assert "'flights'" in unknown.message
        gone = await failure(stub.DropCollection(coord_pb2.DropCollectionRequest(name="flights")))
        assert "walplane collection list" in gone.message


async def test_a_client_that_reports_a_fenced_channel_sees_it_assigned_anew() -> None:
    async with cluster(MemoryBackend(), 2) as (_, _, stub, _):
        reports: asyncio.Queue[coord_pb2.DiscoverRequest] = asyncio.Queue()

        async def requests() -> AsyncIterator[coord_pb2.DiscoverRequest]:
            while True:
                yield await reports.get()

        stream = aiter(stub.Discover(requests()))
        before = await snapshot_with(stream, 1)
        error = WalError(ErrorCode.CHANNEL_FENCED, "p_0 was taken").to_proto()
        report = coord_pb2.AssignmentError(pchannel="p_0", term=1, error=error)
        await reports.put(coord_pb2.DiscoverRequest(errors=[report]))
        after = await snapshot_with(stream, 2)
        assert after.version_local > before.version_local
        assert [each.term for each in after.assignments] == [2, 1]


async def test_ticks_are_given_over_grpc_with_typed_errors() -> None:
    async with cluster(MemoryBackend(), 2) as (coord, _, stub, channel):
        await snapshot_with(aiter(stub.Discover(aiter_of())), 1)
        oracle = coord_pb2_grpc.TimestampOracleStub(channel)
        fresh = await oracle.FreshTick(coord_pb2.FreshTickRequest(pchannel="p_0", term=3))
        batch = await oracle.TickBatch(coord_pb2.TickBatchRequest(terms={"p_0": 2}, count=10))
        assert batch.first > fresh.tick
        assert (batch.count, list(batch.lost)) == (10, ["p_0"])
        request = coord_pb2.FreshTickRequest(pchannel="p_0", term=2)
        assert (await failure(oracle.FreshTick(request))).code is ErrorCode.UNMATCHED_CHANNEL_TERM
        wrong = coord_pb2.TickBatchRequest(terms={}, count=0)
        assert (await failure(oracle.TickBatch(wrong))).code is ErrorCode.INVALID_ARGUMENT
        assert SERVICE_NAMES == ("walplane.v1.StreamingCoord", "walplane.v1.TimestampOracle")
        assert not coord.stopped.done()


async def test_a_second_coordinator_stops_the_first_and_ends_its_streams() -> None:
    backend = MemoryBackend()
    async with cluster(backend, 2) as (first, node, stub, _):
        stream = aiter(stub.Discover(aiter_of()))
        await snapshot_with(stream, 1)
        async with cluster(backend, 2) as (second, other, _, _):
            assert second.term == first.term + 1
            with pytest.raises(StaleTerm):
                await first.oracle.fresh("p_0", 9)
            assert isinstance(await first.stopped, StaleTerm)
            ended = await failure(_drained(stream))
            assert ended.code is ErrorCode.UNMATCHED_CHANNEL_TERM
            await second.oracle.fresh("p_0", 9)
            assert max(node.ticks) < min(other.ticks)


async def _drained(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        pass


async def test_streams_that_clients_abandon_leave_nothing_behind() -> None:
    def handlers() -> int:
        return sum(task.get_name() == "discover-reports" for task in asyncio.all_tasks())

    async with cluster(MemoryBackend(), 2) as (coord, _, stub, _):
        calls = [stub.Discover(aiter_of()) for _ in range(20)]
        await asyncio.gather(*(anext(aiter(call)) for call in calls))
        assert handlers() == 20
        for call in calls:
            call.cancel()
        async with asyncio.timeout(PATIENCE):
            while handlers():  # noqa: ASYNC110 - gRPC tells nobody
                await asyncio.sleep(0.01)
        assert not coord.stopped.done()


async def test_the_shutdown_ends_streams_and_drains_the_node() -> None:
    async with cluster(MemoryBackend(), 2) as (_, node, stub, _):
        stream = aiter(stub.Discover(aiter_of()))
        await snapshot_with(stream, 1)
        assert node.held == {"p_0": 1, "p_1": 1}
    assert node.held == {}


async def test_a_smaller_number_of_pchannels_is_refused_before_anything_is_served() -> None:
    backend = MemoryBackend()
    async with cluster(backend, 4):
        pass
    with pytest.raises(WalError, match="start it with 4 or more, not 2"):
        async with cluster(backend, 2):
            pass
    async with cluster(backend) as (coord, _, _, _):
        assert len(coord.pchannels) == 4


@pytest.mark.parametrize("letter", ["x", "é", "🦋"])
async def test_an_error_with_a_long_text_arrives_with_its_code_and_the_way_out(letter: str) -> None:
    async with cluster(MemoryBackend()) as (_, _, stub, _):
        for length in (300, 1000, 100_000):
            request = coord_pb2.DescribeCollectionRequest(name=letter * length)
            told = await failure(stub.DescribeCollection(request))
            assert told.code is ErrorCode.INVALID_ARGUMENT
            assert told.message.startswith("there is no collection '" + letter)
            assert told.message.endswith("`walplane collection list` shows what there is")
            assert len(told.message.encode()) <= MAX_TEXT_BYTES
