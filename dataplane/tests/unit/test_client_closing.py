"""What is under way when a client closes, and what it forgets while it lives."""

from __future__ import annotations

import asyncio

import pytest

from walplane.backends.interface import Backend
from walplane.client import StreamingClient
from walplane.node.service import StreamingNodeService
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.cluster import MiniCluster


async def test_a_status_under_way_tells_that_the_client_was_closed(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def never(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(StreamingNodeService, "NodeStatus", never)
    async with MiniCluster(backend) as cluster:
        async with StreamingClient.connect(cluster.address) as wal:
            asking = asyncio.create_task(wal.node_status())
            await asked.wait()
        [status] = (await asking).values()
    assert isinstance(status, WalError)
    assert status.code is ErrorCode.ON_SHUTDOWN
