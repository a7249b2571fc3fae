"""A reader over owners that the test controls: no gap, no repeat, no reordering."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from walplane.client.config import ClientConfig
from walplane.client.discovery import Assignment, Discovery
from walplane.client.reader import Reader, start_position
from walplane.client.transport import ConsumeStream, Delivery, ProduceStream, Transport
from walplane.message.builder import insert
from walplane.message.ids import MessageID, ResumeToken
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.waiting import until
from walplane.wal.ports import LogEntry
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind

V0 = "test_0_1v0"
BROKEN = WalError(ErrorCode.ON_SHUTDOWN, "the owner went away")


def entry(first_tick: int, count: int = 1, confirmed: int = 1, payload: bytes = b"") -> LogEntry:
    payloads = (payload or b"%d" % (first_tick + i) for i in range(count))
    proto = insert(V0, *payloads).to_entry()
    proto.envelope.first_tick = first_tick
    proto.envelope.term = 7
    proto.envelope.last_confirmed.CopyFrom(MessageID("memory", (confirmed,)).to_proto())
    return LogEntry(proto, MessageID("memory", (first_tick,)), 2)


def delivery(*entries: LogEntry, watermark: int = 0, end: bool = False) -> Delivery:
    return Delivery(entries, watermark, end, None)


Script = list[Delivery | WalError]


class FakeStream:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.granted = 0
        self.closed = False

    async def receive(self) -> Delivery:
        if not self.script:
            await asyncio.Event().wait()
        item = self.script.pop(0)
        if isinstance(item, WalError):
            raise item
        return item

    async def grant(self, size: int) -> None:
        self.granted += size

    async def close(self) -> None:
        self.closed = True


class Owners:
    """Discovery and transport in one: each connection plays the next script."""

    remote = True

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.requests: list[ScanRequest] = []
        self.streams: list[FakeStream] = []
        self.reports: list[WalError] = []
        self.move = asyncio.Event()
        self.served_by = Assignment("test_0", 1, "n1", "n1:1", "ASSIGNED")
        self.unserved = False
        self.awaited = 0

    async def served(self, pchannel: str, **_: object) -> Assignment:
        if self.unserved:
            self.awaited += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.awaited -= 1
        return self.served_by

    async def moved(self, assignment: Assignment) -> None:
        await self.move.wait()
        self.move.clear()

    def report(self, assignment: Assignment, error: WalError) -> None:
        self.reports.append(error)

    async def open_consume(self, assignment: Assignment, request: ScanRequest) -> ConsumeStream:
        self.requests.append(request)
        self.streams.append(FakeStream(self.scripts.pop(0)))
        return self.streams[-1]

    async def open_produce(self, assignment: Assignment) -> ProduceStream:
        raise NotImplementedError

    def reader(
        self,
        start: ScanStart | None = None,
        patience_s: float | None = None,
        **limits: int,
    ) -> Reader:
        request = ScanRequest(start or ScanStart(StartKind.EARLIEST), V0)
        config = ClientConfig(backoff_min_s=0.001, **limits)
        discovery = cast(Discovery, self)
        return Reader(
            "test_0", request, discovery, lambda _: cast(Transport, self), config, patience_s
        )


async def ticks(reader: Reader) -> list[int]:
    return [message.time_tick async for message in reader]


async def test_reads_on_after_a_break_without_gap_or_repeat() -> None:
    owners = Owners(
        [delivery(entry(10, 3), entry(20)), BROKEN],
        [delivery(entry(20), entry(30, 2)), BROKEN],
        [delivery(entry(30, 2), entry(40), end=True)],
    )
    assert await ticks(owners.reader()) == [10, 11, 12, 20, 30, 31, 40]
    starts = [request.start for request in owners.requests]
    assert starts[0] == ScanStart(StartKind.EARLIEST)
    token = ResumeToken(MessageID("memory", (1,)), 20, 7, 2, "test_0")
    assert starts[1] == ScanStart(StartKind.TOKEN, token)
    assert owners.reports == [BROKEN, BROKEN]
    assert all(stream.closed for stream in owners.streams)


async def test_a_token_in_the_middle_of_an_entry_yields_the_rest_of_it() -> None:
    reader = Owners([delivery(entry(10, 5), end=True)]).reader()
    third = [message async for message in reader][2]
    again = Owners([delivery(entry(10, 5), entry(20), end=True)])
    resumed = again.reader(start_position(third.resume_token))
    assert await ticks(resumed) == [13, 14, 20]


@pytest.mark.parametrize(("after", "expected"), [(False, [12, 13, 14, 20]), (True, [13, 14, 20])])
async def test_a_message_id_in_the_middle_of_an_entry(after: bool, expected: list[int]) -> None:
    owners = Owners([delivery(entry(10, 5), entry(20), end=True)])
    start = start_position(MessageID("memory", (10,), 0, 2), after=after)
    assert await ticks(owners.reader(start)) == expected


async def test_after_the_last_message_of_an_entry_comes_the_next_entry() -> None:
    owners = Owners([delivery(entry(10, 5), entry(20), end=True)])
    start = start_position("memory:10:0:4", after=True)
    assert await ticks(owners.reader(start)) == [20]


async def test_the_position_of_an_idle_channel_moves_with_the_watermark() -> None:
    place = ResumeToken(MessageID("memory", (99,)), 500, 8, 3)
    owners = Owners(
        [delivery(entry(10)), Delivery([], 500, False, place), BROKEN],
        [delivery(watermark=600), BROKEN],
        [delivery(entry(700), end=True)],
    )
    reader = owners.reader()
    assert await ticks(reader) == [10, 700]
    assert owners.requests[1].start.token == place
    assert owners.requests[2].start.token == place._replace(time_tick=600)
    # What lies before the place it was at may be cut off by now.
    assert reader.token == entry(700).token().reaching(place.last_confirmed)


async def test_latest_is_resumed_where_it_began() -> None:
    place = ResumeToken(None, 500, 7, 2)
    owners = Owners([Delivery([], 0, False, place), BROKEN], [delivery(entry(501), end=True)])
    assert await ticks(owners.reader(ScanStart(StartKind.LATEST))) == [501]
    assert owners.requests[1].start.token == place


async def test_a_move_is_followed_though_the_old_owner_says_nothing() -> None:
    owners = Owners([delivery(entry(10))], [delivery(entry(20), end=True)])
    reading = asyncio.create_task(ticks(owners.reader()))
    await asyncio.sleep(0.01)
    owners.move.set()
    assert await reading == [10, 20]


@pytest.mark.parametrize(
    "code", [ErrorCode.DATA_TRUNCATED, ErrorCode.UNRECOVERABLE, ErrorCode.CHANNEL_NOT_EXIST]
)
async def test_what_cannot_be_mended_is_raised(code: ErrorCode) -> None:
    error = WalError(code, "no way on")
    owners = Owners([delivery(entry(10)), error])
    reader = owners.reader()
    with pytest.raises(WalError) as caught:
        await ticks(reader)
    assert caught.value is error
    assert reader.token == entry(10).token()


async def test_nobody_answers_for_too_long() -> None:
    owners = Owners()
    owners.unserved = True
    with pytest.raises(WalError, match=rf"nobody answered a read of {V0} for 0\.05 s"):
        await ticks(owners.reader(patience_s=0.05))


async def test_credit_goes_back_as_batches_are_taken() -> None:
    size = len(entry(100, 50).entry.body)
    script: Script = [delivery(entry(tick, 50)) for tick in (100, 200, 300, 400)]
    owners = Owners([*script, delivery(end=True)])
    reader = owners.reader(read_ahead_bytes=4 * size)
    batches = reader.batches()
    await anext(batches)
    assert owners.streams[0].granted == 0  # it is still in the program's hands
    async for _ in batches:
        pass
    assert owners.streams[0].granted == 4 * size


async def test_credit_goes_back_before_the_node_runs_out_of_what_it_keeps() -> None:
    """However much a reader may read ahead: the node keeps a bounded credit."""
    payload = b"x" * (1 << 20)
    script: Script = [delivery(entry(tick, payload=payload)) for tick in range(1, 17)]
    owners = Owners([*script, delivery(end=True)])
    await ticks(owners.reader(read_ahead_bytes=1 << 30))
    assert owners.streams[0].granted >= 12 << 20


async def test_closing_ends_a_read_under_way() -> None:
    owners = Owners([delivery(entry(10))])
    reader = owners.reader()
    reading = asyncio.create_task(ticks(reader))
    await asyncio.sleep(0.01)
    await reader.close()
    assert await reading == [10]
    assert owners.streams[0].closed


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_read_that_waits_for_an_owner_is_ended_too(cancelled: bool) -> None:
    owners = Owners()
    owners.unserved = True
    reader = owners.reader()
    reading = asyncio.create_task(ticks(reader))
    await until(lambda: owners.awaited == 1)
    if cancelled:
        reading.cancel()
    await reader.close()
    async with asyncio.timeout(10):
        await asyncio.wait([reading])
    assert reading.cancelled() == cancelled
    assert cancelled or reading.result() == []
    assert owners.awaited == 0


async def test_breaking_off_releases_the_stream() -> None:
    owners = Owners([delivery(entry(10, 3))])
    async with owners.reader() as reader:
        async for _ in reader:
            break
    assert owners.streams[0].closed


def test_starts_are_read_from_text() -> None:
    token = ResumeToken(MessageID("memory", (3,)), 9, 1, 1)
    assert start_position("earliest").kind is StartKind.EARLIEST
    assert start_position("latest").kind is StartKind.LATEST
    assert start_position(str(token)) == ScanStart(StartKind.TOKEN, token=token)
    assert start_position("memory:3:0:1").message_id == MessageID("memory", (3,), 0, 1)
    with pytest.raises(WalError) as caught:
        start_position("yesterday")
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
