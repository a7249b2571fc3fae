"""A coordinator that was replaced writes nothing any more, whatever the log still remembers."""

from __future__ import annotations

import asyncio

import pytest

from walplane.backends.registry import open_backend
from walplane.node.edge import Edge
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.testkit.faulty import Fault, FaultyBackend
from walplane.testkit.wal_world import CH, World, create_entry, drop_entry, entry
from walplane.wal.config import WALConfig
from walplane.wal.interceptors.base import AppendOp, append_op
from walplane.wal.interceptors.coordinator import CoordinatorInterceptor
from walplane.wal.ports import AppendResult
from walplane.wal.recovery import state
from walplane.wal.recovery.state import RecoveryState
from walplane.wal.shard.config import ShardConfig
from walplane.wal.wal import WAL

OLD = "test_0_5v0"
CONFIG = WALConfig(idle_tick_s=0.02, shard=ShardConfig(kept_segments=2))


@pytest.fixture(autouse=True)
def few_broadcasts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = state._BROADCAST_LIMITS._replace(producers=3)
    monkeypatch.setattr(state, "_BROADCAST_LIMITS", limits)


def broadcast(made: log_pb2.Entry, number: int, term: int) -> log_pb2.Entry:
    """`made` as the broadcast `number` of the coordinator of `term`."""
    made.envelope.broadcast.broadcast_id = number
    made.envelope.broadcast.coord_term = term
    made.envelope.producer.producer_id = b"broadcast/%d" % number
    return made


async def append(wal: WAL, made: log_pb2.Entry) -> AppendResult:
    edge = Edge(wal)
    async with asyncio.timeout(10):
        return await edge.start_append(edge.check(made))


async def forget_the_first(wal: WAL, term: int) -> None:
    """Makes and drops so many collections that the log knows no more of what came before."""
    for number in (6, 7, 8):
        vchannel = f"test_0_{number}v0"
        await append(wal, broadcast(create_entry(vchannel), 2 * number, term))
        await append(wal, broadcast(drop_entry(vchannel), 2 * number + 1, term))


async def replaced(wal: WAL) -> None:
    """A collection that the coordinator of term 1 made and that of term 2 dropped, forgotten."""
    await append(wal, broadcast(create_entry(OLD), 1, 1))
    await append(wal, broadcast(drop_entry(OLD), 2, 2))
    await forget_the_first(wal, 2)


async def refused(wal: WAL, made: log_pb2.Entry) -> None:
    """`made` is refused as that of a coordinator that was replaced."""
    with pytest.raises(WalError, match="leave it to the coordinator that came after") as error:
        await append(wal, made)
    assert error.value.code is ErrorCode.UNMATCHED_CHANNEL_TERM
    assert not wal.has_vchannel(made.envelope.vchannel)


async def test_a_late_copy_of_an_older_coordinator_brings_nothing_back(world: World) -> None:
    wal = await world.open(1, CONFIG)
    await replaced(wal)
    await refused(wal, broadcast(create_entry(OLD), 1, 1))
    await append(wal, entry(b"data goes on", number=0))


async def test_a_repeat_that_the_log_knows_gets_its_first_result(world: World) -> None:
    wal = await world.open(1, CONFIG)
    first = await append(wal, broadcast(create_entry(OLD), 1, 1))
    await append(wal, broadcast(create_entry("test_0_6v0"), 2, 2))
    assert await append(wal, broadcast(create_entry(OLD), 1, 1)) == first
    assert await append(wal, broadcast(create_entry(OLD), 1, 2)) == first


async def test_the_present_coordinator_and_those_after_it_go_on(world: World) -> None:
    wal = await world.open(1, CONFIG)
    await replaced(wal)
    for number, term in enumerate((2, 3, 3, 7), start=20):
        await append(wal, broadcast(create_entry(f"test_0_{number}v0"), number, term))
    assert wal.recovery.coord_term == 7


@pytest.mark.parametrize("checkpoint", [False, True])
async def test_the_next_owner_knows_the_highest_term(world: World, checkpoint: bool) -> None:
    wal = await world.open(1, CONFIG)
    await replaced(wal)
    if checkpoint:
        await wal.checkpoint()
    successor = await world.open(2, CONFIG)
    assert successor.recovery.coord_term == 2
    await refused(successor, broadcast(create_entry(OLD), 1, 1))
    await append(successor, broadcast(create_entry(OLD), 30, 2))


async def test_what_comes_behind_a_newer_coordinator_in_flight_is_refused() -> None:
    """The log holds the newer one's message only later."""
    world = World(FaultyBackend(await open_backend("memory:")))
    wal = await world.open(1, CONFIG)
    written = asyncio.Event()
    world.backend.before_ack = written.wait
    edge = Edge(wal)
    newer = edge.start_append(edge.check(broadcast(create_entry("test_0_6v0"), 2, 2)))
    with pytest.raises(WalError, match="has seen 2"):
        await append(wal, broadcast(create_entry(OLD), 1, 1))
    world.backend.before_ack = None
    written.set()
    await newer
    await world.close()


async def test_a_self_reopen_keeps_the_order_of_terms(world: World) -> None:
    wal = await world.open(1, CONFIG)
    once = [Fault.FAIL_BEFORE]
    world.backend.faults = lambda topic: once.pop() if once and topic == CH else Fault.NONE
    await append(wal, broadcast(create_entry("test_0_6v0"), 2, 2))
    assert wal.open_number == 1
    await refused(wal, broadcast(create_entry(OLD), 1, 1))


async def test_what_is_refused_goes_no_further_and_takes_no_tick() -> None:
    recovery = RecoveryState(CONFIG)
    recovery.coord_term = 3
    forwarded: list[AppendOp] = []

    async def forward(op: AppendOp) -> AppendResult:
        forwarded.append(op)
        raise AssertionError

    link = CoordinatorInterceptor(CH, recovery)
    with pytest.raises(WalError, match=r"broadcast 9 .* of coordinator term 2, and .* has seen 3"):
        await link.append(append_op(broadcast(create_entry(OLD), 9, 2)), forward)
    assert not forwarded


async def test_broadcasts_of_another_cluster_count_for_nothing_here() -> None:
    """A copy of a primary's: the terms are those of its coordinators."""
    recovery, passed = RecoveryState(CONFIG), asyncio.get_running_loop().create_future()
    link = CoordinatorInterceptor(CH, recovery)
    copied = broadcast(create_entry(OLD), 9, 40)
    copied.envelope.replicate.cluster_id = "primary"
    for made in (copied, broadcast(create_entry(OLD), 10, 1)):
        assert link.append(append_op(made), lambda _op: passed) is passed


def test_a_checkpoint_of_before_says_nothing_of_coordinators() -> None:
    recovery = RecoveryState(CONFIG)
    parts = recovery.snapshot(log_pb2.WALCheckpoint(time_tick=5))
    assert log_pb2.WALCheckpoint.FromString(parts["checkpoint"][0]).coord_term == 0
