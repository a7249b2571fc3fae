"""Channels to nodes that are gone are closed; those in use are not."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import cast

import grpc
import pytest

from walplane.assignment.states import Channel, ChannelState
from walplane.client import StreamingClient
from walplane.coord.node_appender import NodeAppender
from walplane.coord.ports import AssignmentSource
from walplane.message.builder import insert
from walplane.rpc.channel import ChannelCache, connect
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.reading import payloads
from walplane.testkit.waiting import until

P0, P1 = "test_0", "test_1"


class Dial:
    """Makes real channels, and knows which are open.

    Attributes:
        open: channels by address.
        made: how many ever were, by address.
    """

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.made: Counter[str] = Counter()

    def __call__(self, address: str) -> grpc.aio.Channel:
        channel = connect(address)
        self.open[address] += 1
        self.made[address] += 1
        close = channel.close

        async def closed(grace: float | None = None) -> None:
            await close(grace)
            self.open[address] -= 1

        channel.close = closed  # type: ignore[method-assign]
        return channel

    @property
    def addresses(self) -> list[str]:
        return sorted(self.open.elements())


async def test_a_channel_is_closed_once_it_is_neither_named_nor_used() -> None:
    dial = Dial()
    cache = ChannelCache(dial)
    cache.use("a:1").end()
    held, other = cache.use("b:1"), cache.use("b:1")
    assert held.channel is other.channel
    assert dial.addresses == ["a:1", "b:1"], "nobody has said yet which are named"
    cache.keep({"c:1"})
    await until(lambda: dial.addresses == ["b:1"])
    held.end()
    held.end()
    assert cache.addresses == {"b:1"}, "ending a use twice ends no other"
    other.end()
    await until(lambda: not dial.addresses)
    with cache.use("b:1"):
        assert cache.addresses == {"b:1"}
    await until(lambda: not dial.addresses)
    with cache.use("c:1"):
        pass
    assert cache.addresses == {"c:1"}, "it is named"
    await cache.close()
    assert not dial.addresses
    assert dial.made == {"a:1": 1, "b:1": 2, "c:1": 1}


async def test_a_closed_cache_opens_nothing() -> None:
    dial = Dial()
    cache = ChannelCache(dial)
    use = cache.use("a:1")
    await cache.close()
    with pytest.raises(WalError, match="no more calls to a:1") as caught:
        cache.use("a:1")
    assert caught.value.code is ErrorCode.ON_SHUTDOWN
    use.end()
    await cache.close()
    assert not dial.addresses


async def test_a_client_keeps_no_channel_to_a_node_that_is_gone(
    cluster: MiniCluster, vchannel: str
) -> None:
    """Nodes come one after the other, each at another address, as pods do."""
    dial = Dial()
    async with StreamingClient.connect(cluster.address, dial=dial) as wal:
        await cluster.move(P1, "n2")
        for number in range(4):
            await cluster.add_node(f"pod{number}")
            await cluster.move(P0, f"pod{number}")
            await wal.append(insert(vchannel, b"%d" % number))
            await wal.node_status()
        assert await payloads(wal, vchannel) == [b"0", b"1", b"2", b"3"]
        present = {cluster.members[each].server.address for each in ("n2", "pod3")}
        await until(lambda: dial.addresses == sorted({cluster.address, *present}))
        assert len(dial.made) > len(dial.addresses)
    assert not dial.addresses


async def test_a_stream_in_use_is_not_cut(cluster: MiniCluster, vchannel: str) -> None:
    dial = Dial()
    node = cluster.members["n1"].server.address
    async with StreamingClient.connect(cluster.address, dial=dial) as wal:
        await wal.append(insert(vchannel, b"a"))
        async with wal.reader(vchannel) as reader:
            read = aiter(reader)
            while (await anext(read)).payload != b"a":
                pass
            for pchannel in (P0, P1):  # nobody serves: the node is named no more
                cluster.publish(pchannel, term=cluster.terms[pchannel], state="UNAVAILABLE")
            await until(lambda: not any(a.served for a in wal.topology().assignments.values()))
            await wal.append(insert(vchannel, b"b"))
            assert (await anext(read)).payload == b"b"
            assert dial.made[node] == 1
            assert dial.open[node] == 1


class Placed:
    """Says where PChannels are, as the test does."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}

    def place(self, pchannel: str) -> tuple[Channel, str]:
        return Channel(pchannel, 1, ChannelState.ASSIGNED, "n"), self.addresses[pchannel]


async def test_the_coordinator_keeps_no_channel_to_a_node_that_is_gone(
    cluster: MiniCluster,
) -> None:
    vchannels = [await cluster.create_vchannel(each) for each in (P0, P1)]
    there = cluster.members["n1"].server.address
    dial, source = Dial(), Placed()
    appender = NodeAppender(cast(AssignmentSource, source), dial)

    async def append(number: int) -> None:
        with pytest.raises(WalError, match="cannot be reached"):
            await appender.append(insert(vchannels[number], b"x").to_entry())

    for gone in range(1, 4):
        source.addresses = {P0: f"127.0.0.1:{gone}", P1: f"127.0.0.1:{gone}"}
        await append(0)
        await append(1)
        await until(lambda gone=gone: dial.addresses == [f"127.0.0.1:{gone}"])  # type: ignore[misc]
    source.addresses[P0] = there
    await appender.append(insert(vchannels[0], b"x").to_entry())
    assert dial.addresses == ["127.0.0.1:3", there]
    source.addresses[P1] = there
    await appender.append(insert(vchannels[1], b"x").to_entry())
    await until(lambda: dial.addresses == [there])
    await appender.close()
    assert not dial.addresses


async def test_an_append_that_is_cancelled_uses_its_channel_no_more(
    cluster: MiniCluster, vchannel: str
) -> None:
    source = Placed()
    source.addresses[P0] = cluster.members["n1"].server.address
    appender = NodeAppender(cast(AssignmentSource, source), dial := Dial())
    append = asyncio.create_task(appender.append(insert(vchannel, b"x").to_entry()))
    await until(lambda: bool(dial.addresses))
    append.cancel()
    await asyncio.gather(append, return_exceptions=True)
    appender._channels.keep(())
    await until(lambda: not dial.addresses)
    await appender.close()
