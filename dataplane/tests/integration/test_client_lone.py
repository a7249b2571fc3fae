"""Who appends alone does not wait for company; messages of one turn still share an entry."""

from __future__ import annotations

import asyncio

import pytest

from walplane.client import StreamingClient
from walplane.client.batcher import SendBatch
from walplane.client.grpc_transport import _GrpcProduce
from walplane.message.builder import insert


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each batch had that was handed to gRPC."""
    counts: list[int] = []
    send = _GrpcProduce.send

    async def spy(stream: _GrpcProduce, request_id: int, batch: SendBatch) -> None:
        counts.append(batch.count)
        await send(stream, request_id, batch)

    monkeypatch.setattr(_GrpcProduce, "send", spy)
    return counts


async def burst(wal: StreamingClient, vchannel: str, size: int) -> None:
    await asyncio.gather(*(wal.append(insert(vchannel, b"%d" % n)) for n in range(size)))


async def test_behind_an_append_that_was_alone_the_next_leaves_in_its_own_step(
    wal: StreamingClient, vchannel: str, sent: list[int]
) -> None:
    await wal.append(insert(vchannel, b"first"))
    append = asyncio.create_task(wal.append(insert(vchannel, b"second")))
    await asyncio.sleep(0)  # one step of it
    assert sent == [1, 1]
    await append


async def test_behind_many_those_of_one_turn_share_an_entry(
    wal: StreamingClient, vchannel: str, sent: list[int]
) -> None:
    await burst(wal, vchannel, 10)
    await burst(wal, vchannel, 10)
    assert sent == [10, 10]
    await wal.append(insert(vchannel, b"alone"))
    await burst(wal, vchannel, 10)
    assert sent[2:] == [1, 1, 9]
