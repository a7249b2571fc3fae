"""What cannot be sent ends a named producer: no later message ever takes its number."""

from __future__ import annotations

import asyncio

import pytest

from walplane.client import PartialAppendError, StreamingClient
from walplane.client.batcher import Kind, Parcel
from walplane.client.config import ClientConfig
from walplane.client.naming import NamedPipeline
from walplane.client.results import Written
from walplane.message.builder import insert
from walplane.message.ids import MessageID
from walplane.node.edge import Edge
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.reading import payloads
from walplane.testkit.waiting import until

V = "test_0_1v0"
LIMIT = 4096


def parcel(payload: bytes) -> Parcel:
    message = insert(V, payload)
    kind = Kind(message.envelope(), message.encoded_header(), merges=False)
    return Parcel(kind, [payload], len(payload))


async def test_behind_a_message_that_no_entry_can_hold_nothing_is_sent() -> None:
    pipe = NamedPipeline(V, "loader", epoch=1, next_number=7, config=ClientConfig())
    before, large, behind, later = (parcel(each) for each in (b"a", b"x" * LIMIT, b"c", b"d"))
    for each in (before, large, behind):
        pipe.offer(each)
    sent = pipe.next_batch(LIMIT)
    assert sent is not None
    assert sent.number == 7
    assert pipe.next_batch(LIMIT) is None
    pipe.offer(later)
    assert pipe.next_batch(LIMIT) is None
    for each in (large, behind, later):
        error = each.done.exception()
        assert isinstance(error, WalError)
        assert error.code is ErrorCode.INVALID_ARGUMENT
    assert not before.done.done(), "it is on its way: nobody knows yet what becomes of it"
    written = Written(MessageID("memory", (1,)), 100, None)
    pipe.settle(sent, written)
    assert before.done.result() == written
    assert pipe.idle


async def test_another_run_goes_on_at_the_message_that_no_entry_could_hold(
    wal: StreamingClient, vchannel: str
) -> None:
    rows = [b"0", b"1" * 300_000, b"2", b"3"]
    async with wal.producer("loader", vchannel) as producer:
        with pytest.raises(PartialAppendError) as error:
            await producer.append_many([insert(vchannel, row) for row in rows])
        assert [isinstance(each, WalError) for each in error.value.outcomes] == [False, *[True] * 3]
        with pytest.raises(WalError, match="takes nothing more"):
            await producer.append(insert(vchannel, b"4"))
    rows[1] = b"1"  # the source is mended
    async with wal.producer("loader", vchannel) as producer:
        assert producer.next_number == 1
        await producer.append_many([insert(vchannel, row) for row in rows[1:]])
    assert await payloads(wal, vchannel) == rows


@pytest.mark.parametrize("busy", [True, False])
async def test_an_open_under_way_ends_with_the_client(
    cluster: MiniCluster, vchannel: str, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    """It would keep out whoever opens the name later, on behalf of a program that is gone."""
    asked = 0

    async def refuse(*_: object) -> None:
        nonlocal asked
        asked += 1
        if not busy:
            await asyncio.Event().wait()
        raise WalError(ErrorCode.RESOURCE_ACQUIRED, "busy")

    monkeypatch.setattr(Edge, "open_producer", refuse)
    config = ClientConfig(backoff_min_s=0.001, backoff_max_s=0.001)
    async with StreamingClient.connect(cluster.address, config=config) as wal:
        opening = asyncio.create_task(wal.producer("loader", vchannel).__aenter__())
        await until(lambda: asked > 0)
    async with asyncio.timeout(5):
        await asyncio.wait([opening])
    error = opening.exception()
    assert isinstance(error, WalError)
    assert error.code is ErrorCode.ON_SHUTDOWN
