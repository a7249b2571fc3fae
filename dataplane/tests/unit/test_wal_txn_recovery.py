"""Transactions over owners and readers: recovery, LastConfirmed, resuming at every token."""

from __future__ import annotations

import asyncio

import pytest

from walplane.backends import memory
from walplane.client.config import ClientConfig
from walplane.message.ids import ResumeToken
from walplane.message.registry import MessageType
from walplane.message.txn_view import ImmutableTxnMessage
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.testkit.faulty import Fault
from walplane.testkit.txns import (
    begin,
    body,
    client_reader,
    creates,
    end,
    exclusive_entry,
    read_batches,
    refused,
    shape,
    txn_entry,
)
from walplane.testkit.wal_world import CH, VCHANNELS, V, World, entry
from walplane.wal.config import WALConfig
from walplane.wal.scan.request import ScanStart, StartKind
from walplane.wal.wal import WAL

V1 = "test_0_2v0"
INSERT, COMMIT, ROLLBACK = MessageType.INSERT, MessageType.COMMIT_TXN, MessageType.ROLLBACK_TXN


# --- recovery ----------------------------------------------------------------------------------


async def test_open_transactions_survive_owners_and_a_barrier_renews_them(world: World) -> None:
    wal = await world.open(1)
    txn, gone = await begin(wal, V), await begin(wal, V)
    await body(wal, txn, b"a")
    await end(wal, gone)
    for term in range(2, 5):
        if term == 3:
            await wal.close()
        wal = await world.open(term)
        assert list(wal.recovery.txns.open) == [txn]
        assert wal.recovery.txns.open[txn].renewed == wal.buffer.floor
        await body(wal, txn, b"%d" % term)
    commit = await end(wal, txn)
    wal = await world.open(5)
    assert await end(wal, txn) == commit
    assert shape(await read_batches(wal)) == [[b"a", b"2", b"3", b"4"]]


async def test_a_repeated_body_is_answered_by_the_next_owner(world: World) -> None:
    wal = await world.open(1)
    txn = await begin(wal, V)

    def numbered(number: int) -> log_pb2.Entry:
        return txn_entry(INSERT, V, txn, b"%d" % number, producer=(b"p", number))

    first = [await wal.append(numbered(number)) for number in range(3)]
    await wal.checkpoint()
    wal = await world.open(2)
    assert [await wal.append(numbered(number)) for number in range(3)] == first
    gap = wal.append(numbered(4))
    assert await refused(gap) is ErrorCode.INVALID_REQUEST_SEQ
    await wal.append(numbered(3))
    await end(wal, txn)
    assert shape(await read_batches(wal)) == [[b"0", b"1", b"2", b"3"]]


async def test_numbers_inside_a_transaction_are_its_own(world: World) -> None:
    wal = await world.open(1)
    await wal.append(entry(b"plain", number=0))
    for content in (b"a", b"b"):
        txn = await begin(wal, V)
        await wal.append(txn_entry(INSERT, V, txn, content, producer=(b"producer", 0)))
        await wal.append(txn_entry(COMMIT, V, txn, producer=(b"producer", 1)))
    await wal.append(entry(b"plain too", number=1))
    assert shape(await read_batches(wal)) == [b"plain", [b"a"], [b"b"], b"plain too"]


async def test_a_close_while_appends_wait_for_a_lock_or_for_bodies_loses_and_doubles_nothing(
    world: World,
) -> None:
    wal = await world.open(1)
    txn = await begin(wal, V1)
    acknowledge = asyncio.Event()
    world.backend.before_ack = acknowledge.wait
    sent = [
        exclusive_entry(V),
        *(entry(b"%d" % number, number=number) for number in range(5)),
        txn_entry(INSERT, V1, txn, b"a", producer=(b"p", 0)),
        txn_entry(COMMIT, V1, txn, producer=(b"p", 1)),
    ]
    first = [asyncio.create_task(wal.append(copy_of(each))) for each in sent]
    await asyncio.sleep(0.02)
    closing = asyncio.create_task(wal.close())
    await asyncio.sleep(0.02)
    acknowledge.set()
    outcomes = await asyncio.gather(*first, return_exceptions=True)
    await closing
    wal = await world.open(2)
    # The flush has no number; a body whose transaction is committed is not answered again.
    for number in (1, 2, 3, 4, 5, 7):
        each, outcome = sent[number], outcomes[number]
        again = await wal.append(copy_of(each))
        assert isinstance(outcome, WalError) or again == outcome
    [flush, *rest] = shape(await read_batches(wal))
    assert flush == b""
    assert sorted(rest, key=str) == sorted([b"0", b"1", b"2", b"3", b"4", [b"a"]], key=str)


def copy_of(made: log_pb2.Entry) -> log_pb2.Entry:
    copy = log_pb2.Entry()
    copy.CopyFrom(made)
    return copy


async def test_a_begin_whose_frame_was_lost_has_the_tick_it_got_at_last(world: World) -> None:
    wal = await world.open(1, WALConfig(idle_tick_s=0.02, ack_timeout_s=0.1))
    faults = iter([Fault.FAIL_BEFORE])
    world.backend.faults = lambda topic: next(faults, Fault.NONE) if topic == CH else Fault.NONE
    txn = await begin(wal, V)
    assert wal.open_number == 1
    assert list(wal.recovery.txns.open) == [txn]
    await body(wal, txn, b"a")
    await end(wal, txn)
    assert shape(await read_batches(wal)) == [[b"a"]]


