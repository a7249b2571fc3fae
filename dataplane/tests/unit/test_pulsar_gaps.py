"""A scanner of Pulsar: a gap is explained by the truncation point alone, and a read is bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import NamedTuple, cast

import pulsar
import pytest

from walplane.backends.interface import Start, StartAt
from walplane.backends.pulsar.client import PulsarClient
from walplane.backends.pulsar.scanner import PulsarScanner
from walplane.backends.pulsar.session import PulsarSession
from walplane.backends.pulsar.topics import Position, Topics, TopicState
from walplane.message.ids import RecordID
from walplane.node.config import TURN_BYTES
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.waiting import until

MIB = 1 << 20
Ledgers = tuple[tuple[int, int], ...]


class Message(NamedTuple):
    """One of pulsar-client, and its own id."""

    place: Position
    size: int

    def message_id(self) -> Message:
        return self

    def ledger_id(self) -> int:
        return self.place[0]

    def entry_id(self) -> int:
        return self.place[1]

    def data(self) -> bytes:
        return bytes(self.size)


class Reader:
    """Gives what it was told to, then nothing."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self.messages = list(messages)

    def read_next(self, milliseconds: int) -> Message:
        if not self.messages:
            time.sleep(milliseconds / 1000)
            raise pulsar.Timeout("nothing")
        return self.messages.pop(0)

    def is_connected(self) -> bool:
        return True


class Broker:
    """What a scanner asks of its client and of the admin service."""

    def __init__(self, ledgers: Ledgers, floor: Position) -> None:
        self.state = TopicState(ledgers, {"walplane": floor}), floor
        self.later: list[tuple[TopicState, Position]] = []  # in place of `state`, one an answer
        self.dropped = 0

    async def floor(self, _topic: str) -> tuple[TopicState, Position]:
        return self.later.pop(0) if self.later else self.state

    async def reader(self, _topic: str, _after: Position) -> Reader:
        return Reader([])

    async def close(self) -> None:
        pass

    async def drop(self, _reader: object) -> None:
        await asyncio.sleep(0)
        self.dropped += 1


def scanner(broker: Broker, messages: Iterable[Message], after: Position) -> PulsarScanner:
    client, topics = cast(PulsarClient, broker), cast(Topics, broker)
    return PulsarScanner(client, topics, "t", Reader(messages), after, None)


async def opened(broker: Broker, start: Start) -> Position:
    """Behind which position a scanner at `start` begins."""
    session = PulsarSession(cast(PulsarClient, broker), cast(Topics, broker))
    try:
        reading = await session.open_scanner("t", start)
        assert isinstance(reading, PulsarScanner)
        return reading._last
    finally:
        await session.close()


async def first_of(ledgers: Ledgers, floor: Position, places: Iterable[Position]) -> RecordID:
    """The first record of a read from the earliest one."""
    reading = scanner(Broker(ledgers, floor), [Message(place, 1) for place in places], floor)
    try:
        async with asyncio.timeout(20):
            return (await reading.read())[0].record_id
    finally:
        await reading.close()


@pytest.mark.parametrize(
    ("ledgers", "floor", "first"),
    [
        (((5, 20), (6, 3)), (5, 10), (5, 11)),
        (((5, 20), (6, 3)), (5, 19), (6, 0)),  # cut off at the end of a ledger that is still there
        (((5, 20), (6, 0), (7, 3)), (5, 19), (7, 0)),
        (((6, 3),), (5, 19), (6, 0)),  # which was freed
        (((6, 0), (7, 0), (8, 1)), (5, 19), (8, 0)),
        (((9, 1),), (5, 19), (9, 0)),  # cut off to its end, then unloaded
        (((6, 1),), (5, -1), (6, 0)),  # nothing was ever cut off; unloaded before its first record
        (((5, 0), (6, 1)), (5, -1), (6, 0)),
    ],
)
async def test_the_record_behind_the_truncation_point_is_no_gap(
    ledgers: Ledgers, floor: Position, first: Position
) -> None:
    assert await first_of(ledgers, floor, [first]) == first


