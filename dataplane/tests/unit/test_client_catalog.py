"""What a client is told of the catalog when it gets no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from walplane.backends.interface import Backend
from walplane.client import ClientConfig, StreamingClient
from walplane.client.catalog import CatalogClient
from walplane.rpc.channel import connect
from walplane.rpc.errors import Action, ErrorCode, WalError
from walplane.testkit.cluster import HandCoord, MiniCluster
from walplane.testkit.link import FaultyLink
from walplane.testkit.standalone import free_port
from walplane.testkit.waiting import unanswered


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


async def create(backend: Backend) -> None:
    """Asks a new cluster for a collection."""
    async with MiniCluster(backend) as cluster, StreamingClient.connect(cluster.address) as client:
        await client.create_collection("events")


@pytest.mark.parametrize("change", ["create_collection", "drop_collection"])
async def test_a_change_whose_coordinator_goes_away_may_be_made_and_says_so(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    asked, never = unanswered()
    for call in ("CreateCollection", "DropCollection"):
        monkeypatch.setattr(HandCoord, call, never)
    async with (
        MiniCluster(backend) as cluster,
        FaultyLink(cluster.address) as link,
        StreamingClient.connect(link.address) as client,
    ):
        changing = asyncio.create_task(getattr(client, change)("events"))
        await asked.wait()
        await link.cut()
        with pytest.raises(WalError, match=r"broke off \(.+\).*durable") as caught:
            await changing
    assert caught.value.code is ErrorCode.OUTCOME_UNKNOWN


async def test_a_change_that_a_coordinator_failed_in_may_be_made_and_says_so(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: object) -> None:
        raise ValueError("nobody thought of it")

    monkeypatch.setattr(HandCoord, "CreateCollection", failing)
    with pytest.raises(WalError, match="nobody thought of it") as caught:
        await create(backend)
    assert caught.value.code is ErrorCode.OUTCOME_UNKNOWN


async def test_a_change_that_a_coordinator_refuses_is_not_made(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = WalError(ErrorCode.ON_SHUTDOWN, "it stands by")

    async def refusing(
        _: HandCoord, __: object, context: grpc.aio.ServicerContext[object, object]
    ) -> None:
        await context.abort_with_status(refusal.to_status())

    monkeypatch.setattr(HandCoord, "CreateCollection", refusing)
    with pytest.raises(WalError, match="it stands by") as caught:
        await create(backend)
    assert caught.value.code is ErrorCode.ON_SHUTDOWN


async def test_a_change_that_no_coordinator_heard_of_is_not_made() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with connect(address) as channel:
        with pytest.raises(WalError, match="cannot be reached") as caught:
            await CatalogClient(channel, address, ClientConfig()).create("events", 1)
    assert caught.value.code is ErrorCode.ON_SHUTDOWN


async def test_a_look_that_is_not_answered_in_time_may_be_repeated(
    unheard: StreamingClient,
) -> None:
    with pytest.raises(WalError, match="failed with DEADLINE_EXCEEDED") as caught:
        await unheard.list_collections()
    assert caught.value.action is Action.RETRY
