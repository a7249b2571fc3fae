from __future__ import annotations

import asyncio

import pytest

from walplane.coord.discovery import Discovery
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import coord_pb2


class Assignments:
    def __init__(self) -> None:
        self.term = 1

    def __call__(self) -> list[coord_pb2.ChannelAssignment]:
        return [coord_pb2.ChannelAssignment(pchannel="p_0", term=self.term)]


async def test_a_snapshot_comes_at_once_and_after_each_change_in_growing_versions() -> None:
    assignments = Assignments()
    discovery = Discovery(5, "p_0_vcchan", assignments)
    stream = discovery.snapshots()
    first = await anext(stream)
    assert (first.version_global, first.cchannel) == (5, "p_0_vcchan")
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert not waiting.done()
    assignments.term = 2
    discovery.changed()
    second = await waiting
    assert second.version_local > first.version_local
    assert (first.assignments[0].term, second.assignments[0].term) == (1, 2)


async def test_a_slow_stream_gets_the_newest_snapshot_and_misses_those_between() -> None:
    assignments = Assignments()
    discovery = Discovery(1, "p_0_vcchan", assignments)
    slow, late = discovery.snapshots(), discovery.snapshots()
    await anext(slow)
    for term in range(2, 100):
        assignments.term = term
        discovery.changed()
    newest = await anext(slow)
    assert newest.assignments[0].term == 99
    assert await anext(late) is newest, "built once for all"
    waiting = asyncio.ensure_future(anext(slow))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_the_end_is_told_to_every_stream() -> None:
    discovery = Discovery(1, "p_0_vcchan", Assignments())
    stream = discovery.snapshots()
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    discovery.end(WalError(ErrorCode.ON_SHUTDOWN, "over"))
    for each in (waiting, asyncio.ensure_future(anext(discovery.snapshots()))):
        with pytest.raises(WalError, match="over"):
            await each
