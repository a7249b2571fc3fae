"""A self-reopen has ticks for all that waits, though one batch of ticks is not enough for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from walplane.message import codec
from walplane.rpc.v1 import log_pb2
from walplane.runtime import Runtime
from walplane.testkit.faulty import Fault
from walplane.testkit.outside import TestNode
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import CH, V, World, create, entry, payloads_of, read_all
from walplane.wal.config import WALConfig
from walplane.wal.interceptors.base import append_op
from walplane.wal.timetick.reserve import TickReserve
from walplane.wal.wal import WAL

BATCH_TICKS = 1000
CONFIG = WALConfig(idle_tick_s=0.02, frames_in_flight=2)


@pytest.fixture
async def wal(world: World) -> WAL:
    """A log on a node whose batches of ticks are small."""
    runtime = Runtime.system()
    node = TestNode(world.backend, world.oracle, world.authority, runtime)
    node.reserve = TickReserve(
        world.oracle, runtime, lambda: node.held, node.lost.update, BATCH_TICKS
    )
    node.deps = replace(node.deps, reserve=node.reserve)
    wal = await node.open(CH, 1, CONFIG)
    world.opened.append((node, wal))
    await create(wal, V)
    return wal


def batches(first: int, last: int) -> list[log_pb2.Entry]:
    """Of 300 messages each: three fit a batch of ticks."""
    return [
        entry(*(b"%d.%d" % (number, i) for i in range(300)), number=number)
        for number in range(first, last)
    ]


def payloads(entries: list[log_pb2.Entry]) -> list[bytes]:
    return [payload for each in entries for payload in codec.decode_body(each.body)[1]]


async def test_more_than_a_batch_of_ticks_is_written_again_in_order(world: World, wal: WAL) -> None:
    once = [Fault.FAIL_BEFORE]
    world.backend.faults = lambda topic: once.pop() if once and topic == CH else Fault.NONE
    sent = batches(0, 7)
    async with asyncio.timeout(10):
        results = await asyncio.gather(*(wal.append(each) for each in sent))
    assert wal.open_number == 1
    assert not wal.stopped.done()
    assert payloads_of(await read_all(wal)) == payloads(sent)
    firsts = [result.first_tick for result in results]
    assert all(a + 300 <= b for a, b in pairwise(firsts))


async def test_what_comes_while_a_reopen_waits_for_ticks_comes_behind(
    world: World, wal: WAL
) -> None:
    once = [Fault.FAIL_BEFORE]
    world.backend.faults = lambda topic: once.pop() if once and topic == CH else Fault.NONE
    world.oracle.away = True
    early, late = batches(0, 3), batches(3, 9)
    async with asyncio.timeout(20):
        appends = [asyncio.create_task(wal.append(each)) for each in early]
        await until(lambda: wal.status().attempts == 1)
        behind = [wal.start_append(append_op(each)) for each in late]
        assert wal.state == "reopening"
        world.oracle.away = False
        for append in [*appends, *behind]:
            await append
    assert payloads_of(await read_all(wal)) == payloads([*early, *late])
