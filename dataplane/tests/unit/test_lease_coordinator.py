"""The coordinator's and the node's other half in Kubernetes: what they read, say and refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import grpc
import pytest

from walplane.assignment.states import ChannelState
from walplane.backends.memory import MemoryBackend
from walplane.channel import cchannel_name, pchannel_of
from walplane.client import StreamingClient
from walplane.coord.coord import SERVICE_NAMES, Coord
from walplane.coord.lease_view import LeaseView
from walplane.coord.node_appender import NodeAppender
from walplane.coord.oracle import Oracle as CoordOracle
from walplane.coord.oracle import OracleState
from walplane.coord.service import OracleService
from walplane.coord.settings import CoordSettings
from walplane.coord.standby import STANDBY_OPTIONS, add_standby
from walplane.lease import contract
from walplane.lease.contract import Body
from walplane.lease.report import BACKEND_UNREACHABLE, CoordinatorAwayError, reason_of
from walplane.message.builder import insert
from walplane.node.remote_oracle import CALL_TIMEOUT_S, RemoteOracle
from walplane.node.server import RpcServer, start_server
from walplane.node.service import SERVICE_NAME
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import coord_pb2_grpc, log_pb2, streaming_pb2
from walplane.runtime import Runtime
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.outside import TestAuthority, TestNode, TestOracle
from walplane.testkit.waiting import until
from walplane.wal.ports import TickBatch, TimestampOracle
from walplane.wal.wal import WAL

_Unary = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]

NODE0 = "demo-node-0_u0_aaaaaaaa"
AFTER_NODE0 = "demo-node-0_u0_bbbbbbbb"


def pchannel_lease(number: int, term: int, holder: str, *, ready: int = 0) -> Body:
    annotations = {contract.CHANNEL: f"demo_{number}", contract.TERM: str(term)}
    if ready:
        annotations[contract.READY_TERM] = str(ready)
    return {
        "metadata": {
            "name": f"demo-pch-{number}",
            "labels": {contract.KIND_LABEL: contract.PCHANNEL},
            "annotations": annotations,
        },
        "spec": {"holderIdentity": holder},
    }


def session_lease(holder: str, address: str) -> Body:
    return {
        "metadata": {
            "name": contract.pod_of(holder),
            "labels": {contract.KIND_LABEL: contract.SESSION},
            "annotations": {contract.REPORT: json.dumps({"address": address})},
        },
        "spec": {"holderIdentity": holder},
    }


class View:
    """A view, and how often it told of something."""

    def __init__(self) -> None:
        self.changes = 0
        self.errors = 0
        self.view = LeaseView("demo", self.changed, self.reported)

    def changed(self) -> None:
        self.changes += 1

    def reported(self) -> None:
        self.errors += 1

    def show(self, *bodies: Body) -> None:
        for body in bodies:
            self.view.observe(contract.name_of(body), body)

    def state(self, pchannel: str = "demo_0") -> tuple[ChannelState, int, str, str]:
        channel, address = self.view.place(pchannel)
        return channel.state, channel.term, channel.node_id, address


@pytest.fixture
def seen() -> View:
    return View()


def test_a_pchannel_goes_from_nothing_to_assigned(seen: View) -> None:
    assert seen.state() == (ChannelState.UNINITIALIZED, 0, "", "")
    seen.show(session_lease(NODE0, "10.0.0.1:7651"), pchannel_lease(0, 1, NODE0))
    assert seen.state() == (ChannelState.ASSIGNING, 1, "demo-node-0", "")
    seen.show(pchannel_lease(0, 1, NODE0, ready=1))
    assert seen.state() == (ChannelState.ASSIGNED, 1, "demo-node-0", "10.0.0.1:7651")
    seen.show(pchannel_lease(0, 1, ""))
    assert seen.state() == (ChannelState.UNAVAILABLE, 1, "", "")


def test_a_holder_whose_session_is_over_serves_nothing(seen: View) -> None:
    seen.show(session_lease(NODE0, "10.0.0.1:7651"), pchannel_lease(0, 1, NODE0, ready=1))
    assert not seen.view.ended(NODE0)
    seen.show(session_lease(AFTER_NODE0, "10.0.0.1:7651"))
    assert seen.view.ended(NODE0)
    assert seen.state()[0] is ChannelState.UNAVAILABLE
    seen.show(session_lease(NODE0, "10.0.0.2:7651"))
    assert seen.state()[3] == "10.0.0.2:7651"
    seen.view.observe("demo-node-0", None)
    assert seen.state()[0] is ChannelState.UNAVAILABLE


def test_lower_terms_missing_leases_and_nonsense_change_nothing(seen: View) -> None:
    seen.show(session_lease(NODE0, "10.0.0.1:7651"), pchannel_lease(0, 5, NODE0, ready=5))
    served = seen.state()
    seen.show(pchannel_lease(0, 4, "other_u_c"))
    assert seen.state() == served
    seen.view.observe("demo-pch-0", None)
    assert seen.state() == served
    broken = pchannel_lease(0, 6, NODE0)
    broken["metadata"]["annotations"][contract.TERM] = "six"
    seen.show(broken)
    assert seen.state() == served


def test_renewals_alone_are_no_news(seen: View) -> None:
    seen.show(session_lease(NODE0, "10.0.0.1:7651"), pchannel_lease(0, 1, NODE0, ready=1))
    before = seen.changes
    seen.show(session_lease(NODE0, "10.0.0.1:7651"), pchannel_lease(0, 1, NODE0, ready=1))
    assert seen.changes == before


def test_what_clients_report_is_kept_for_the_present_grant_only(seen: View) -> None:
    seen.show(session_lease(NODE0, "10.0.0.1:7651"), pchannel_lease(0, 2, NODE0, ready=2))
    fenced = WalError(ErrorCode.CHANNEL_FENCED, "fenced")
    assert not seen.view.report_error("demo_0", 1, fenced), "an earlier grant"
    assert not seen.view.report_error("demo_1", 1, fenced), "unknown"
    broken = WalError(ErrorCode.ON_SHUTDOWN, "broken connection")
    assert not seen.view.report_error("demo_0", 2, broken), "what the node did not say"
    assert seen.view.report_error("demo_0", 2, fenced)
    assert seen.view.report_error("demo_0", 2, fenced)
    assert seen.errors == 1, "said once"
    assert (seen.view.errors["demo_0"].term, seen.view.errors["demo_0"].code) == (
        2,
        "CHANNEL_FENCED",
    )
    seen.show(pchannel_lease(0, 3, NODE0))
    assert seen.view.errors == {}
    assert seen.errors == 2


def test_pchannels_are_counted_without_a_gap(seen: View) -> None:
    for number in (0, 1, 3):
        seen.show(pchannel_lease(number, 1, NODE0))
    assert seen.view.count() == 2
    seen.show(pchannel_lease(2, 1, NODE0))
    assert seen.view.count() == 4


# --- a coordinator over Leases -------------------------------------------------------------------


async def test_a_coordinator_publishes_leases_makes_collections_and_grows() -> None:
    seen = View()
    backend = MemoryBackend()
    settings = CoordSettings(retry_s=(0.01, 0.05))
    async with (
        MiniCluster(backend, pchannels=2, nodes=("n1",)) as nodes,
        Coord.open(
            MemoryBackend(),
            "test",
            Runtime.system(),
            pchannel_count=2,
            settings=settings,
            source=(view := LeaseView("test", lambda: None, seen.reported)),
        ) as coord,
    ):
        appender = NodeAppender(view)
        server = await start_server("127.0.0.1:0", {SERVICE_NAMES[0]: coord.add_to})
        address = nodes.members["n1"].server.address
        holder = "n1_u_a"
        for body in (
            session_lease(holder, address),
            *(_test_lease(number, holder) for number in range(2)),
        ):
            view.observe(contract.name_of(body), body)
        coord.discovery.changed()
        async with coord.changing(appender), StreamingClient.connect(server.address) as wal:
            info = await wal.create_collection("flights", 2)
            for vchannel in info.vchannels:
                await wal.append(insert(vchannel, b"row"))
            assert [each.name for each in await wal.list_collections()] == ["flights"]
            await coord.grow(3)
            await until(lambda: "test_2" in wal.topology().assignments)
            assert not wal.topology().assignments["test_2"].served
            assert await coord.oracle.fresh("test_2", 1) > 0
            async with asyncio.timeout(10):
                near = await wal.create_collection("near", 1)
            assert pchannel_of(near.vchannels[0]) == "test_0", "nobody serves the emptier one"
            await coord.grow(2)
            assert len(coord.pchannels) == 3, "never fewer"
        await appender.close()
        await server.stop(0)


async def test_a_coordinator_that_was_told_fewer_pchannels_than_there_are_by_now_leads() -> None:
    backend, view = MemoryBackend(), LeaseView("test", lambda: None, lambda: None)

    def started(count: int) -> AbstractAsyncContextManager[Coord]:
        runtime = Runtime.system()
        return Coord.open(backend, "test", runtime, pchannel_count=count, source=view)

    async with started(2) as coord:
        await coord.grow(3)
    for told, there in ((2, 3), (4, 4), (2, 4)):
        async with started(told) as coord:
            assert len(coord.pchannels) == there
    with pytest.raises(WalError, match="4 or more, not 2"):
        async with Coord.open(backend, "test", Runtime.system(), pchannel_count=2):
            pass
    await backend.close()


def _test_lease(number: int, holder: str) -> Body:
    body = pchannel_lease(number, 1, holder, ready=1)
    body["metadata"]["annotations"][contract.CHANNEL] = f"test_{number}"
    return body


async def test_an_append_that_is_refused_says_why() -> None:
    view = LeaseView("test", lambda: None, lambda: None)
    appender = NodeAppender(view)
    entry = log_pb2.Entry()
    entry.envelope.vchannel = cchannel_name("test_0")
    with pytest.raises(WalError, match="nobody serves test_0"):
        await appender.append(entry)
    async with MiniCluster(MemoryBackend(), nodes=("n1",)) as nodes:
        for body in (
            session_lease("n1_u_a", nodes.members["n1"].server.address),
            _test_lease(0, "n1_u_a"),
        ):
            view.observe(contract.name_of(body), body)
        with pytest.raises(WalError) as refused:
            await appender.append(entry)
        assert refused.value.code is ErrorCode.INVALID_ARGUMENT
        stale = _test_lease(0, "n1_u_a")
        stale["metadata"]["annotations"] |= {contract.TERM: "9", contract.READY_TERM: "9"}
        view.observe("demo-pch-0", stale)
        with pytest.raises(WalError) as unmatched:
            await appender.append(entry)
        assert unmatched.value.code is ErrorCode.UNMATCHED_CHANNEL_TERM
    await appender.close()


async def test_nothing_is_written_into_a_call_before_it_is_opened() -> None:
    """gRPC forgets why a call was refused when one writes into it, so one waits for the answer."""
    too_early: list[object] = []

    async def refuse(
        requests: AsyncIterator[streaming_pb2.ProduceRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        await anext(requests)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                too_early.append(await anext(requests))
        stale = WalError(ErrorCode.UNMATCHED_CHANNEL_TERM, "an older term")
        await context.abort_with_status(stale.to_status())

    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        refuse, request_deserializer=streaming_pb2.ProduceRequest.FromString
    )
    server = grpc.aio.server()
    server.add_registered_method_handlers(SERVICE_NAME, {"Produce": handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    view = LeaseView("test", lambda: None, lambda: None)
    for body in (session_lease("n1_u_a", f"127.0.0.1:{port}"), _test_lease(0, "n1_u_a")):
        view.observe(contract.name_of(body), body)
    appender = NodeAppender(view)
    entry = log_pb2.Entry()
    entry.envelope.vchannel = cchannel_name("test_0")
    try:
        with pytest.raises(WalError) as refused:
            await appender.append(entry)
        assert refused.value.code is ErrorCode.UNMATCHED_CHANNEL_TERM
        assert not too_early
    finally:
        await appender.close()
        await server.stop(0)


# --- ticks from another process ------------------------------------------------------------------


class Oracle:
    """Answers as the test wants."""

    def __init__(self) -> None:
        self.failure: WalError | None = None
        self.delay = 0.0
        self.calls = 0

    async def batch(self, terms: Mapping[str, int], size: int) -> TickBatch:
        self.calls += 1
        await asyncio.sleep(self.delay)
        if self.failure is not None:
            raise self.failure
        return TickBatch(100, size, frozenset(terms), 5)

    async def fresh(self, pchannel: str, term: int) -> int:
        return (await self.batch({pchannel: term}, 1)).first


@asynccontextmanager
async def oracle_server(
    oracle: TimestampOracle, listen: str = "127.0.0.1:0"
) -> AsyncIterator[RpcServer]:
    server = await start_server(listen, {SERVICE_NAMES[1]: OracleService(oracle).add_to})
    try:
        yield server
    finally:
        await server.stop(0)


@asynccontextmanager
async def remote(address: str, patience_s: float = 0.0) -> AsyncIterator[RemoteOracle]:
    oracle = RemoteOracle(address, 0.5, patience_s)
    try:
        yield oracle
    finally:
        await oracle.close()


async def test_ticks_come_from_the_coordinator() -> None:
    async with oracle_server(Oracle()) as server, remote(server.address) as oracle:
        batch = await oracle.batch({"p_0": 3}, 7)
        assert batch == TickBatch(100, 7, frozenset({"p_0"}), 5)
        assert await oracle.fresh("p_0", 3) == 100


async def test_what_the_oracle_refuses_keeps_its_code() -> None:
    answers = Oracle()
    async with oracle_server(answers) as server, remote(server.address, 5.0) as oracle:
        answers.failure = WalError(ErrorCode.UNMATCHED_CHANNEL_TERM, "a higher term")
        with pytest.raises(WalError) as refused:
            await oracle.fresh("p_0", 3)
        assert refused.value.code is ErrorCode.UNMATCHED_CHANNEL_TERM
        assert answers.calls == 1, "a refusal is not asked for again"


async def test_a_coordinator_that_is_away_hangs_or_stands_by_is_away() -> None:
    answers = Oracle()
    async with oracle_server(answers) as server, remote(server.address) as oracle:
        answers.delay = 5.0
        with pytest.raises(CoordinatorAwayError):
            await oracle.batch({}, 1)
        await server.stop(0)
        with pytest.raises(CoordinatorAwayError, match="cannot be reached"):
            await oracle.batch({}, 1)


async def test_a_coordinator_that_cannot_write_answers_so_and_is_not_called_away() -> None:
    answers = Oracle()
    answers.failure = WalError(ErrorCode.INNER, "its topic is away")
    async with oracle_server(answers) as server:
        async with remote(server.address) as oracle:
            with pytest.raises(WalError, match=r"coordinator at .* its topic is away") as told:
                await oracle.fresh("p_0", 1)
            assert reason_of(told.value, "") == BACKEND_UNREACHABLE
        async with remote(server.address, 10.0) as patient:
            waiting = asyncio.create_task(patient.fresh("p_0", 1))
            await until(lambda: answers.calls == 3)
            answers.failure = None
            assert await waiting == 100


async def test_a_node_hears_what_its_coordinator_waited_for_in_vain() -> None:
    class Hung:
        async def append(self, component: str, data: bytes) -> None:
            await asyncio.get_running_loop().create_future()

    assert CoordSettings().call_timeout_s < CALL_TIMEOUT_S, "or its own deadline comes first"
    settings = CoordSettings(call_timeout_s=0.1)
    made = CoordOracle(Hung(), OracleState(), Runtime.system(), ["p_0"], settings)
    async with oracle_server(made) as server:
        oracle = RemoteOracle(server.address, fresh_patience_s=0.0)
        with pytest.raises(WalError, match="could not write its meta topic in time"):
            await oracle.fresh("p_0", 1)
        await oracle.close()


async def test_whether_the_coordinator_answers_is_asked_each_time() -> None:
    answers = Oracle()
    async with oracle_server(answers) as server, remote(server.address) as oracle:
        for calls in (1, 2):
            await oracle.answers()
            assert answers.calls == calls
        await server.stop(0)
        with pytest.raises(CoordinatorAwayError, match="cannot be reached"):
            await oracle.answers()
        async with remote(server.address, 10.0) as patient:
            waiting = asyncio.create_task(patient.answers())
            async with oracle_server(answers, server.address):
                await waiting


async def test_a_fresh_tick_waits_for_the_next_leader_and_a_new_connection_finds_it() -> None:
    standby = await start_server("127.0.0.1:0", {"standby": add_standby}, STANDBY_OPTIONS)
    async with remote(standby.address, 10.0) as oracle:
        waiting = asyncio.create_task(oracle.fresh("p_0", 1))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await standby.stop(0)
        async with oracle_server(Oracle(), standby.address):
            assert await waiting == 100


async def test_a_standby_refuses_every_method_and_keeps_no_connection() -> None:
    standby = await start_server("127.0.0.1:0", {"standby": add_standby}, STANDBY_OPTIONS)
    await standby.set_serving("", True)
    async with grpc.aio.insecure_channel(standby.address) as channel:
        for service, method in (("StreamingCoord", "ListCollections"), ("TimestampOracle", "X")):
            call: _Unary = channel.unary_unary(f"/walplane.v1.{service}/{method}")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"", timeout=5)
            assert WalError.from_rpc(refused.value, "it").code is ErrorCode.ON_SHUTDOWN
        stub = coord_pb2_grpc.StreamingCoordStub(channel)
        discover = stub.Discover(timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await discover.read()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        health: _Unary = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await health(b"", timeout=5) == b"\x08\x01", "SERVING"
        ready = grpc.ChannelConnectivity.READY
        await until(lambda: channel.get_state() is not ready, 5)
    await standby.stop(0)


# --- idle ticks ----------------------------------------------------------------------------------


async def test_an_idle_log_tells_the_time_only_while_its_owner_cannot_be_taken_for_dead() -> None:
    alive = [True]
    node = TestNode(MemoryBackend(), TestOracle(), TestAuthority(), Runtime.system())
    object.__setattr__(node.deps, "may_tick_idle", lambda: alive[0])
    wal = await node.open("test_0", 1)
    try:
        await until(lambda: _moves(wal))
        alive[0] = False
        before = wal.live_position().watermark
        wal.move_idle()
        assert wal.live_position().watermark == before
        alive[0] = True
        wal.move_idle()
        assert wal.live_position().watermark > before
        assert wal.settled_tick() <= before, "idle ticks settle nothing"
    finally:
        await wal.close()
        await node.reserve.close()


def _moves(wal: WAL) -> bool:
    before = wal.live_position().watermark
    wal.move_idle()
    return wal.live_position().watermark > before