async def test_an_end_that_is_remembered_no_more_is_unknown(world: World) -> None:
    wal = await world.open(1, WALConfig(txn_results=1, idle_tick_s=0.02))
    old, new = await begin(wal, V), await begin(wal, V)
    await end(wal, old)
    result = await end(wal, new)
    assert await refused(end(wal, old)) is ErrorCode.OUTCOME_UNKNOWN
    assert await refused(body(wal, old, b"x")) is ErrorCode.TRANSACTION_EXPIRED
    await wal.close()
    wal = await world.open(2, WALConfig(txn_results=1, idle_tick_s=0.02))
    assert await refused(end(wal, old)) is ErrorCode.OUTCOME_UNKNOWN
    assert await end(wal, new) == result


# --- LastConfirmed and resuming ----------------------------------------------------------------


async def test_last_confirmed_reaches_the_oldest_open_begin_and_no_further(world: World) -> None:
    wal = await world.open(1)
    await wal.append(entry(b"before"))
    txn = await begin(wal, V)
    begun = wal.recovery.txns.open[txn].begin
    for number in range(5):
        await wal.append(entry(b"%d" % number))
    assert wal.acks.last_confirmed == begun
    await wal.checkpoint()
    assert wal.recovery.checkpoint_id == begun
    second = await begin(wal, V)
    await end(wal, txn)
    await wal.append(entry(b"after"))
    assert wal.acks.last_confirmed == wal.recovery.txns.open[second].begin
    await end(wal, second)
    await wal.append(entry(b"last"))
    last = await wal.append(entry(b"tail"))
    confirmed = wal.acks.last_confirmed
    assert confirmed is not None
    assert confirmed.record == last.message_id.record


async def history(wal: WAL) -> list[list[bytes] | bytes]:
    """Plain messages and transactions that begin, end and are ended across each other."""
    a = await begin(wal, V)
    await body(wal, a, b"a0")
    await wal.append(entry(b"0"))
    b, c = await begin(wal, V), await begin(wal, V1)
    await body(wal, b, b"b0", b"b1")
    await body(wal, c, b"c0", vchannel=V1)
    await end(wal, a)
    await wal.append(entry(b"1", b"2"))
    d = await begin(wal, V)
    await body(wal, d, b"d0")
    await end(wal, b, ROLLBACK)
    await wal.append(txn_entry(INSERT, V, 0, b"w0", b"w1", whole=True))
    await body(wal, c, b"c1", vchannel=V1)
    await wal.append(exclusive_entry(V))
    await end(wal, c, vchannel=V1)
    await wal.append(entry(b"3"))
    return [b"0", [b"a0"], b"1", b"2", [b"w0", b"w1"], b"", [b"c0", b"c1"], b"3"]


@pytest.mark.parametrize("write_ahead_bytes", [1, 1 << 20])
@pytest.mark.parametrize("read_records", [1, 3, 1024])
async def test_every_token_gives_exactly_the_rest(
    world: World, write_ahead_bytes: int, read_records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_READ_RECORDS", read_records)
    config = WALConfig(write_ahead_bytes=write_ahead_bytes, idle_tick_s=0.02)
    wal = await world.open(1, config)
    expected = await history(wal)
    batches = await read_batches(wal)
    assert shape(batches) == expected
    for owner in (wal, await world.open(2, config)):
        for place, batch in enumerate(batches):
            messages = list(batch)
            rest = shape(await read_batches(owner, messages[-1].resume_token))
            assert rest == shape(batches[place + 1 :])
            if isinstance(batch, ImmutableTxnMessage):
                assert batch.resume_token == messages[-1].resume_token
                for message in messages[:-1]:
                    again = shape(await read_batches(owner, message.resume_token))
                    assert again == shape(batches[place:])


async def test_a_read_from_a_message_id_has_the_transactions_that_begin_behind_it(
    world: World,
) -> None:
    wal = await world.open(1)
    await history(wal)
    [one] = [b for b in await read_batches(wal) if b.payloads == [b"1", b"2"]]
    start = ScanStart(StartKind.FROM_ID, message_id=one.message_id)
    reader = client_reader(wal, start=start, follow=False)
    batches = [batch async for batch in reader.batches()]
    assert shape(batches) == [b"1", b"2", [b"w0", b"w1"], b"", b"3"]


async def test_a_reader_that_is_interrupted_anywhere_misses_and_doubles_nothing(
    world: World,
) -> None:
    wal = await world.open(1)
    expected = await history(wal)
    token: ResumeToken | None = None
    got: list[list[bytes] | bytes] = []
    for _ in range(len(expected) + len(VCHANNELS) + 1):
        reader = client_reader(wal, token, follow=False)
        async for batch in reader.batches():
            got += shape([] if creates(batch) else [batch])
            break
        token = reader.token
        await reader.close()
    assert got == expected


async def test_a_resumed_reader_keeps_nothing_of_what_was_ended_below_its_token(
    world: World,
) -> None:
    wal = await world.open(1)
    still, forced = await begin(wal, V1), await begin(wal, V)  # LastConfirmed stays at the first
    await body(wal, forced, b"forced")
    await wal.append(exclusive_entry(V))
    await wal.append(entry(b"0"))
    *_, last = await read_batches(wal)
    await body(wal, still, b"still", vchannel=V1)
    await end(wal, still, vchannel=V1)
    reader = client_reader(wal, [*last][-1].resume_token, follow=False)
    assert shape([batch async for batch in reader.batches()]) == [[b"still"]]
    assert reader.held_bytes == 0


async def test_a_reader_with_too_small_a_budget_says_so(world: World) -> None:
    wal = await world.open(1)
    txn = await begin(wal, V)
    for _ in range(5):
        await body(wal, txn, b"x" * 1000)
    await end(wal, txn)
    small = read_batches(wal, config=ClientConfig(open_txn_bytes=3000))
    assert await refused(small) is ErrorCode.RESOURCE_ACQUIRED
    assert len(await read_batches(wal, config=ClientConfig(open_txn_bytes=20_000))) == 1
