"""Produce and Consume streams against a log that the test controls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from walplane.message.builder import insert
from walplane.message.ids import MessageID, ResumeToken
from walplane.node.config import NodeConfig
from walplane.node.consume import ConsumeStream
from walplane.node.edge import Edge
from walplane.node.produce import ProduceStream
from walplane.node.turns import ReadTurns
from walplane.prompt import PromptFuture
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.flow import MOST_UNGRANTED_BYTES, ByteBudget
from walplane.rpc.v1 import log_pb2, streaming_pb2
from walplane.testkit.waiting import until
from walplane.wal.interceptors.base import AppendOp
from walplane.wal.limits import RecordLimits
from walplane.wal.meter import Durations, LogMeter
from walplane.wal.ports import AppendResult, LogEntry
from walplane.wal.scan.live import LivePosition
from walplane.wal.scan.request import ScanBatch, ScanRequest, StartKind
from walplane.wal.wal import WAL

VCHANNEL = "test_0_1v0"
GONE = WalError(ErrorCode.ON_SHUTDOWN, "moved away")


class FakeLog:
    """Answers appends when told to, and scans what it is given."""

    pchannel = "test_0"
    term = 7
    open_number = 2
    max_entry_bytes = 10_000

    def __init__(self) -> None:
        self.meter = LogMeter({}, Durations())
        self.limits = RecordLimits(1 << 20, 1 << 20)
        self.started: list[bytes] = []
        self.finished: list[bytes] = []
        self.release = asyncio.Event()
        self.live = LivePosition(500, (9,), None, 2)
        self.scanned: asyncio.Queue[ScanBatch] = asyncio.Queue()
        self.requests: list[ScanRequest] = []
        self.scanning = 0

    def has_written(self, envelope: log_pb2.Envelope) -> bool:
        return False

    def has_vchannel(self, name: str) -> bool:
        return name == VCHANNEL

    def start_append(self, op: AppendOp) -> asyncio.Future[AppendResult]:
        return asyncio.create_task(self._append(op.take_body()))

    async def _append(self, body: bytes) -> AppendResult:
        self.started.append(body)
        number = len(self.started)
        await self.release.wait()
        self.finished.append(body)
        return AppendResult(MessageID("memory", (number,)), number * 10, 1, None, 7, 2)

    def live_position(self) -> LivePosition:
        return self.live

    def settled_tick(self) -> int:
        return self.live.watermark

    def scan(self, request: ScanRequest) -> FakeLog:
        self.requests.append(request)
        return self

    async def __aenter__(self) -> FakeLog:
        self.scanning += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.scanning -= 1

    async def ready(self) -> None:
        pass

    async def rest(self) -> None:
        pass

    @property
    def holding(self) -> bool:
        return False

    async def next(self, *, wait: bool = True) -> ScanBatch:
        return await self.scanned.get()


class PromptLog(FakeLog):
    """Its appends are done when the test completes them."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[AppendOp] = []
        self.appends: list[PromptFuture[AppendResult]] = []

    def start_append(self, op: AppendOp) -> PromptFuture[AppendResult]:
        self.ops.append(op)
        self.appends.append(PromptFuture())
        return self.appends[-1]


