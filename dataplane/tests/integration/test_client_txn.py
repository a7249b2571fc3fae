"""Transactions from the client to its readers over real gRPC, on the memory backend."""

from __future__ import annotations

import asyncio

import pytest

from walplane.client import StreamingClient, Txn
from walplane.message.builder import MutableMessage, delete, insert
from walplane.message.registry import MessageType
from walplane.message.txn_view import ImmutableTxnMessage
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2
from walplane.testkit.reading import tailing
from walplane.testkit.waiting import until


async def contents(wal: StreamingClient, channel: str, start: str = "earliest") -> list[bytes]:
    messages = [m async for m in wal.read(channel, start=start, follow=False)]
    ticks = [m.time_tick for m in messages]
    assert ticks == sorted(ticks)
    return [m.payload for m in messages if m.type is not MessageType.CREATE_COLLECTION]


async def units(wal: StreamingClient, channel: str) -> list[list[bytes] | bytes]:
    """Transactions as lists, other messages by themselves."""
    found: list[list[bytes] | bytes] = []
    async for batch in wal.reader(channel, follow=False).batches():
        if isinstance(batch, ImmutableTxnMessage):
            assert batch.type is MessageType.TXN
            assert len(batch) == len(batch.payloads)
            found.append(batch.payloads)
        elif batch.type is not MessageType.CREATE_COLLECTION:
            found.extend(batch.payloads)
    return found


async def test_a_committed_transaction_is_read_whole_at_its_commit(
    wal: StreamingClient, vchannel: str
) -> None:
    async with wal.txn(vchannel) as txn:
        await txn.append(insert(vchannel, b"a"))
        await txn.append(delete(vchannel, b"b"))  # shares no entry: it is begun now
        await wal.append(insert(vchannel, b"between"))
        await txn.append(insert(vchannel, b"c"))
        assert await contents(wal, vchannel) == [b"between"]
    assert txn.result is not None
    assert txn.result.message_count == 3
    assert await units(wal, vchannel) == [b"between", [b"a", b"b", b"c"]]
    messages = [m async for m in wal.read(vchannel, follow=False)][-3:]
    assert {m.time_tick for m in messages} == {txn.result.time_tick}
    assert {m.txn_id for m in messages} == {txn.txn_id}
    assert [m.type for m in messages] == [
        MessageType.INSERT,
        MessageType.DELETE,
        MessageType.INSERT,
    ]


async def test_what_raised_is_never_read(wal: StreamingClient, vchannel: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with wal.txn(vchannel) as txn:
            await txn.append(insert(vchannel, b"a"))
            await txn.append(delete(vchannel, b"b"))
            _ = 1 / 0
    with pytest.raises(ZeroDivisionError):
        async with wal.txn(vchannel) as txn:
            await txn.append(insert(vchannel, b"kept back"))
            _ = 1 / 0
    await wal.append(insert(vchannel, b"after"))
    assert await contents(wal, vchannel) == [b"after"]


async def test_a_transaction_that_fits_one_entry_takes_one_append(
    wal: StreamingClient, vchannel: str
) -> None:
    before = await wal.append(insert(vchannel, b"before"))
    async with wal.txn(vchannel) as txn:
        for number in range(100):
            await txn.append(insert(vchannel, b"%d" % number))
    after = await wal.append(insert(vchannel, b"after"))
    assert txn.txn_id == 0
    assert txn.result is not None
    assert after.message_id.record[0] - before.message_id.record[0] == 2
    whole = [b"%d" % number for number in range(100)]
    assert await units(wal, vchannel) == [b"before", whole, b"after"]


async def test_an_empty_transaction_leaves_no_trace(wal: StreamingClient, vchannel: str) -> None:
    async with wal.txn(vchannel) as txn:
        pass
    assert txn.result is None
    assert await contents(wal, vchannel) == []


async def test_a_token_of_any_message_gives_the_transaction_whole_or_not_at_all(
    wal: StreamingClient, vchannel: str
) -> None:
    await wal.append(insert(vchannel, b"0"))
    async with wal.txn(vchannel) as txn:
        await txn.append(insert(vchannel, b"a"))
        await txn.append(delete(vchannel, b"b"))
        await wal.append(insert(vchannel, b"1"))
        await txn.append(delete(vchannel, b"c"))
    await wal.append(insert(vchannel, b"2"))
    async with wal.txn(vchannel) as txn:
        await txn.append_many([insert(vchannel, b"x"), insert(vchannel, b"y")])
    whole = [b"0", b"1", b"a", b"b", b"c", b"2", b"x", b"y"]
    from_token = {
        b"0": whole[1:],
        b"1": whole[2:],
        b"a": whole[2:],
        b"b": whole[2:],
        b"c": whole[5:],
        b"2": whole[6:],
        b"x": whole[6:],
        b"y": [],
    }
    messages = [m async for m in wal.read(vchannel, follow=False)]
    for message in messages:
        if message.type is not MessageType.CREATE_COLLECTION:
            rest = await contents(wal, vchannel, str(message.resume_token))
            assert rest == from_token[message.payload], message.payload


async def test_a_reader_that_starts_at_the_end_gets_what_commits_later(
    wal: StreamingClient, vchannel: str
) -> None:
    txn = wal.txn(vchannel)
    await txn.append(insert(vchannel, b"a"))
    await txn.flush()
    done = wal.txn(vchannel)
    await done.append(insert(vchannel, b"long ago"))
    await done.flush()
    await done.commit()
    async with tailing(wal, vchannel, start="latest") as got:
        await asyncio.sleep(0.1)
        await txn.append(insert(vchannel, b"b"))
        await txn.commit()
        await until(lambda: len(got) == 2)
    assert got == [b"a", b"b"]


async def test_an_exclusive_message_ends_what_is_open(
    wal: StreamingClient, vchannel: str, manual_flush: MutableMessage
) -> None:
    txn = wal.txn(vchannel)
    await txn.append(insert(vchannel, b"a"))
    await txn.flush()
    await wal.append(manual_flush)
    with pytest.raises(WalError) as refused:
        await txn.append(insert(vchannel, b"b"))
        await txn.commit()
    assert refused.value.code is ErrorCode.TRANSACTION_EXPIRED
    assert (await contents(wal, vchannel))[1:] == []


async def test_run_txn_does_all_of_it_again(
    wal: StreamingClient, vchannel: str, manual_flush: MutableMessage
) -> None:
    attempts = 0

    async def fill(txn: Txn) -> int:
        nonlocal attempts
        attempts += 1
        await txn.append(insert(vchannel, b"a%d" % attempts))
        await txn.flush()
        if attempts == 1:
            await wal.append(manual_flush)
        return attempts

    assert await wal.run_txn(vchannel, fill, timeout=10) == 2
    assert (await contents(wal, vchannel))[1:] == [b"a2"]


@pytest.fixture
def manual_flush(vchannel: str) -> MutableMessage:
    return MutableMessage(MessageType.MANUAL_FLUSH, vchannel, headers_pb2.ManualFlushHeader())
