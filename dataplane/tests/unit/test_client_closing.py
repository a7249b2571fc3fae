"""What is under way when a client closes, and what it forgets while it lives."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from walplane.backends.interface import Backend
from walplane.client import ClientConfig, StreamingClient
from walplane.client.discovery import Assignment, Discovery
from walplane.client.outgoing import Kinds
from walplane.client.producer import ChannelProducer
from walplane.client.transport import ProduceStream, Transport
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
    given_up.given_up = WalError(ErrorCode.OUTCOME_UNKNOWN, "the caller has gone")
    producer.offer("lane", given_up)
    producer.forget("lane")
    assert set(producer._pipelines) == {"lane"}
    served.begin.set()
    await until(lambda: not producer._pipelines and not producer._leaving)
    assert given_up.done.cancelled()
    await producer.close(given_up.given_up)
