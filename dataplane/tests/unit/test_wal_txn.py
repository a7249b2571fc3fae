"""Transactions on one log: sessions, their ends, exclusive messages, expiry."""

from __future__ import annotations

import asyncio

import pytest

from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.message.txn_view import ImmutableTxnMessage
from walplane.rpc.errors import ErrorCode
from walplane.rpc.v1 import log_pb2
from walplane.testkit.txns import (
    begin,
    body,
    end,
    exclusive_entry,
    read_batches,
    refused,
    shape,
    txn_entry,
)
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import V, World, entry
from walplane.ticks import TICKS_PER_MS
from walplane.wal.config import WALConfig
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.windows import WindowLimits
from walplane.wal.txn.expiry import TxnExpiry
from walplane.wal.txn.sessions import TxnSessions
from walplane.wal.txn.table import TxnTable

LIMITS = WindowLimits(10, 10, 1 << 20, 1_000_000, 7_000_000)

V1 = "test_0_2v0"
INSERT, COMMIT, ROLLBACK = MessageType.INSERT, MessageType.COMMIT_TXN, MessageType.ROLLBACK_TXN


# --- what a transaction is ---------------------------------------------------------------------


async def test_the_id_is_begins_tick_and_the_whole_has_commits_tick(world: World) -> None:
    wal = await world.open(1)
    txn = await begin(wal, V)
    await body(wal, txn, b"a", b"b")
    between = await wal.append(entry(b"between"))
    await body(wal, txn, b"c")
    commit = await end(wal, txn)
    batches = await read_batches(wal)
    assert shape(batches) == [b"between", [b"a", b"b", b"c"]]
    assert batches[0].last_tick == between.first_tick
    whole = batches[1]
    assert isinstance(whole, ImmutableTxnMessage)
    assert (whole.txn_id, whole.time_tick) == (txn, commit.first_tick)
    assert whole.message_id == commit.message_id
    assert whole.last_confirmed == commit.last_confirmed
    assert whole.header.entries == 2


async def test_a_rolled_back_and_an_open_transaction_are_not_read(world: World) -> None:
    wal = await world.open(1)
    gone, still = await begin(wal, V), await begin(wal, V)
    await body(wal, gone, b"gone")
    await body(wal, still, b"open")
    await end(wal, gone, ROLLBACK)
    await wal.append(entry(b"plain"))
    assert shape(await read_batches(wal)) == [b"plain"]


async def test_one_entry_can_be_a_transaction(world: World) -> None:
    wal = await world.open(1)
    await wal.append(txn_entry(INSERT, V, 0, b"a", b"b", whole=True))
    [whole] = await read_batches(wal)
    assert isinstance(whole, ImmutableTxnMessage)
    assert whole.payloads == [b"a", b"b"]
    first, second = whole
    assert first.time_tick == second.time_tick == whole.time_tick
    assert shape(await read_batches(wal, first.resume_token)) == [[b"a", b"b"]]
    assert shape(await read_batches(wal, second.resume_token)) == []


# --- sessions ----------------------------------------------------------------------------------


async def test_commit_and_rollback_are_idempotent_and_exclude_each_other(world: World) -> None:
    wal = await world.open(1)
    done, gone = await begin(wal, V), await begin(wal, V)
    first = await end(wal, done)
    assert await end(wal, done) == first
    rolled = await end(wal, gone, ROLLBACK)
    assert await end(wal, gone, ROLLBACK) == rolled
    invalid = ErrorCode.INVALID_TRANSACTION_STATE
    assert await refused(end(wal, done, ROLLBACK)) is invalid
    assert await refused(end(wal, gone)) is invalid
    assert await refused(body(wal, done, b"late")) is invalid


async def test_commits_at_the_same_time_are_one(world: World) -> None:
    wal = await world.open(1)
    txn = await begin(wal, V)
    results = await asyncio.gather(
        *(
            wal.append(txn_entry(COMMIT, V, txn, producer=(name, 0)))
            for name in (b"one", b"two", b"three")
        )
    )
    assert len(set(results)) == 1


async def test_a_transaction_that_never_was(world: World) -> None:
    wal = await world.open(1)
    assert await refused(body(wal, 77, b"x")) is ErrorCode.INVALID_TRANSACTION_STATE
    assert await refused(end(wal, 77)) is ErrorCode.INVALID_TRANSACTION_STATE


