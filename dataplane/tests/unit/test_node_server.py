"""One port for any services: health, reflection, ports in use, and an orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from walplane.backends.registry import open_backend
from walplane.node import RpcServer, start_server
from walplane.node.server import take_port
from walplane.node.service import SERVICE_NAME
from walplane.rpc.channel import MAX_MESSAGE_BYTES, connect
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import streaming_pb2, streaming_pb2_grpc
from walplane.testkit.cluster import MiniCluster

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def cluster() -> AsyncIterator[MiniCluster]:
    backend = await open_backend("memory:")
    async with MiniCluster(backend) as cluster:
        yield cluster
    await backend.close()


@pytest.fixture
async def server(cluster: MiniCluster) -> RpcServer:
    return cluster.members["n1"].server


@pytest.fixture
async def channel(server: RpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with connect(server.address) as channel:
        yield channel


async def test_health_says_of_itself_that_it_serves(channel: grpc.aio.Channel) -> None:
    """Who asks whether a process is alive must not hear that it replays a long log."""
    request = health_pb2.HealthCheckRequest(service="grpc.health.v1.Health")
    assert (await health_pb2_grpc.HealthStub(channel).Check(request)).status == SERVING


async def test_health_says_serving_only_when_told(
    server: RpcServer, channel: grpc.aio.Channel
) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE_NAME):
        request = health_pb2.HealthCheckRequest(service=service)
        assert (await health.Check(request)).status == NOT_SERVING
        await server.set_serving(service, True)
        assert (await health.Check(request)).status == SERVING


async def test_reflection_lists_the_services(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    call.cancel()
    names = {service.name for service in answer.list_services_response.service}
    assert {SERVICE_NAME, "grpc.health.v1.Health"} <= names


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1", ":7650", "127.0.0.1:port"])
async def test_what_is_no_address(listen: str) -> None:
    with pytest.raises(WalError, match="is no address: expected HOST:PORT"):
        await start_server(listen, {})


async def test_a_port_in_use_is_one_clear_line(server: RpcServer) -> None:
    with pytest.raises(WalError, match=f"cannot listen on {server.address}") as caught:
        await start_server(server.address, {})
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


async def test_a_port_is_taken_before_there_is_something_to_serve() -> None:
    port = take_port("127.0.0.1:0")
    listen = f"127.0.0.1:{port.port}"
    with pytest.raises(WalError, match=f"cannot listen on {listen}"):
        take_port(listen)
    async with connect(listen) as channel:
        asking = asyncio.ensure_future(
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        )
        serving = await port.serve({})
        assert (await asking).status == NOT_SERVING, "who came early is answered"
    await port.close()
    async with connect(listen) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=30
        )
        assert answer.status == NOT_SERVING, "it is the server's now"
    await serving.stop(0)


async def test_a_port_that_is_not_served_is_given_back() -> None:
    port = take_port("127.0.0.1:0")
    await port.close()
    await port.close()
    again = take_port(f"127.0.0.1:{port.port}")
    await again.close()


async def test_a_stream_that_begins_wrong_gets_a_typed_error(channel: grpc.aio.Channel) -> None:
    stub = streaming_pb2_grpc.StreamingNodeStub(channel)
    produce, consume = stub.Produce(), stub.Consume()
    await produce.write(streaming_pb2.ProduceRequest())
    await consume.write(streaming_pb2.ConsumeRequest(credit_bytes=1))
    for read in (produce.read, consume.read):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read()
        error = WalError.from_rpc(caught.value, "node")
        assert error.code is ErrorCode.INVALID_ARGUMENT
        assert "the first request of this stream must be" in error.message


async def test_another_term_than_the_held_one_is_refused_with_its_type(
    channel: grpc.aio.Channel,
) -> None:
    call = streaming_pb2_grpc.StreamingNodeStub(channel).Produce()
    opening = streaming_pb2.OpenProduce(pchannel="test_0", term=99)
    await call.write(streaming_pb2.ProduceRequest(open=opening))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert WalError.from_rpc(caught.value, "node").code is ErrorCode.UNMATCHED_CHANNEL_TERM


async def test_a_closed_node_ends_its_streams_so_that_the_server_stops_at_once(
    cluster: MiniCluster, server: RpcServer, channel: grpc.aio.Channel
) -> None:
    call = streaming_pb2_grpc.StreamingNodeStub(channel).Produce()
    opening = streaming_pb2.OpenProduce(pchannel="test_0")
    await call.write(streaming_pb2.ProduceRequest(open=opening))
    first = await call.read()
    assert isinstance(first, streaming_pb2.ProduceResponse)
    assert 0 < first.opened.max_entry_bytes < MAX_MESSAGE_BYTES
    await cluster.members["n1"].node.close()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert WalError.from_rpc(caught.value, "node").code is ErrorCode.ON_SHUTDOWN
    async with asyncio.timeout(5):
        await server.stop(60)
        await server.wait()
