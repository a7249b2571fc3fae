"""Snapshots, terms, waiting, and what is said when nobody is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import pytest

from walplane.client.config import ClientConfig
from walplane.client.discovery import Discovery, Topology
from walplane.node import RpcServer, start_server
from walplane.rpc.channel import connect
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import coord_pb2, coord_pb2_grpc
from walplane.testkit.cluster import HandCoord
from walplane.testkit.link import FaultyLink
from walplane.testkit.standalone import free_port
from walplane.testkit.waiting import until

P0 = "test_0"


def assignment(
    term: int, node_id: str = "n1", state: str = "ASSIGNED"
) -> coord_pb2.ChannelAssignment:
    return coord_pb2.ChannelAssignment(
        pchannel=P0,
        term=term,
        node_id=node_id,
        address=f"{node_id}:1",
        state=f"CHANNEL_STATE_{state}",
        reason="being moved" if state != "ASSIGNED" else "",
    )


def snapshot(
    version: tuple[int, int], *assignments: coord_pb2.ChannelAssignment
) -> coord_pb2.DiscoverResponse:
    return coord_pb2.DiscoverResponse(
        version_global=version[0], version_local=version[1], assignments=assignments
    )


@pytest.fixture
async def coord() -> HandCoord:
    return HandCoord()


@pytest.fixture
async def server(coord: HandCoord) -> AsyncIterator[RpcServer]:
    def add(server: object) -> None:
        coord_pb2_grpc.add_StreamingCoordServicer_to_server(coord, server)  # type: ignore[arg-type]

    server = await start_server("127.0.0.1:0", {"coord": add})
    yield server
    await server.stop(0)


@pytest.fixture
async def discovery(server: RpcServer) -> AsyncIterator[Discovery]:
    channel = connect(server.address)
    discovery = Discovery(channel, server.address, ClientConfig())
    yield discovery
    await discovery.close()
    await channel.close()


def test_a_lower_version_changes_nothing() -> None:
    newer = Topology().merged(snapshot((2, 1), assignment(3)))
    assert newer.merged(snapshot((1, 9), assignment(4))) is newer
    assert newer.merged(snapshot((2, 2), assignment(4))).assignments[P0].term == 4


def test_an_assignment_of_a_lower_term_is_refused() -> None:
    known = Topology().merged(snapshot((1, 1), assignment(5, "n5")))
    later = known.merged(snapshot((2, 1), assignment(4, "n4")))
    assert later.version == (2, 1)
    assert later.assignments[P0].node_id == "n5"


async def test_waits_for_an_owner_and_says_why_there_is_none(
    coord: HandCoord, discovery: Discovery
) -> None:
    coord.publish(snapshot((1, 1), assignment(1, state="ASSIGNING")))
    await discovery.start(5)
    with pytest.raises(WalError, match=r"nobody serves test_0 \(it is ASSIGNING: being moved\)"):
        await discovery.wait_for_assignment(P0, 0.05)
    waiting = asyncio.create_task(discovery.wait_for_assignment(P0, 5))
    await asyncio.sleep(0)
    coord.publish(snapshot((1, 2), assignment(1)))
    assert (await waiting).node_id == "n1"


async def test_another_owner_is_taken_at_once_the_same_one_after_patience(
    coord: HandCoord, discovery: Discovery
) -> None:
    coord.publish(snapshot((1, 1), assignment(1)))
    await discovery.start(5)
    first = await discovery.served(P0)
    again = await discovery.served(P0, unlike=first, patience_s=0.02)
    assert again == first
    waiting = asyncio.create_task(discovery.served(P0, unlike=first, patience_s=30))
    coord.publish(snapshot((1, 2), assignment(2, "n2")))
    assert (await asyncio.wait_for(waiting, 5)).node_id == "n2"


async def test_an_unknown_pchannel_is_one_clear_error(
    coord: HandCoord, discovery: Discovery
) -> None:
    coord.publish(snapshot((1, 1), assignment(1)))
    await discovery.start(5)
    with pytest.raises(WalError, match="there is no PChannel test_9") as caught:
        await discovery.served("test_9")
    assert caught.value.code is ErrorCode.CHANNEL_NOT_EXIST


async def test_errors_are_reported_once_per_term_and_code(
    coord: HandCoord, discovery: Discovery
) -> None:
    """One that no coordinator takes keeps back none that it would take."""
    coord.publish(snapshot((1, 1), assignment(1)))
    await discovery.start(5)
    owner = await discovery.served(P0)
    error = WalError(ErrorCode.ON_SHUTDOWN, "gone")
    for each in (error, error, WalError(ErrorCode.UNMATCHED_CHANNEL_TERM, "not here"), error):
        discovery.report(owner, each)
    coord.publish(snapshot((1, 2), assignment(2)))
    discovery.report(await discovery.served(P0, unlike=owner, patience_s=5), error)
    await until(lambda: len(coord.reports) >= 3)
    assert [(each.pchannel, each.term, ErrorCode(each.error.code)) for each in coord.reports] == [
        (P0, 1, ErrorCode.ON_SHUTDOWN),
        (P0, 1, ErrorCode.UNMATCHED_CHANNEL_TERM),
        (P0, 2, ErrorCode.ON_SHUTDOWN),
    ]


async def test_nobody_there_is_one_clear_line_in_time() -> None:
    address = f"127.0.0.1:{free_port()}"
    channel = connect(address)
    discovery = Discovery(channel, address, ClientConfig())
    began = time.monotonic()
    with pytest.raises(WalError) as caught:
        await discovery.start(0.5)
    assert time.monotonic() - began < 3
    assert caught.value.message.startswith(f"no walplane at {address}: ")
    assert "refused" in caught.value.message
    assert "\n" not in caught.value.message
    await channel.close()


async def test_another_grpc_server_is_told_apart_at_once() -> None:
    server = await start_server("127.0.0.1:0", {})
    channel = connect(server.address)
    with pytest.raises(WalError, match="it is no walplane coordinator"):
        await Discovery(channel, server.address, ClientConfig()).start(30)
    await channel.close()
    await server.stop(0)


async def test_the_stream_is_opened_again_and_ends_with_close(
    coord: HandCoord, server: RpcServer, discovery: Discovery
) -> None:
    coord.publish(snapshot((1, 1), assignment(1)))
    await discovery.start(5)
    await server.stop(0)

    def add(server: object) -> None:
        coord_pb2_grpc.add_StreamingCoordServicer_to_server(coord, server)  # type: ignore[arg-type]

    again = await start_server(server.address, {"coord": add})
    coord.publish(snapshot((2, 1), assignment(2, "n2")))
    owner = await discovery.served(P0)
    async with asyncio.timeout(10):
        await discovery.moved(owner) if owner.term == 1 else None
    assert discovery.topology.assignments[P0].node_id == "n2"
    await discovery.close()
    await until(lambda: not coord.streams)
    await again.stop(0)


class Quitter(HandCoord):
    """Cancels its first stream, as a server that stops may, and tells nonsense on its second."""

    def __init__(self) -> None:
        super().__init__()
        self.streams = 0

    async def Discover(
        self, _requests: object, context: grpc.aio.ServicerContext[object, object]
    ) -> AsyncIterator[coord_pb2.DiscoverResponse]:
        self.streams += 1
        if self.streams == 2:
            yield snapshot((1, 2), coord_pb2.ChannelAssignment(pchannel=P0, state=99))  # type: ignore[arg-type]
        yield snapshot((1, self.streams), assignment(self.streams))
        if self.streams == 1:
            await context.abort(grpc.StatusCode.CANCELLED, "cancelling all calls")
        await asyncio.Event().wait()


async def test_whatever_ends_a_stream_it_is_opened_again() -> None:
    quitter = Quitter()

    def add(server: object) -> None:
        coord_pb2_grpc.add_StreamingCoordServicer_to_server(quitter, server)  # type: ignore[arg-type]

    server = await start_server("127.0.0.1:0", {"coord": add})
    channel = connect(server.address)
    discovery = Discovery(channel, server.address, ClientConfig())
    try:
        await discovery.start(10)
        await until(lambda: discovery.topology.assignments[P0].term == 3, 10)
    finally:
        await discovery.close()
        await channel.close()
        await server.stop(0)


async def test_a_call_that_something_else_cancelled_is_made_again(
    coord: HandCoord, discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow, cancelled = discovery._follow_once, iter([True])

    async def once() -> None:
        if next(cancelled, False):
            raise asyncio.CancelledError  # what grpc raises: nobody cancelled the task
        await follow()

    monkeypatch.setattr(discovery, "_follow_once", once)
    coord.publish(snapshot((1, 1), assignment(1)))
    await discovery.start(10)
    assert discovery.topology.assignments[P0].term == 1


class Bystander(HandCoord):
    """Stands by for its first streams: says to come back soon."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.refusals = refusals

    async def Discover(
        self, _requests: object, context: grpc.aio.ServicerContext[object, object]
    ) -> AsyncIterator[coord_pb2.DiscoverResponse]:
        if self.refusals:
            self.refusals -= 1
            refusal = WalError(ErrorCode.ON_SHUTDOWN, "it stands by", retry_after_ms=50)
            await context.abort_with_status(refusal.to_status())
        yield snapshot((1, 1), assignment(1))
        await asyncio.Event().wait()


async def test_one_that_stands_by_says_when_to_come_back() -> None:
    def add(server: object) -> None:
        coord_pb2_grpc.add_StreamingCoordServicer_to_server(Bystander(20), server)  # type: ignore[arg-type]

    server = await start_server("127.0.0.1:0", {"coord": add})
    channel = connect(server.address)
    discovery = Discovery(channel, server.address, ClientConfig())
    try:
        await discovery.start(10)  # the client's own pauses would add up to half a minute
    finally:
        await discovery.close()
        await channel.close()
        await server.stop(0)


async def test_a_coordinator_whose_machine_is_gone_is_missed_in_seconds(
    coord: HandCoord, server: RpcServer
) -> None:
    async with FaultyLink(server.address) as link:
        channel = connect(link.address)
        discovery = Discovery(channel, link.address, ClientConfig())
        coord.publish(snapshot((1, 1), assignment(1)))
        try:
            await discovery.start(5)
            link.vanish()
            coord.publish(snapshot((1, 2), assignment(2, "n2")))
            await until(lambda: discovery.topology.assignments[P0].term == 2, 13)
        finally:
            await discovery.close()
            await channel.close()