async def test_a_body_on_another_vchannel_is_refused(world: World) -> None:
    wal = await world.open(1)
    txn = await begin(wal, V)
    wrong = body(wal, txn, b"x", vchannel=V1)
    assert await refused(wrong) is ErrorCode.INVALID_TRANSACTION_STATE


async def test_commit_waits_for_the_bodies_in_flight(world: World) -> None:
    wal = await world.open(1)
    txn = await begin(wal, V)
    acknowledge = asyncio.Event()
    world.backend.before_ack = acknowledge.wait
    bodies = [asyncio.create_task(body(wal, txn, b"%d" % i)) for i in range(5)]
    await asyncio.sleep(0.01)
    commit = asyncio.create_task(end(wal, txn))
    await asyncio.sleep(0.01)
    flying, queued = wal.appender.unsettled()
    entries = [pending.op.entry for frame in flying for pending in frame.entries]
    entries += [pending.op.entry for pending in queued]
    kinds = [MessageType(each.envelope.type) for each in entries]
    assert kinds == [MessageType.CREATE_SEGMENT, *[MessageType.INSERT] * 5]
    late = asyncio.create_task(body(wal, txn, b"late"))
    assert await refused(late) is ErrorCode.INVALID_TRANSACTION_STATE
    acknowledge.set()
    results = await asyncio.gather(*bodies)
    assert (await commit).first_tick > max(result.first_tick for result in results)
    assert shape(await read_batches(wal)) == [[b"0", b"1", b"2", b"3", b"4"]]


async def test_too_many_open_transactions_are_refused_for_now(world: World) -> None:
    wal = await world.open(1, WALConfig(open_txns=2, idle_tick_s=0.02))
    first = await begin(wal, V)
    await begin(wal, V)
    assert await refused(begin(wal, V)) is ErrorCode.RESOURCE_ACQUIRED
    await end(wal, first)
    await begin(wal, V)


# --- exclusive messages ------------------------------------------------------------------------


@pytest.mark.parametrize("scope", [V, ""])
async def test_an_exclusive_message_ends_the_open_ones_in_its_scope(
    world: World, scope: str
) -> None:
    wal = await world.open(1)
    here, there = await begin(wal, V), await begin(wal, V1)
    await body(wal, here, b"here")
    await body(wal, there, b"there", vchannel=V1)
    await wal.append(exclusive_entry(scope))
    assert await refused(body(wal, here, b"x")) is ErrorCode.TRANSACTION_EXPIRED
    assert await refused(end(wal, here)) is ErrorCode.TRANSACTION_EXPIRED
    if scope:
        await end(wal, there, vchannel=V1)
    else:
        ended = end(wal, there, vchannel=V1)
        assert await refused(ended) is ErrorCode.TRANSACTION_EXPIRED
    expected: list[list[bytes] | bytes] = [b"", [b"there"]] if scope else [b""]
    assert shape(await read_batches(wal)) == expected


async def test_an_exclusive_message_has_its_vchannel_to_itself(world: World) -> None:
    wal = await world.open(1)
    acknowledge = asyncio.Event()
    world.backend.before_ack = acknowledge.wait
    before = asyncio.create_task(wal.append(entry(b"before")))
    await asyncio.sleep(0)
    alone = asyncio.create_task(wal.append(exclusive_entry(V)))
    await asyncio.sleep(0)
    after = asyncio.create_task(wal.append(entry(b"after")))
    other = asyncio.create_task(wal.append(entry(b"other", vchannel=V1)))
    await asyncio.sleep(0.02)
    flying, _ = wal.appender.unsettled()
    sent = [pending.op.entry.envelope for frame in flying for pending in frame.entries]
    assert [envelope.vchannel for envelope in sent if envelope.segment_id] == [V, V1]
    acknowledge.set()
    assert (await before).first_tick < (await alone).first_tick < (await after).first_tick
    await other


