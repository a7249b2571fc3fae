"""What an entry of several calls was refused for is made good by smaller ones, in order, once."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from walplane.backends.registry import open_backend
from walplane.client import StreamingClient
from walplane.client.batcher import Kind, Parcel, SendBatch
from walplane.client.config import ClientConfig
from walplane.client.naming import NamedPipeline
from walplane.client.pipeline import Pipeline
from walplane.client.results import Written
from walplane.message.builder import insert
from walplane.message.ids import MessageID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.reading import payloads

VCHANNEL = "test_0_1v0"
TOO_LARGE = WalError(ErrorCode.INVALID_ARGUMENT, "larger than what fits")
GAP = WalError(ErrorCode.INVALID_REQUEST_SEQ, "a gap")
LARGE, PACKED = 1 << 20, 3000


def parcels(first: int, last: int, size: int = 1000) -> list[Parcel]:
    message = insert(VCHANNEL, b"")
    kind = Kind(message.envelope(), message.encoded_header(), merges=True)
    return [Parcel(kind, [b"%04d" % i + b"x" * size], size + 4) for i in range(first, last)]


def pipeline() -> Pipeline:
    ids = count()
    return Pipeline(VCHANNEL, lambda: next(ids).to_bytes(16, "big"), ClientConfig())


def offer(pipe: Pipeline, offered: list[Parcel]) -> SendBatch:
    """The one batch that all of them make."""
    for parcel in offered:
        pipe.offer(parcel)
    batch = pipe.next_batch(LARGE)
    assert batch is not None
    assert batch.calls == len(offered)
    return batch


def write_all(pipe: Pipeline) -> list[tuple[bytes, int, int]]:
    """(producer, number, calls) of each batch that is still to be sent, all written."""
    sent = []
    while (batch := pipe.next_batch(LARGE, 0, PACKED)) is not None:
        assert batch.size <= PACKED or batch.calls == 1
        sent.append((batch.producer_id, batch.number, batch.calls))
        pipe.settle(
            batch, Written(MessageID("memory", (len(sent),)), len(sent) * 100, None), PACKED
        )
    return sent


async def test_a_batch_of_several_calls_that_is_too_large_is_packed_anew() -> None:
    pipe, offered = pipeline(), parcels(0, 5)
    first = offer(pipe, offered)
    second = offer(pipe, behind := parcels(5, 6))
    pipe.settle(first, TOO_LARGE, PACKED)
    assert pipe.next_batch(LARGE, 0, PACKED) is None, "what was sent behind it is answered first"
    pipe.settle(second, GAP, PACKED)
    sent = write_all(pipe)
    assert [number for _, number, _ in sent] == [0, 1, 2], "under one new id, without a gap"
    assert {producer for producer, _, _ in sent} == {sent[0][0]} != {first.producer_id}
    assert [parcel.done.result().first_tick for parcel in offered + behind] == [
        *(100, 101),
        *(200, 201),
        *(300, 301),
    ]
    assert pipe.idle


async def test_one_call_that_is_too_large_by_itself_fails_alone() -> None:
    pipe = pipeline()
    [large] = parcels(0, 1, size=2 * PACKED)
    pipe.offer(large)
    batch = pipe.next_batch(LARGE)
    assert batch is not None
    pipe.settle(batch, TOO_LARGE, PACKED)
    assert large.done.exception() is TOO_LARGE


async def test_a_batch_that_was_small_enough_was_refused_for_something_else() -> None:
    pipe, offered = pipeline(), parcels(0, 2)
    pipe.settle(offer(pipe, offered), TOO_LARGE, PACKED)
    assert [parcel.done.exception() for parcel in offered] == [TOO_LARGE] * 2


async def test_who_gave_up_meanwhile_is_not_sent_again() -> None:
    pipe, offered = pipeline(), parcels(0, 5)
    batch = offer(pipe, offered)
    offered[0].given_up = WalError(ErrorCode.OUTCOME_UNKNOWN, "too late")
    pipe.settle(batch, TOO_LARGE, PACKED)
    assert sum(calls for _, _, calls in write_all(pipe)) == 4


async def test_a_named_producer_still_stops_at_what_is_refused() -> None:
    pipe = NamedPipeline(VCHANNEL, "loader", 1, 0, ClientConfig())
    offered = parcels(0, 5)
    pipe.settle(offer(pipe, offered), TOO_LARGE, PACKED)
    assert [parcel.done.exception() for parcel in offered] == [TOO_LARGE] * 5


@pytest.mark.parametrize("limit", [50_000, 9_000])
async def test_small_messages_are_written_though_the_backend_takes_less_than_it_told(
    limit: int,
) -> None:
    """Each of them fits a record; together in an entry they do not."""
    backend = FaultyBackend(await open_backend("memory:"))
    async with MiniCluster(backend) as cluster, asyncio.timeout(60):
        vchannel = await cluster.create_vchannel("test_0")
        rows = [b"%04d" % i + b"x" * 1000 for i in range(200)]
        async with StreamingClient.connect(cluster.address) as wal:
            await wal.append(insert(vchannel, b"before"))
            backend.record_bytes = limit
            await asyncio.gather(*(wal.append(insert(vchannel, row)) for row in rows))
            assert await payloads(wal, vchannel) == [b"before", *rows]
        log = cluster.owner("test_0").wal("test_0")
        opens = log.open_number
        assert limit / 3 < log.limits.packed_bytes < limit
        async with StreamingClient.connect(cluster.address) as other:
            await other.append_many([insert(vchannel, row) for row in rows])
            single = b"y" * (limit - 1000)  # what several should not exceed, one may
            await other.append(insert(vchannel, single))
            assert await payloads(other, vchannel) == [b"before", *rows, *rows, single]
        assert log.open_number == opens, "a client that comes later is told"
    await backend.close()


async def test_many_messages_of_one_call_are_written_when_they_are_sent_again() -> None:
    backend = FaultyBackend(await open_backend("memory:"))
    async with MiniCluster(backend) as cluster, asyncio.timeout(60):
        vchannel = await cluster.create_vchannel("test_0")
        messages = [insert(vchannel, b"%04d" % i + b"x" * 1000) for i in range(100)]
        async with StreamingClient.connect(cluster.address) as wal:
            await wal.append(insert(vchannel, b"before"))
            backend.record_bytes = 50_000
            with pytest.raises(WalError, match="send them again in smaller numbers"):
                await wal.append_many(messages)
            await wal.append_many(messages)
            found = await payloads(wal, vchannel)
    assert found == [b"before", *(message.payloads[0] for message in messages)]
    await backend.close()
