"""StreamingClient and StreamingNode over real gRPC, on the memory backend."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from walplane.backends.registry import open_backend
from walplane.client import StreamingClient
from walplane.message.builder import insert
from walplane.testkit.cluster import MiniCluster


@pytest.fixture
async def cluster() -> AsyncIterator[MiniCluster]:
    backend = await open_backend("memory:")
    async with MiniCluster(backend, pchannels=2, nodes=("n1", "n2")) as cluster:
        yield cluster
    await backend.close()


async def test_what_is_appended_is_read(cluster: MiniCluster) -> None:
    vchannel = await cluster.create_vchannel(cluster.pchannels[0])
    async with StreamingClient.connect(cluster.address) as wal:
        result = await wal.append(insert(vchannel, b"hello"))
        messages = [m async for m in wal.read(vchannel, follow=False)]
    assert [m.payload for m in messages] == [b"", b"hello"]
    assert messages[1].message_id == result.message_id
    assert messages[1].time_tick == result.time_tick
