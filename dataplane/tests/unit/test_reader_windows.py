"""Reading by windows of ticks, each from the token behind the one before: none is left out."""

from __future__ import annotations

import asyncio

import pytest

from walplane.message.ids import ResumeToken
from walplane.testkit.txns import client_reader, creates, shape
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import VCHANNELS, V, World, entry
from walplane.wal.config import WALConfig
from walplane.wal.scan.request import Only, ScanStart, StartKind
from walplane.wal.wal import WAL

SMALL_BYTES = 20_000
"""Of the write-ahead buffer: what a test wrote first is out of it soon."""
OTHER = VCHANNELS[2]


async def put(wal: WAL, payload: bytes, vchannel: str = V) -> int:
    return (await wal.append(entry(payload, vchannel=vchannel))).first_tick


async def push_out(wal: WAL, tick: int) -> None:
    """Writes elsewhere until `tick` has left the write-ahead buffer."""
    while wal.buffer.floor <= tick:
        await put(wal, b"x" * 500, OTHER)


async def window(
    wal: WAL, start: ScanStart, until_tick: int
) -> tuple[list[list[bytes] | bytes], ResumeToken | None]:
    """What a reader gets from `start` up to a tick, and its token behind that."""
    only = Only(until_tick=until_tick)
    reader = client_reader(wal, vchannel=V, start=start, follow=False, only=only)
    async with asyncio.timeout(20):
        got = [batch async for batch in reader.batches()]
    return shape(batch for batch in got if not creates(batch)), reader.token


def behind(token: ResumeToken | None) -> ScanStart:
    assert token is not None
    return ScanStart(StartKind.TOKEN, token)


EARLIEST = ScanStart(StartKind.EARLIEST)


@pytest.mark.parametrize("memory", [True, False])
async def test_a_window_without_messages_passes_over_none_behind_it(
    world: World, memory: bool
) -> None:
    size = 1 << 20 if memory else SMALL_BYTES
    wal = await world.open(1, WALConfig(idle_tick_s=0.02, write_ahead_bytes=size))
    first = await put(wal, b"first")
    empty = await put(wal, b"elsewhere", OTHER)
    last = [await put(wal, b"%d" % number) for number in range(3)][-1]
    if not memory:
        await push_out(wal, last)
    await until(lambda: wal.watermark() > last)
    got, token = await window(wal, EARLIEST, first)
    assert got == [b"first"]
    got, token = await window(wal, behind(token), empty)
    assert got == []
    assert token is not None
    assert token.time_tick == empty
    got, token = await window(wal, behind(token), last - 1)
    assert got == [b"0", b"1"]
    assert (await window(wal, behind(token), 0))[0] == [b"2"]


async def test_a_first_window_without_messages_has_no_place_of_its_own(world: World) -> None:
    wal = await world.open(1, WALConfig(idle_tick_s=0.02, write_ahead_bytes=SMALL_BYTES))
    before = await wal.append(entry(b"elsewhere", vchannel=OTHER))
    last = await put(wal, b"first")
    await push_out(wal, last)
    start = ScanStart(StartKind.FROM_ID, message_id=before.message_id)
    got, token = await window(wal, start, before.first_tick)
    assert got == []
    assert token is None, "it goes on where it began"
    assert (await window(wal, start, 0))[0] == [b"first"]


async def test_a_window_that_ends_before_the_latest_leaves_a_reader_there(world: World) -> None:
    """It asked for nothing before the latest, so its token is that place and not the tick."""
    wal = await world.open(1, WALConfig(idle_tick_s=30))
    old = await put(wal, b"old")
    await put(wal, b"between")
    got, token = await window(wal, ScanStart(StartKind.LATEST), old)
    assert got == []
    await put(wal, b"new")
    assert (await window(wal, behind(token), 0))[0] == [b"new"]
