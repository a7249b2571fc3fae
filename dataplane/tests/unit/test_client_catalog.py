"""What a client is told of the catalog when nobody answers in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from walplane.backends.interface import Backend
from walplane.client import ClientConfig, StreamingClient
from walplane.rpc.errors import Action, ErrorCode, WalError
from walplane.testkit.cluster import HandCoord, MiniCluster


@pytest.fixture
async def unheard(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[StreamingClient]:
    """A client with little time, of a coordinator that takes calls and answers none."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    for call in ("CreateCollection", "DropCollection", "ListCollections"):
        monkeypatch.setattr(HandCoord, call, never)
    config = ClientConfig(call_timeout_s=0.2)
    async with (
        MiniCluster(backend) as cluster,
        StreamingClient.connect(cluster.address, config=config) as client,
    ):
        yield client


async def test_a_change_that_is_not_answered_in_time_may_be_made_and_says_so(
    unheard: StreamingClient,
) -> None:
    for change in (unheard.create_collection("events"), unheard.drop_collection("events")):
        with pytest.raises(WalError, match=r"did not answer within 0.2 s.*durable") as caught:
            await change
        assert caught.value.code is ErrorCode.OUTCOME_UNKNOWN
        assert caught.value.action is Action.GIVE_UP, "it is the caller who looks what there is"


async def test_a_look_that_is_not_answered_in_time_may_be_repeated(
    unheard: StreamingClient,
) -> None:
    with pytest.raises(WalError, match="failed with DEADLINE_EXCEEDED") as caught:
        await unheard.list_collections()
    assert caught.value.action is Action.RETRY
