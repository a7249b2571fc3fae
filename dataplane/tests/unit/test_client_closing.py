"""What is under way when a client closes, and what it forgets while it lives."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from walplane.backends.interface import Backend
from walplane.client import ClientConfig, StreamingClient
from walplane.client.discovery import Assignment, Discovery
from walplane.client.grpc_transport import GrpcTransport, _GrpcConsume
from walplane.client.outgoing import Kinds
from walplane.client.producer import ChannelProducer
from walplane.client.raw_reader import RawReader
from walplane.client.transport import ConsumeStream, Delivery, ProduceStream, Transport
from walplane.message.builder import insert
from walplane.node.service import StreamingNodeService
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.waiting import unanswered, until

P0 = "test_0"


async def test_a_status_under_way_tells_that_the_client_was_closed(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, never = unanswered()
    monkeypatch.setattr(StreamingNodeService, "NodeStatus", never)
    async with MiniCluster(backend) as cluster:
        async with StreamingClient.connect(cluster.address) as wal:
            asking = asyncio.create_task(wal.node_status())
            await asked.wait()
        [status] = (await asking).values()
    assert isinstance(status, WalError)
    assert status.code is ErrorCode.ON_SHUTDOWN


async def test_a_closed_client_says_so_of_nodes_and_topology(backend: Backend) -> None:
    async with MiniCluster(backend) as cluster:
        async with StreamingClient.connect(cluster.address) as wal:
            assert set(wal.topology().assignments) == {P0}
            assert set(await wal.node_status()) == {cluster.members["n1"].server.address}

        async def topology() -> object:
            return wal.topology()

        for call in (wal.node_status(), topology(), wal.wait_for_assignment(P0, 0.01)):
            with pytest.raises(WalError, match="is closed") as caught:
                await call
            assert caught.value.code is ErrorCode.ON_SHUTDOWN
        assert not wal._grpc._channels.addresses, "a connection that nobody closes"


async def test_entries_end_with_the_client(
    cluster: MiniCluster, vchannel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive, close = _GrpcConsume.receive, _GrpcConsume.close
    received: list[Delivery] = []
    closed: list[_GrpcConsume] = []

    async def one_entry(stream: _GrpcConsume) -> Delivery:
        if not received:
            entries = (await receive(stream)).entries
            received.extend(Delivery([each], 0, end=False, position=None) for each in entries)
        return received.pop(0)

    async def noted(stream: _GrpcConsume) -> None:
        closed.append(stream)
        await close(stream)

    monkeypatch.setattr(_GrpcConsume, "receive", one_entry)
    monkeypatch.setattr(_GrpcConsume, "close", noted)
    async with StreamingClient.connect(cluster.address) as wal:
        pieces = wal.entries(P0)
        assert len(await anext(pieces)) == 1
        assert received, "the rest is still to come"
        [reader] = [each for each in wal._readers if isinstance(each, RawReader)]
        await wal.close()
        assert len(closed) == 1, "the stream waits for nobody"
        assert await anext(pieces, None) is None
        await reader.close()
        with pytest.raises(WalError, match="is closed"):
            await anext(wal.entries(P0))


@pytest.mark.parametrize("waits_in", ["open_consume", "receive", "served"])
async def test_entries_that_wait_end_with_the_client(
    cluster: MiniCluster, monkeypatch: pytest.MonkeyPatch, waits_in: str
) -> None:
    asked, never = unanswered()
    owner = {"open_consume": GrpcTransport, "receive": _GrpcConsume, "served": Discovery}[waits_in]
    monkeypatch.setattr(owner, waits_in, never)
    async with StreamingClient.connect(cluster.address) as wal:
        reading = asyncio.create_task(anext(wal.entries(P0), None))
        await asked.wait()
    async with asyncio.timeout(10):
        assert await reading is None


async def test_entries_that_rest_after_a_failure_end_with_the_client(
    cluster: MiniCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = asyncio.Event()

    async def failing(*_: object) -> None:
        failed.set()
        raise WalError(ErrorCode.ON_SHUTDOWN, "the node is being stopped")

    monkeypatch.setattr(GrpcTransport, "open_consume", failing)
    config = ClientConfig(backoff_min_s=600, backoff_max_s=600)
    async with StreamingClient.connect(cluster.address, config=config) as wal:
        reading = asyncio.create_task(anext(wal.entries(P0), None))
        await failed.wait()
    async with asyncio.timeout(10):
        assert await reading is None


async def test_entries_that_are_cancelled_as_their_stream_opens_leave_none_open(
    cluster: MiniCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_consume, close = GrpcTransport.open_consume, _GrpcConsume.close
    streams: list[str] = []
    readings: list[asyncio.Task[object]] = []

    async def opened(*asked: Any) -> ConsumeStream:  # noqa: ANN401
        stream = await open_consume(*asked)
        streams.append("opened")
        readings[0].cancel()
        return stream

    async def noted(stream: _GrpcConsume) -> None:
        streams.append("closed")
        await close(stream)

    monkeypatch.setattr(GrpcTransport, "open_consume", opened)
    monkeypatch.setattr(_GrpcConsume, "close", noted)
    async with StreamingClient.connect(cluster.address) as wal:
        pieces = wal.entries(P0)
        readings.append(asyncio.create_task(anext(pieces, None)))
        await asyncio.wait(readings)
        assert readings[0].cancelled()
        assert streams == ["opened", "closed"]


class Served:
    """Discovery and transport in one; answers nothing, and serves from `begin` on."""

    remote = True
    max_entry_bytes, packed_bytes, settled_tick = 4096, 4096, 0

    def __init__(self) -> None:
        self.begin = asyncio.Event()

    async def served(self, pchannel: str, **_: object) -> Assignment:
        await self.begin.wait()
        return Assignment(pchannel, 1, "n1", "n1:1", "ASSIGNED")

    async def moved(self, _: Assignment) -> None:
        await asyncio.Event().wait()

    async def open_produce(self, _: Assignment) -> ProduceStream:
        return cast(ProduceStream, self)

    async def receive(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Nothing to let go."""


async def test_a_lane_whose_last_message_was_given_up_unsent_is_forgotten() -> None:
    served = Served()
    producer = ChannelProducer(
        P0,
        cast(Discovery, served),
        lambda _: cast(Transport, served),
        lambda: b"id",
        ClientConfig(),
    )
    given_up = Kinds().parcel(insert("test_0_1v0", b"x"))
    producer.offer("lane", given_up)
    producer.forget("lane")
    assert set(producer._pipelines) == {"lane"}
    gone = WalError(ErrorCode.OUTCOME_UNKNOWN, "the caller has gone")
    given_up.give_up(gone)
    served.begin.set()
    await until(lambda: not producer._pipelines and not producer._leaving)
    assert given_up.done.cancelled()
    await producer.close(gone)
