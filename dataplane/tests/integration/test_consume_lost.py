"""A read that is given up in the middle of its first response is told so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from walplane.client import StreamingClient
from walplane.message.builder import insert
from walplane.node.consume import ConsumeStream
from walplane.rpc.channel import connect
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import streaming_pb2, streaming_pb2_grpc
from walplane.testkit.cluster import MiniCluster


async def test_a_read_that_loses_its_turn_in_its_first_response_hears_of_it(
    cluster: MiniCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC sends no status while the headers, which a first response carries, are on their way."""
    too_slow = WalError(ErrorCode.RESOURCE_ACQUIRED, "others wait")
    run = ConsumeStream.run

    async def losing(
        stream: ConsumeStream, requests: AsyncIterator[streaming_pb2.ConsumeRequest]
    ) -> None:
        write = stream._write

        async def write_and_lose(data: bytes) -> None:
            asyncio.get_running_loop().call_soon(lost)
            await write(data)

        def lost() -> None:
            if not stream._lost.done():
                stream._lost.set_result(too_slow)

        monkeypatch.setattr(stream, "_write", write_and_lose)
        await run(stream, requests)

    vchannel = await cluster.create_vchannel("test_0", collection_id=1)
    async with StreamingClient.connect(cluster.address) as wal:
        await wal.append_many(insert(vchannel, b"x" * 100_000) for _ in range(30))
        node = wal.topology().assignments["test_0"].address
    monkeypatch.setattr(ConsumeStream, "run", losing)
    start = streaming_pb2.StartConsume(
        pchannel="test_0",
        vchannel=vchannel,
        follow=True,
        credit_bytes=1 << 30,
        start=streaming_pb2.StartPosition(kind=streaming_pb2.START_EARLIEST),
    )
    channel = connect(node)
    call = streaming_pb2_grpc.StreamingNodeStub(channel).Consume()
    try:
        await call.write(streaming_pb2.ConsumeRequest(start=start))
        async with asyncio.timeout(20):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                while await call.read() is not grpc.aio.EOF:
                    pass
        assert "others wait" in str(refused.value.details())
    finally:
        call.cancel()
        await channel.close()