class Client:
    """What the other side sends and receives."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[object] = asyncio.Queue()
        self.read = 0
        self.produced: list[streaming_pb2.ProduceResponse] = []
        self.consumed: asyncio.Queue[streaming_pb2.ConsumeResponse] = asyncio.Queue()

    def append(
        self, request_id: int, payload: bytes, vchannel: str = VCHANNEL, wait_ms: int = 0
    ) -> None:
        entry = insert(vchannel, payload).to_entry()
        append = streaming_pb2.AppendRequest(request_id=request_id, entry=entry, wait_ms=wait_ms)
        self.requests.put_nowait(streaming_pb2.ProduceRequest(append=append))

    def credit(self, size: int) -> None:
        self.requests.put_nowait(streaming_pb2.ConsumeRequest(credit_bytes=size))

    def half_close(self) -> None:
        self.requests.put_nowait(None)

    async def produce_requests(self) -> AsyncIterator[streaming_pb2.ProduceRequest]:
        while (request := await self.requests.get()) is not None:
            self.read += 1
            yield cast(streaming_pb2.ProduceRequest, request)

    async def consume_requests(self) -> AsyncIterator[streaming_pb2.ConsumeRequest]:
        while (request := await self.requests.get()) is not None:
            yield cast(streaming_pb2.ConsumeRequest, request)

    async def write_produced(self, response: streaming_pb2.ProduceResponse) -> None:
        self.produced.append(response)

    async def write_consumed(self, response: bytes) -> None:
        self.consumed.put_nowait(streaming_pb2.ConsumeResponse.FromString(response))

    @property
    def answers(self) -> dict[int, streaming_pb2.AppendResponse]:
        return {item.request_id: item for response in self.produced for item in response.appends}


@pytest.fixture
async def log() -> FakeLog:
    return FakeLog()


@pytest.fixture
async def edge(log: FakeLog) -> Edge:
    return Edge(cast(WAL, log))


@pytest.fixture
async def client() -> Client:
    return Client()


def produce(edge: Edge, client: Client, budget: int = 1 << 20) -> asyncio.Task[None]:
    config = NodeConfig(stream_append_bytes=budget, drain_timeout_s=2)
    stream = ProduceStream(edge, [ByteBudget(1 << 20)], config, client.write_produced)
    return asyncio.create_task(stream.run(client.produce_requests()))


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_appends_start_in_order_and_ready_answers_leave_together(
    log: FakeLog, edge: Edge, client: Client
) -> None:
    for number in range(5):
        client.append(number, b"%d" % number)
    stream = produce(edge, client)
    await turns()
    assert [body[-1:] for body in log.started] == [b"0", b"1", b"2", b"3", b"4"]
    assert client.produced == []
    log.release.set()
    client.half_close()
    await stream
    assert len(client.produced) == 1
    assert client.answers[3].result.first_tick == 40
    assert client.answers[3].result.message_id.record == [4]


async def test_the_last_answer_due_leaves_in_its_own_step_with_those_before_it(
    client: Client,
) -> None:
    log = PromptLog()
    client.append(0, b"0")
    client.append(1, b"1")
    stream = produce(Edge(cast(WAL, log)), client)
    await turns()
    result = AppendResult(MessageID("memory", (1,)), 10, 1, None, 7, 2)
    log.appends[0].set_result(result)
    assert client.produced == []
    log.appends[1].set_result(result)
    assert [set(client.answers), len(client.produced)] == [{0, 1}, 1]
    client.half_close()
    await stream


async def test_who_was_answered_before_the_append_was_over_is_not_answered_again(
    client: Client,
) -> None:
    log, budget = PromptLog(), ByteBudget(1 << 20)
    client.append(0, b"0")
    config = NodeConfig(drain_timeout_s=2)
    stream = ProduceStream(Edge(cast(WAL, log)), [budget], config, client.write_produced)
    running = asyncio.create_task(stream.run(client.produce_requests()))
    await turns()
    result = AppendResult(MessageID("memory", (1,)), 10, 1, None, 7, 2)
    durable, answer = PromptFuture[AppendResult](), log.ops[0].answer
    assert answer is not None
    durable.set_result(result)
    answer(durable)
    assert client.answers[0].result.first_tick == 10
    assert budget.used
    log.appends[0].set_result(result)
    assert not budget.used
    client.half_close()
    await running
    assert len(client.produced) == 1


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_client_that_takes_no_answer_keeps_no_stream(
    log: FakeLog, edge: Edge, client: Client, cancelled: bool
) -> None:
    begun = asyncio.Event()

    async def write(_response: streaming_pb2.ProduceResponse) -> None:
        begun.set()
        await asyncio.sleep(3600)

    config = NodeConfig(drain_timeout_s=0.01)
    stream = ProduceStream(edge, [ByteBudget(1 << 20)], config, write)
    running = asyncio.create_task(stream.run(client.produce_requests()))
    client.append(1, b"1")
    log.release.set()
    await asyncio.wait_for(begun.wait(), 5)
    if cancelled:
        running.cancel()
    else:
        edge.end(WalError(ErrorCode.ON_SHUTDOWN, "it moved"))
    done, _ = await asyncio.wait({running}, timeout=2)
    assert done == {running}
    assert running.cancelled() or isinstance(running.exception(), WalError)


async def test_above_the_budget_the_stream_is_not_read_on(
    log: FakeLog, edge: Edge, client: Client
) -> None:
    for number in range(5):
        client.append(number, b"x" * 100)
    stream = produce(edge, client, budget=250)
    await turns()
    assert len(log.started) == 2
    assert client.read == 3
    log.release.set()
    client.half_close()
    await stream
    assert len(client.answers) == 5


async def test_the_wait_for_the_budget_takes_of_the_time_for_locks(client: Client) -> None:
    log, now = PromptLog(), asyncio.get_running_loop().time
    for number, wait_ms in enumerate((0, 60_000, 1)):
        client.append(number, b"x" * 100, wait_ms=wait_ms)
    stream = produce(Edge(cast(WAL, log)), client, budget=150)
    await turns()
    read, result = now(), AppendResult(MessageID("memory", (1,)), 10, 1, None, 7, 2)
    await until(lambda: now() > read + 0.01)
    log.appends[0].set_result(result)
    await until(lambda: len(log.ops) == 2)
    deadline = log.ops[1].deadline
    assert deadline is not None
    assert deadline < read + 60.001
    read = now()
    await turns()
    await until(lambda: now() > read + 0.01)
    log.appends[1].set_result(result)
    await until(lambda: 2 in client.answers)
    refused = WalError.from_proto(client.answers[2].error)
    assert refused.code is ErrorCode.RESOURCE_ACQUIRED
    assert "nothing is written" in refused.message
    assert len(log.ops) == 2
    client.half_close()
    await stream


async def test_a_refused_entry_is_answered_without_touching_the_log(
    log: FakeLog, edge: Edge, client: Client
) -> None:
    client.append(1, b"nowhere", vchannel="test_0_9v0")
    client.append(2, b"large" * 3000)
    client.append(3, b"good")
    log.release.set()
    client.half_close()
    await produce(edge, client)
    assert WalError.from_proto(client.answers[1].error).code is ErrorCode.CHANNEL_NOT_EXIST
    assert WalError.from_proto(client.answers[2].error).code is ErrorCode.INVALID_ARGUMENT
    assert client.answers[3].result.first_tick == 10
    assert len(log.started) == 1


async def test_what_has_started_goes_on_when_the_client_goes_away(
    log: FakeLog, edge: Edge, client: Client
) -> None:
    client.append(1, b"started")
    stream = produce(edge, client)
    await turns()
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream
    log.release.set()
    await turns()
    assert len(log.finished) == 1


async def test_when_the_channel_goes_answers_leave_before_the_reason(
    log: FakeLog, edge: Edge, client: Client
) -> None:
    client.append(1, b"in flight")
    stream = produce(edge, client)
    await turns()
    edge.end(GONE)
    await turns()
    log.release.set()
    with pytest.raises(WalError) as caught:
        await stream
    assert caught.value is GONE
    assert client.answers[1].result.first_tick == 10


async def test_a_second_open_is_a_broken_protocol(edge: Edge, client: Client) -> None:
    client.requests.put_nowait(streaming_pb2.ProduceRequest(open=streaming_pb2.OpenProduce()))
    with pytest.raises(WalError) as caught:
        await produce(edge, client)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def consume(
    edge: Edge, client: Client, credit: int = 1 << 20, kind: StartKind = StartKind.EARLIEST
) -> asyncio.Task[None]:
    start = streaming_pb2.StartConsume(
        pchannel="test_0",
        vchannel=VCHANNEL,
        start=streaming_pb2.StartPosition(kind=kind.value),  # type: ignore[arg-type]
        follow=True,
        credit_bytes=credit,
    )
    config = NodeConfig(response_bytes=400)
    stream = ConsumeStream(edge, start, config, client.write_consumed, ReadTurns(1, 5.0))
    return asyncio.create_task(stream.run(client.consume_requests()))


def entries(*numbers: int) -> list[LogEntry]:
    found = []
    for number in numbers:
        entry = insert(VCHANNEL, b"x" * 90).to_entry()
        entry.envelope.first_tick = number
        found.append(LogEntry(entry, MessageID("memory", (number,)), 2))
    return found


def ticks(response: streaming_pb2.ConsumeResponse) -> list[int]:
    return [item.entry.envelope.first_tick for item in response.entries]


async def test_responses_are_bounded_and_the_last_one_carries_the_watermark(
    log: FakeLog, edge: Edge, client: Client
) -> None:
    log.scanned.put_nowait(ScanBatch(entries(1, 2, 3, 4, 5), 9, end=True))
    await consume(edge, client)
    responses = [client.consumed.get_nowait() for _ in range(2)]
    assert [ticks(response) for response in responses] == [[1, 2, 3], [4, 5]]
    assert [(r.watermark, r.end) for r in responses] == [(0, False), (9, True)]
    assert log.scanning == 0


async def test_responses_parse_as_the_proto_says(log: FakeLog, edge: Edge, client: Client) -> None:
    found = entries(1, 2)
    log.scanned.put_nowait(ScanBatch(found, 9, end=True))
    await consume(edge, client)
    assert client.consumed.get_nowait() == streaming_pb2.ConsumeResponse(
        entries=[
            streaming_pb2.DeliveredEntry(
                entry=item.entry, message_id=item.message_id.to_proto(), open_number=2
            )
            for item in found
        ],
        watermark=9,
        end=True,
    )


async def test_without_credit_nothing_is_sent(log: FakeLog, edge: Edge, client: Client) -> None:
    for number in range(4):
        log.scanned.put_nowait(ScanBatch(entries(number + 1), number + 1))
    stream = consume(edge, client, credit=150)
    await turns()
    assert client.consumed.qsize() == 2  # the second one began with credit left
    client.credit(100)
    await turns()
    assert client.consumed.qsize() == 3
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream
    assert log.scanning == 0


def test_credit_in_which_a_reader_would_wait_for_ever_is_refused() -> None:
    assert NodeConfig(credit_bytes=MOST_UNGRANTED_BYTES)
    with pytest.raises(ValueError, match="a reader may keep 4194304 bytes of credit back"):
        NodeConfig(credit_bytes=MOST_UNGRANTED_BYTES - 1)


async def test_an_idle_watermark_leaves_alone_with_the_place_to_resume_at(
    log: FakeLog, edge: Edge, client: Client
) -> None:
    log.scanned.put_nowait(ScanBatch([], 400))
    log.scanned.put_nowait(ScanBatch([], 500))
    stream = consume(edge, client)
    behind, live = await client.consumed.get(), await client.consumed.get()
    assert behind.watermark == 400
    assert not behind.HasField("position")  # the log itself is further: its place says nothing
    assert live.watermark == 500
    assert ResumeToken.from_proto(live.position) == ResumeToken(None, 500, 7, 2, "test_0")
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream


async def test_latest_becomes_a_place_that_can_be_resumed(
    log: FakeLog, edge: Edge, client: Client
) -> None:
    stream = consume(edge, client, kind=StartKind.LATEST)
    first = await client.consumed.get()
    assert ResumeToken.from_proto(first.position) == ResumeToken(None, 500, 7, 2, "test_0")
    assert log.requests[0].start.token == ResumeToken(None, 500, 7, 2, "test_0")
    edge.end(GONE)
    with pytest.raises(WalError) as caught:
        await stream
    assert caught.value is GONE


@pytest.mark.parametrize("kind", [StartKind.TOKEN, StartKind.FROM_ID, StartKind.AFTER_ID])
async def test_a_start_without_its_place_is_refused(
    edge: Edge, client: Client, kind: StartKind
) -> None:
    with pytest.raises(WalError) as caught:
        consume(edge, client, kind=kind)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
