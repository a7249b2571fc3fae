"""What `walplane node` is made of: logs that end at once, the report of a node, its options."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from walplane.backends.interface import Backend
from walplane.backends.memory import MemoryBackend
from walplane.channel import meta_topic
from walplane.cli.errors import CommandError
from walplane.cli.main import main
from walplane.cli.node_wiring import NodeOptions, config_of, run_node
from walplane.cli.pods import Pod, advertised, new_identity, unless
from walplane.lease.contract import Identity, PChannelLease
from walplane.lease.decide import Mode
from walplane.lease.follower import Follower
from walplane.node.config import NodeConfig
from walplane.node.reporting import node_report
from walplane.node.streaming_node import OpenWAL, StreamingNode
from walplane.rpc.channel import connect
from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.testkit.faulty import Fault, FaultyBackend
from walplane.testkit.outside import TestAuthority, TestOracle
from walplane.testkit.standalone import free_port
from walplane.testkit.waiting import until
from walplane.testkit.wal_owner import numbered_entry
from walplane.testkit.wal_world import create
from walplane.wal.ports import StaleTerm
from walplane.wal.status import QUARANTINED, SEGMENTS_WAIT
from walplane.wal.wal import WAL

Health = health_pb2.HealthCheckResponse
ME = "demo-node-0_uid_aaaaaaaa"
P0 = "test_0"
OVER = WalError(ErrorCode.CHANNEL_FENCED, "granted to another")

Lost = list[tuple[str, int, WalError]]


class World:
    """A node on a backend in memory that may open whatever it is told to."""

    def __init__(self, open_wal: OpenWAL | None = None) -> None:
        self.lost: Lost = []
        self.backend = FaultyBackend(MemoryBackend())
        self.authority = TestAuthority()
        self.authority.terms[P0] = 1
        self.node = StreamingNode(
            *("demo-node-0", self.backend, TestOracle(), self.authority, Runtime.system()),
            on_channel_lost=lambda *what: self.lost.append(what),
            open_wal=open_wal,
        )
        self.follower = Follower(
            *(cast(Any, None), self.node, ME, Runtime.system()),
            may_open=_at_once,
            reported=_reported,
            on_change=lambda: None,
        )

    def report(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(
            node_report(self.node, self.follower, "10.0.0.1:7651").to_json()
        )
        return content

    def grant(self, term: int, holder: str = ME) -> None:
        self.follower.observe("demo-pch-0", _body(term, holder))


async def _at_once(_lease: PChannelLease) -> None:
    return


async def _reported() -> None:
    return


def _body(term: int, holder: str) -> dict[str, Any]:
    annotations = {"walplane.dev/channel": P0, "walplane.dev/term": str(term)}
    return {
        "metadata": {"name": "demo-pch-0", "annotations": annotations},
        "spec": {"holderIdentity": holder},
    }


async def test_a_log_that_is_stopped_acknowledges_nothing_more() -> None:
    world = World()
    await world.node.assign(P0, 1)
    wal = world.node.wal(P0)
    await create(wal, f"{P0}_1v0")
    await wal.append(numbered_entry(P0, 1, 0))
    append = asyncio.create_task(wal.append(numbered_entry(P0, 1, 1)))
    world.node.stop(P0, OVER)
    with pytest.raises(WalError) as refused:
        await wal.append(numbered_entry(P0, 1, 2))
    assert refused.value.code is ErrorCode.CHANNEL_FENCED
    with pytest.raises(WalError):
        await append
    await until(lambda: world.lost == [(P0, 1, OVER)])
    with pytest.raises(WalError, match="does not hold it"):
        world.node.wal(P0)
    world.authority.terms[P0] = 2
    await world.node.assign(P0, 2)
    world.node.stop("unknown_0", OVER)
    await world.node.close()


async def test_a_log_that_is_being_closed_is_stopped_all_the_same() -> None:
    world = World()
    await world.node.assign(P0, 1)
    edge = world.node.edge(P0)
    await create(edge.wal, f"{P0}_1v0")
    world.backend.before_ack = asyncio.get_running_loop().create_future
    append = edge.start_append(edge.check(numbered_entry(P0, 1, 0)))
    releasing = asyncio.create_task(world.node.release(P0, 1))
    await until(lambda: edge.wal.state == "closing")
    assert not append.done(), "what is in flight is answered first"
    world.node.stop(P0, OVER)
    assert edge.gone.result() is OVER
    with pytest.raises(WalError) as unknown:
        await append
    assert unknown.value.code is ErrorCode.CHANNEL_FENCED
    async with asyncio.timeout(2):
        await releasing
    await world.node.close()


@pytest.mark.parametrize("turns", range(10))
async def test_a_close_that_is_stopped_at_any_step_ends_at_once(turns: int) -> None:
    world = World()
    await world.node.assign(P0, 1)
    await create(world.node.wal(P0), f"{P0}_1v0")
    releasing = asyncio.create_task(world.node.release(P0, 1))
    for _ in range(turns):
        await asyncio.sleep(0)
    world.node.stop(P0, OVER)
    async with asyncio.timeout(2):
        await releasing
    await world.node.close()


async def test_a_close_that_is_stopped_does_not_wait_for_its_checkpoint() -> None:
    world = World()
    await world.node.assign(P0, 1)
    await create(world.node.wal(P0), f"{P0}_1v0")
    saving = asyncio.Event()

    def hang(topic: str) -> Fault:
        if topic != meta_topic(P0):
            return Fault.NONE
        saving.set()
        return Fault.LOSE_ACK

    world.backend.faults = hang
    releasing = asyncio.create_task(world.node.release(P0, 1))
    await saving.wait()
    world.node.stop(P0, OVER)
    async with asyncio.timeout(2):
        await releasing
    await world.node.close()


async def test_an_open_that_is_stopped_leaves_nothing_behind() -> None:
    hold = asyncio.Event()

    async def open_wal(pchannel: str, term: int) -> WAL:
        await hold.wait()
        raise AssertionError("it was stopped")

    world = World(open_wal=open_wal)
    opening = asyncio.create_task(world.node.assign(P0, 1))
    await asyncio.sleep(0.01)
    world.node.stop(P0, OVER)
    with pytest.raises(WalError, match="given up"):
        await opening
    await world.node.close()


async def test_a_log_that_opens_when_nobody_wants_it_any_more_is_closed() -> None:
    closed: list[int] = []

    class Wal:
        async def close(self) -> None:
            closed.append(1)

    opened = asyncio.Event()

    async def open_wal(pchannel: str, term: int) -> WAL:
        opened.set()
        return cast(WAL, Wal())

    world = World(open_wal=open_wal)
    assigning = asyncio.create_task(world.node.assign(P0, 1))
    await opened.wait()  # its result is there, nobody has taken it yet
    assigning.cancel()
    await asyncio.wait({assigning})
    assert assigning.cancelled()
    assert closed == [1]


async def test_a_report_tells_what_is_served_and_how_far() -> None:
    world = World()
    following = asyncio.create_task(world.follower.run())
    assert world.report() == {"draining": False, "address": "10.0.0.1:7651", "channels": {}}
    world.grant(1, "other_u_c")
    assert world.report()["channels"] == {}
    world.authority.terms[P0] = 2
    world.grant(2)
    wal = await _serving(world, 2)
    await create(wal, f"{P0}_1v0")
    result = await wal.append(numbered_entry(P0, 2, 0))
    await until(lambda: world.report()["channels"][P0]["watermark"] == result.first_tick)
    first = world.report()["channels"][P0]
    assert (first["term"], first["termFloor"], first["attempts"]) == (2, 0, 0)
    assert (first["reason"], first["lastError"]) == ("", "")
    await until(lambda: world.report()["channels"][P0]["timeTick"] > first["timeTick"])
    assert world.report()["channels"][P0]["watermark"] == result.first_tick, "nothing was written"
    assert first["checkpoint"] == 0
    await wal.checkpoint()
    assert world.report()["channels"][P0]["checkpoint"] >= result.first_tick
    world.follower.set_mode(Mode.DRAINING)
    assert world.report()["draining"] is True
    following.cancel()
    await world.node.close()


@pytest.mark.parametrize("condition", [QUARANTINED, SEGMENTS_WAIT])
async def test_what_holds_a_served_log_up_is_told(
    condition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    following = asyncio.create_task(world.follower.run())
    world.grant(1)
    wal = await _serving(world, 1)
    held_up = replace(wal.status(), condition=condition, last_error="s3://b: no answer")
    monkeypatch.setattr(wal, "status", lambda: held_up)
    told = world.report()["channels"][P0]
    assert (told["reason"], told["lastError"]) == (condition, "s3://b: no answer")
    assert told["watermark"] > 0, "it serves"
    following.cancel()
    await world.node.close()


async def test_a_failed_grant_is_told_until_the_next_one() -> None:
    failure: list[WalError] = [StaleTerm(P0, 1, 7)]

    async def open_wal(pchannel: str, term: int) -> WAL:
        raise failure[0]

    world = World(open_wal=open_wal)
    following = asyncio.create_task(world.follower.run())
    world.grant(1)
    await until(lambda: bool(world.report()["channels"].get(P0, {}).get("lastError")))
    told = world.report()["channels"][P0]
    assert (told["term"], told["termFloor"], told["reason"], told["attempts"]) == (
        *(1, 7, "StaleTerm", 1),
    )
    world.grant(1, "")
    assert world.report()["channels"][P0] == told, "given back, and still told"
    world.grant(8, "other_u_c")
    assert world.report()["channels"] == {}
    following.cancel()
    await world.node.close()


async def _serving(world: World, term: int) -> WAL:
    def there() -> bool:
        try:
            world.node.wal(P0, term)
        except WalError:
            return False
        return True

    await until(there)
    await until(lambda: world.report()["channels"][P0]["timeTick"] > 0)
    return world.node.wal(P0, term)


def test_an_identity_is_random_per_process() -> None:
    runtime = Runtime.system()
    first, second = (new_identity("demo-node-0", "uid-1", runtime) for _ in range(2))
    assert (first.pod, first.uid) == (second.pod, second.uid)
    assert first.incarnation != second.incarnation
    assert len(bytes.fromhex(first.incarnation)) == 4
    assert Identity.parse(str(first)) == first
    for pod, uid in (("a_b", "u"), ("", "u"), ("a", "")):
        with pytest.raises(CommandError):
            new_identity(pod, uid, runtime)


def test_others_are_told_an_address_that_leads_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALPLANE_POD_IP", "10.0.0.1")
    assert advertised("0.0.0.0:7651", None) == "10.0.0.1:7651"
    assert advertised("0.0.0.0:7651", "a.b:1") == "a.b:1"
    assert advertised("127.0.0.1:7651", None) == "127.0.0.1:7651"
    monkeypatch.setenv("WALPLANE_POD_IP", "fd00::1")
    assert advertised("[::]:7651", None) == "[fd00::1]:7651"
    monkeypatch.delenv("WALPLANE_POD_IP")
    with pytest.raises(CommandError, match="--advertise"):
        advertised("0.0.0.0:7651", None)


def test_a_call_of_the_api_server_leaves_time_for_another() -> None:
    identity = Identity("p", "u", "i")
    pods = [Pod(identity, "demo", "", "ns", lease_s, "l", "a") for lease_s in (3.0, 60.0)]
    assert [pod.call_timeout_s for pod in pods] == [1.0, 5.0]


def test_budgets_of_a_pod_fit_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("walplane.cli.node_wiring.memory_limit", lambda: 512 << 20)
    pod = Pod(Identity("p", "u", "i"), "demo", "", "ns", 10.0, "l", "a")
    config = config_of(NodeOptions(pod, "memory:", "coord:7650", 30.0, retention_s=7.0))
    assert config.write_ahead_bytes < NodeConfig().write_ahead_bytes
    assert (config.wal.retention_s, config.wal.stall_limit_s) == (7.0, 5.0)


async def test_a_node_that_waits_for_its_backend_lives_and_serves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it would be killed for it, again and again, and show no metrics either."""

    async def away(_url: str) -> Backend:
        raise WalError(ErrorCode.INNER, "the backend does not answer")

    monkeypatch.setattr("walplane.cli.pods.open_backend", away)
    listen, metrics = (f"127.0.0.1:{free_port()}" for _ in range(2))
    pod = Pod(Identity("p", "u", "i"), "demo", "", "ns", 10.0, listen, listen)
    options = NodeOptions(pod, "memory:", "coord:7650", 30.0, metrics=metrics)
    stop = asyncio.Event()
    running = asyncio.create_task(run_node(options, stop))
    async with asyncio.timeout(60), connect(listen) as channel:
        assert await _health(channel, "grpc.health.v1.Health") == Health.SERVING
        assert await _health(channel, "") == Health.NOT_SERVING
        assert "process_resident_memory_bytes" in await asyncio.to_thread(_scraped, metrics)
        stop.set()
        await running


async def _health(channel: grpc.aio.Channel, service: str) -> int:
    """What it says of `service`, once it knows of it."""
    request = health_pb2.HealthCheckRequest(service=service)
    watch = health_pb2_grpc.HealthStub(channel).Watch(request, wait_for_ready=True)
    async for answer in watch:
        if answer.status != Health.SERVICE_UNKNOWN:
            status: int = answer.status
            return status
    raise AssertionError(f"it ended, and said nothing of {service!r}")


def _scraped(address: str) -> str:
    """The metrics at an address, once somebody listens there."""
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
                text: str = answer.read().decode()
                return text
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise


async def test_work_ends_when_something_else_does() -> None:
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    async def crash() -> str:
        raise RuntimeError("crashed")

    jobs: list[Awaitable[str]] = [work(0), work(0.01)]
    assert [await unless(job, end) for job in jobs] == ["done", "done"]
    with pytest.raises(RuntimeError, match="crashed"):
        await unless(crash(), end)
    end.set_result(None)
    assert await unless(work(60), end) is None


@pytest.mark.parametrize("command", ["node", "coord"])
def test_a_command_without_its_options_says_which(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command]) == 2
    assert "--backend" in capsys.readouterr().err
