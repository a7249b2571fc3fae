"""A dropped VChannel is read to its end by whoever lags behind it."""

from __future__ import annotations

import asyncio

import pytest

from walplane.client import ClientConfig, StreamingClient
from walplane.message.builder import insert
from walplane.message.ids import ResumeToken
from walplane.message.registry import MessageType
from walplane.node.edge import Edge
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.wal_world import EARLIEST, VCHANNELS, V, World, drop_entry, entry
from walplane.wal.config import WALConfig
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind
from walplane.wal.shard.config import ShardConfig

NEVER = "test_0_9v0"
LATEST = ScanStart(StartKind.LATEST)


async def scanned(edge: Edge, vchannel: str, start: ScanStart) -> list[MessageType]:
    """The types that a client is given which does not follow."""
    types: list[MessageType] = []
    request = edge.pin(ScanRequest(start, vchannel, follow=False))
    async with asyncio.timeout(10), edge.scan(request) as scanner:
        while True:
            batch = await scanner.next()
            types += [MessageType(item.entry.envelope.type) for item in batch.entries]
            if batch.end:
                return types


async def refusal(edge: Edge, vchannel: str, start: ScanStart) -> str:
    with pytest.raises(WalError) as caught:
        await scanned(edge, vchannel, start)
    assert caught.value.code is ErrorCode.CHANNEL_NOT_EXIST
    return caught.value.message


def token(time_tick: int) -> ScanStart:
    return ScanStart(StartKind.TOKEN, ResumeToken(None, time_tick, 1, 0, "test_0"))


async def test_a_reader_that_lags_behind_the_drop_gets_all_that_was_acknowledged(
    cluster: MiniCluster, vchannel: str
) -> None:
    rows = [b"%d" % number + bytes(50_000) for number in range(30)]
    config = ClientConfig(read_ahead_bytes=200_000, backoff_min_s=0.001)
    got: list[bytes] = []
    async with StreamingClient.connect(cluster.address, config=config) as client:
        for row in rows:
            await client.append(insert(vchannel, row))
        async with asyncio.timeout(20), client.reader(vchannel, start="earliest") as reader:
            async for message in reader:
                if message.type is MessageType.DROP_COLLECTION:
                    break
                if message.type is MessageType.INSERT:
                    got.append(message.payload)
                if len(got) == 3 and cluster.terms["test_0"] == 1:
                    await cluster.drop_vchannel(vchannel)
                    await cluster.move("test_0", "n2")
    assert got == rows


async def test_what_a_dropped_vchannel_held_is_read_and_what_comes_is_refused(world: World) -> None:
    edge = Edge(await world.open(1))
    row = await edge.wal.append(entry(b"row"))
    await edge.wal.append(drop_entry(V))
    ended = [MessageType.DROP_COLLECTION]
    whole = [MessageType.CREATE_COLLECTION, MessageType.INSERT, *ended]
    assert await scanned(edge, V, EARLIEST) == whole
    assert await scanned(edge, V, token(row.first_tick)) == ended
    by_id = ScanStart(StartKind.AFTER_ID, message_id=row.message_id)
    assert (await scanned(edge, V, by_id))[-1:] == ended
    assert f"VChannel {V} was dropped at tick" in await refusal(edge, V, LATEST)


async def test_a_vchannel_never_heard_of_is_refused_wherever_the_read_begins(world: World) -> None:
    edge = Edge(await world.open(1))
    for start in (EARLIEST, LATEST, token(1)):
        assert f"there is no VChannel {NEVER}" in await refusal(edge, NEVER, start)


async def test_of_a_forgotten_vchannel_only_a_token_tells_that_it_was_there(world: World) -> None:
    few = WALConfig(idle_tick_s=0.02, shard=ShardConfig(kept_segments=1))
    edge = Edge(await world.open(1, few))
    row = await edge.wal.append(entry(b"row"))
    for vchannel in VCHANNELS[:2]:
        await edge.wal.append(drop_entry(vchannel))
    assert edge.wal.recovery.shards.meta(V) is None
    for start in (EARLIEST, LATEST):
        assert f"there is no VChannel {V}" in await refusal(edge, V, start)
    assert await scanned(edge, V, token(row.first_tick)) == [MessageType.DROP_COLLECTION]