async def test_waiting_for_a_lock_ends_at_the_deadline_and_leaves_no_gap(world: World) -> None:
    wal = await world.open(1)
    acknowledge = asyncio.Event()
    world.backend.before_ack = acknowledge.wait
    alone = asyncio.create_task(wal.append(exclusive_entry(V)))
    await asyncio.sleep(0)
    first = asyncio.create_task(wal.append(entry(b"0", number=0), lock_wait_s=0.05))
    await asyncio.sleep(0)
    second = asyncio.create_task(wal.append(entry(b"1", number=1)))
    assert await refused(first) is ErrorCode.RESOURCE_ACQUIRED
    acknowledge.set()
    await alone
    assert await refused(second) is ErrorCode.INVALID_REQUEST_SEQ
    for number in range(2):
        await wal.append(entry(b"%d" % number, number=number))
    assert shape(await read_batches(wal)) == [b"", b"0", b"1"]


# --- expiry ------------------------------------------------------------------------------------


async def test_what_nobody_hears_of_is_rolled_back(world: World) -> None:
    wal = await world.open(1)
    txn, other = await begin(wal, V, keepalive_ms=10), await begin(wal, V)
    await body(wal, txn, b"a")
    await world.skip_ticks(20)
    await until(lambda: txn not in wal.recovery.txns.open)
    assert other in wal.recovery.txns.open
    ended = wal.recovery.txns.ended(txn)
    assert ended is not None
    assert ended.end == log_pb2.TXN_END_EXPIRED
    assert await refused(end(wal, txn)) is ErrorCode.TRANSACTION_EXPIRED
    assert shape(await read_batches(wal)) == []


def test_neither_tick_time_nor_the_owners_clock_alone_expires() -> None:
    table, now = TxnTable(10, LIMITS), 0.0
    expiry = TxnExpiry(table, TxnSessions(table, 10), lambda: now)
    made = txn_entry(MessageType.BEGIN_TXN, V, keepalive_ms=30)
    made.envelope.first_tick = 1000
    table.observe(LogEntry(made, MessageID("memory", (1,)), 0))
    late = 1000 + 31 * TICKS_PER_MS
    assert expiry.due(late) == []  # an old reserve was filled: it was heard of a moment ago
    now = 0.031
    assert (
        expiry.due(1000 + 29 * TICKS_PER_MS) == []
    )  # the coordinator is away: tick time runs slow
    assert [txn.txn_id for txn in expiry.due(late)] == [1000]
    assert expiry.due(late) == [], "its rollback is under way"
    now = 0.062
    table.renew(late)
    assert expiry.due(late + 31 * TICKS_PER_MS) == []


async def test_what_comes_while_the_rollback_is_in_flight_is_told_that_it_expired(
    world: World,
) -> None:
    wal = await world.open(1)
    txn = await begin(wal, V, keepalive_ms=10)
    acknowledge = asyncio.Event()
    world.backend.before_ack = acknowledge.wait
    await world.skip_ticks(20)
    await until(lambda: not wal.appender.idle)
    for late in (body(wal, txn, b"late"), end(wal, txn)):
        assert await refused(late) is ErrorCode.TRANSACTION_EXPIRED
    acknowledge.set()


async def test_a_body_renews(world: World) -> None:
    wal = await world.open(1)
    txn = await begin(wal, V, keepalive_ms=40)
    renewed = wal.recovery.txns.open[txn].renewed
    written = await body(wal, txn, b"a", b"b")
    assert wal.recovery.txns.open[txn].renewed == written.first_tick + 1 > renewed


def test_the_floor_lies_below_what_ended_above_the_watermark() -> None:
    table = TxnTable(10, LIMITS)

    def see(kind: MessageType, tick: int, record: int, txn: int = 0) -> None:
        made = txn_entry(kind, V, txn)
        made.envelope.first_tick = tick
        table.observe(LogEntry(made, MessageID("memory", (record,), 3), 0))

    see(MessageType.BEGIN_TXN, 10, 1)
    see(MessageType.BEGIN_TXN, 20, 2)
    see(COMMIT, 30, 3, txn=10)
    assert table.floor_at(29) == MessageID("memory", (1,)), "something below 30 is not settled"
    assert table.floor_at(30) == MessageID("memory", (2,))
    see(COMMIT, 40, 4, txn=20)
    assert table.floor_at(39) == MessageID("memory", (2,))
    table.renew(50)
    assert table.floor_at(39) is None, "a barrier settles all below it"
