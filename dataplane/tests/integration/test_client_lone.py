"""Who appends alone does not wait for company; messages of one turn still share an entry."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from walplane.client import StreamingClient
from walplane.client.batcher import SendBatch
from walplane.client.grpc_transport import _GrpcProduce
from walplane.client.transport import Answer
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


async def test_enough_for_an_entry_leaves_while_the_others_of_the_turn_are_made(
    wal: StreamingClient, vchannel: str, sent: list[int]
) -> None:
    await burst(wal, vchannel, 10)
    appends = [asyncio.create_task(wal.append(insert(vchannel, b"%d" % n))) for n in range(100)]
    await asyncio.sleep(0)  # one step of each
    assert sent == [10, 64]
    await asyncio.gather(*appends)
    assert sent == [10, 64, 36]


async def test_who_was_answered_sends_the_next_before_another_answer_is_waited_for(
    wal: StreamingClient, vchannel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    send, receive = _GrpcProduce.send, _GrpcProduce.receive

    async def noted_send(stream: _GrpcProduce, request_id: int, batch: SendBatch) -> None:
        order.append("send")
        await send(stream, request_id, batch)

    async def noted_receive(stream: _GrpcProduce) -> Sequence[Answer]:
        order.append("waits")
        answers = await receive(stream)
        order.append("answered")
        return answers

    monkeypatch.setattr(_GrpcProduce, "send", noted_send)
    monkeypatch.setattr(_GrpcProduce, "receive", noted_receive)
    await wal.append(insert(vchannel, b"first"))
    order.clear()
    for number in range(3):
        await wal.append(insert(vchannel, b"%d" % number))
    assert order == ["send", "waits", "answered"] * 3