@pytest.mark.parametrize(
    ("ledgers", "floor", "first"),
    [
        (((5, 20), (6, 3)), (5, 10), (5, 13)),
        (((5, 20), (6, 3)), (5, 10), (6, 0)),  # a ledger was lost
        (((6, 3), (7, 2)), (5, 19), (7, 0)),
        (((6, 3),), (5, 19), (6, 1)),
    ],
)
async def test_a_record_that_is_lost_there_is_noticed(
    ledgers: Ledgers, floor: Position, first: Position
) -> None:
    with pytest.raises(WalError, match="though nobody truncated it") as error:
        await first_of(ledgers, floor, [first])
    assert error.value.code is ErrorCode.UNRECOVERABLE


@pytest.mark.parametrize("at", [StartAt.FROM, StartAt.AFTER])
@pytest.mark.parametrize("named", [(4, 0), (5, 9), (5, 20), (6, 0), (7, 3), (8, 0)])
async def test_an_id_that_the_topic_does_not_hold_is_refused(
    at: StartAt, named: Position, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let go of, behind the end of a ledger, of another topic's in between, beyond the end."""
    monkeypatch.setattr("walplane.backends.pulsar.session._LAG_S", 0.0)
    with pytest.raises(WalError) as error:
        await opened(Broker(((5, 20), (7, 3)), (5, 10)), Start(at, named))
    assert error.value.code is ErrorCode.DATA_TRUNCATED


async def test_behind_what_was_let_go_of_last_a_read_may_begin() -> None:
    broker = Broker(((7, 3),), (5, 10))  # whose ledger was freed
    assert await opened(broker, Start(StartAt.AFTER, (5, 10))) == (5, 10)
    with pytest.raises(WalError, match="was truncated up to 5:10"):
        await opened(broker, Start(StartAt.FROM, (5, 10)))


@pytest.mark.parametrize(("at", "after"), [(StartAt.FROM, (7, 2)), (StartAt.AFTER, (7, 3))])
async def test_a_record_that_the_broker_will_know_of_is_waited_for(
    at: StartAt, after: Position, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("walplane.backends.pulsar.session._LAG_S", 60.0)
    monkeypatch.setattr("walplane.backends.pulsar.session._PAUSE_S", 0.0)
    broker = Broker(((5, 20), (7, 3)), (5, 10))
    broker.later = [broker.state, (TopicState(((5, 20), (7, 4)), {}), (5, 10))]
    async with asyncio.timeout(20):
        assert await opened(broker, Start(at, (7, 3))) == after
    assert not broker.later


def test_a_ledger_that_was_closed_keeps_its_records_until_the_next_is_there() -> None:
    ledgers = [{"ledgerId": 5, "entries": 20}, {"ledgerId": 6, "entries": 4}]
    stats = {"ledgers": ledgers, "currentLedgerEntries": 0, "cursors": {}}
    assert TopicState.from_stats(stats).last == (6, 3)
    ledgers[1]["entries"] = 0  # as told of the one that is open
    assert TopicState.from_stats({**stats, "currentLedgerEntries": 3}).last == (6, 2)


async def test_a_read_gives_no_more_than_a_turn_is_counted_with() -> None:
    sizes = [MIB] * 8 + [5 * MIB, 1]
    messages = [Message((1, entry), size) for entry, size in enumerate(sizes)]
    reading = scanner(Broker(((1, 10),), (1, -1)), messages, (1, -1))
    await until(lambda: len(reading._pump.peek(1 << 30)) >= 8)
    read: list[list[int]] = []
    async with asyncio.timeout(20):
        while sum(map(len, read)) < len(sizes):
            read.append([len(record.data) for record in await reading.read()])
    await reading.close()
    assert [size for some in read for size in some] == sizes
    assert all(sum(some) <= TURN_BYTES or len(some) == 1 for some in read)


@pytest.mark.parametrize("steps", [1, 2])
async def test_a_close_that_is_cancelled_goes_on_and_is_waited_for(steps: int) -> None:
    broker = Broker(((1, 0),), (1, -1))
    reading = scanner(broker, [], (1, -1))
    closing = asyncio.create_task(reading.close())
    for _ in range(steps):
        await asyncio.sleep(0)
    closing.cancel()
    async with asyncio.timeout(20):
        await reading.close()
        await asyncio.wait([closing])
    assert closing.cancelled()
    assert broker.dropped == 1
