"""A cancelled task ends, whatever gRPC makes of the cancellation.

grpc.aio swallows about one in thirty of those that come while it prepares a call that was refused
by then. A task that tries again would never hear of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from unittest.mock import create_autospec

import grpc
import pytest

from walplane.client.config import ClientConfig
from walplane.client.discovery import Assignment, Discovery
from walplane.client.grpc_transport import GrpcTransport
from walplane.coord.node_appender import NodeAppender
from walplane.coord.ports import AssignmentSource
from walplane.message.builder import insert
from walplane.rpc.channel import connect
from walplane.rpc.errors import WalError
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind

ATTEMPTS = 400
SWALLOWED_WITHIN_S = 0.003

Attempt = Callable[[], Awaitable[object]]


class Refusing(grpc.GenericRpcHandler):
    """Every call ends at once: somebody is there, who does not serve."""

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    async def _refuse(self, _requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not here")


@pytest.fixture
async def address() -> AsyncIterator[str]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Refusing(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture(params=["read", "append", "broadcast"])
async def attempt(request: pytest.FixtureRequest, address: str) -> AsyncIterator[Attempt]:
    transport = GrpcTransport(ClientConfig())
    owner = Assignment("p_0", 1, "n", address, "ASSIGNED")
    source = create_autospec(AssignmentSource, instance=True)
    source.place.return_value = (owner, address)
    appender, entry = NodeAppender(source), insert("p_0_1v0", b"one").to_entry()

    async def read() -> None:
        stream = await transport.open_consume(owner, ScanRequest(ScanStart(StartKind.EARLIEST)))
        try:
            await stream.receive()
        finally:
            await stream.close()

    async def append() -> None:
        await transport.open_produce(owner)

    async def broadcast() -> None:
        await appender.append(entry)

    yield {"read": read, "append": append, "broadcast": broadcast}[request.param]
    await transport.close()
    await appender.close()


async def test_whoever_tries_again_ends_when_it_is_cancelled(attempt: Attempt) -> None:
    async def again_and_again() -> None:
        while True:
            try:
                await attempt()
            except WalError:
                await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    for number in range(ATTEMPTS):
        task = asyncio.create_task(again_and_again())
        cancelled_at = loop.time() + SWALLOWED_WITHIN_S * number / ATTEMPTS
        while loop.time() < cancelled_at:  # noqa: ASYNC110 - at every point of a call, some time
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=5)
        assert done, f"attempt {number} goes on though it was cancelled"
        assert task.cancelled()


async def test_a_client_that_finds_nobody_can_be_closed(address: str) -> None:
    config = ClientConfig(backoff_min_s=0.001, backoff_max_s=0.001)
    async with connect(address) as channel, asyncio.timeout(50):
        for number in range(ATTEMPTS):
            discovery = Discovery(channel, address, config)
            with pytest.raises(WalError):
                await discovery.start(SWALLOWED_WITHIN_S * number / ATTEMPTS)
