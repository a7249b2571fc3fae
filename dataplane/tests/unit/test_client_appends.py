"""One client's appends, over a stream that the test answers: who is told what, who goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import cast

import pytest

from walplane.client import AppendResult, AppendResults, PartialAppendError
from walplane.client.appends import Appends
from walplane.client.batcher import SendBatch
from walplane.client.config import ClientConfig
from walplane.client.discovery import Assignment, Discovery, Topology
from walplane.client.grpc_transport import append_request
from walplane.client.results import Written
from walplane.client.transport import Answer, ProduceStream, Transport
from walplane.message.builder import insert
from walplane.message.ids import MessageID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import streaming_pb2
from walplane.testkit.waiting import until

P0, P1 = "test_0", "test_1"
V0, UNSERVED = "test_0_1v0", "test_1_1v0"
WRITTEN = Written(MessageID("memory", (7,)), 100, None)
BUSY = WalError(ErrorCode.INNER, "busy")

Reply = Callable[[int], Written | WalError | None]


class Owner:
    """Discovery, transport and stream in one: serves P0, and nobody serves P1.

    Attributes:
        sent: what came, in order.
        reply: the answer to the n-th entry, from 1; None = none until `answer`.
        answers: on their way to the client, or how the stream ends.
    """

    remote = False
    max_entry_bytes = packed_bytes = 1 << 20
    settled_tick = 1

    def __init__(self, reply: Reply = lambda _: WRITTEN) -> None:
        self.reply = reply
        self.sent: list[streaming_pb2.AppendRequest] = []
        self.answers: asyncio.Queue[Answer | Exception] = asyncio.Queue()
        assignments = (
            Assignment(P0, 1, "n1", "n1:1", "ASSIGNED"),
            Assignment(P1, 1, "", "", "UNAVAILABLE"),
        )
        self.topology = Topology(assignments={each.pchannel: each for each in assignments})

    def known(self, pchannel: str) -> Assignment:
        return self.topology.assignments[pchannel]

    def why_unserved(self, pchannel: str) -> str:
        return f"nobody serves {pchannel}"

    def report(self, _assignment: Assignment, _error: WalError) -> None:
        """It serves on."""

    async def served(self, pchannel: str, **_: object) -> Assignment:
        if pchannel == P1:
            await asyncio.Event().wait()
        return self.known(pchannel)

    async def moved(self, _: Assignment) -> None:
        await asyncio.Event().wait()

    async def open_produce(self, _: Assignment) -> ProduceStream:
        self.answers = asyncio.Queue()  # what the stream before still had is lost
        return cast(ProduceStream, self)

    async def send(self, request_id: int, batch: SendBatch) -> None:
        data = append_request(request_id, batch, asyncio.get_running_loop().time())
        self.sent.append(streaming_pb2.ProduceRequest.FromString(data).append)
        reply = self.reply(len(self.sent))
        if reply is not None:
            self.answer(request_id, reply)

    def answer(self, request_id: int, outcome: Written | WalError) -> None:
        self.answers.put_nowait((request_id, outcome))

    async def receive(self) -> Sequence[Answer]:
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return [answer]

    async def close(self) -> None:
        """Nothing to let go."""


def appends(owner: Owner, **limits: float) -> Appends:
    transport, ids = cast(Transport, owner), count()
    config = ClientConfig.model_validate(limits)
    new_id = lambda: next(ids).to_bytes(16, "big")  # noqa: E731
    return Appends("the client", cast(Discovery, owner), lambda _: transport, new_id, config)


async def failure(
    call: asyncio.Future[AppendResult] | asyncio.Future[AppendResults],
) -> WalError:
    async with asyncio.timeout(10):
        await asyncio.wait([call])
    error = call.exception()
    assert isinstance(error, WalError)
    return error


@pytest.mark.parametrize("cancelled", [False, True])
async def test_what_was_given_up_unsent_keeps_no_room_from_others(cancelled: bool) -> None:
    client = appends(Owner(), pending_bytes=1000)
    for _ in range(3):
        seconds = 60.0 if cancelled else 0.01
        call = asyncio.ensure_future(client.one(insert(UNSERVED, b"a" * 480), seconds))
        await asyncio.sleep(0)
        call.cancel() if cancelled else None
        await asyncio.wait([call])
    assert client._pending.used == 0
    assert client._producers[P1]._pipelines[UNSERVED].idle, "nothing is kept of it"
    async with asyncio.timeout(10):
        await client.one(insert(V0, b"b" * 900), 60.0)
    await client.close()


async def test_what_waits_behind_others_until_its_time_is_up_is_not_written() -> None:
    owner = Owner(lambda _: None)
    client = appends(owner, eager_batches=1)
    sent = asyncio.ensure_future(client.one(insert(V0, b"sent"), 0.3))
    await until(lambda: len(owner.sent) == 1)
    one = asyncio.ensure_future(client.one(insert(V0, b"one"), 0.01))
    many = asyncio.ensure_future(client.many([insert(V0, b"many")] * 2, 0.01))
    refused = await failure(one)
    assert refused.code is ErrorCode.RESOURCE_ACQUIRED
    assert "nothing of it is written" in refused.message
    partly = await failure(many)
    assert isinstance(partly, PartialAppendError)
    for outcome in partly.outcomes:
        assert isinstance(outcome, WalError)
        assert outcome.code is ErrorCode.RESOURCE_ACQUIRED
    assert (await failure(sent)).code is ErrorCode.OUTCOME_UNKNOWN
    owner.reply = lambda _: WRITTEN
    owner.answer(owner.sent[0].request_id, WRITTEN)
    async with asyncio.timeout(10):
        await client.one(insert(V0, b"next"), 60.0)
    assert [request.entry.body[-4:] for request in owner.sent] == [b"sent", b"next"]
    await client.close()


async def test_who_has_time_without_end_waits_for_locks_as_long_as_it_takes() -> None:
    owner = Owner()
    client = appends(owner)
    async with asyncio.timeout(10):
        await client.one(insert(V0, b"x"), float("inf"))
        await client.many([insert(V0, b"x")], float("inf"))
    assert [request.wait_ms for request in owner.sent] == [0, 0]
    await client.close()


async def test_a_back_off_that_outlives_its_sender_holds_up_nobody() -> None:
    owner = Owner(lambda _: None)
    client = appends(owner, backoff_min_s=0.01)
    first = asyncio.ensure_future(client.one(insert(V0, b"first"), 60.0))
    await until(lambda: len(owner.sent) == 1)
    owner.answer(owner.sent[0].request_id, BUSY)
    owner.answers.put_nowait(RuntimeError("broken"))
    assert (await failure(first)).code is ErrorCode.OUTCOME_UNKNOWN
    fired = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, fired.set)  # timers keep their order
    await fired.wait()
    owner.reply = lambda _: WRITTEN
    async with asyncio.timeout(10):
        await client.one(insert(V0, b"next"), 60.0)
    await client.close()
