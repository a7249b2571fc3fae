"""Transactions from the client to its readers over real gRPC, on the memory backend."""

from __future__ import annotations

import asyncio

import pytest

from walplane.cli.tail import as_row
from walplane.client import StreamingClient, SyncStreamingClient, Txn
from walplane.client.txn import TxnState
from walplane.message.builder import MutableMessage, delete, insert
from walplane.message.registry import MessageType
from walplane.message.txn_view import ImmutableTxnMessage
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2
from walplane.testkit.cluster import MiniCluster
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


def open_at(cluster: MiniCluster) -> object:
    """What the node has of transactions that did not end."""
    return cluster.owner("test_0").wal("test_0").recovery.txns.open


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


async def test_transactions_go_on_under_the_next_owner(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    txns = [wal.txn(vchannel) for _ in range(10)]
    contents: list[list[bytes]] = [[] for _ in txns]

    async def append(index: int, part: int) -> None:
        contents[index].append(b"%d/%d" % (index, part))
        make = delete if part % 2 else insert
        await txns[index].append(make(vchannel, contents[index][-1]))

    for part in range(8):
        await asyncio.gather(*(append(index, part) for index in range(len(txns))))
        if part in (3, 5):
            await cluster.move("test_0", "n1" if part == 5 else "n2")
    await asyncio.gather(*(txn.commit() for txn in txns))
    assert sorted(unit for unit in await units(wal, vchannel) if unit) == sorted(contents)


async def test_a_commit_that_nobody_answers_is_unknown(vchannel: str, cluster: MiniCluster) -> None:
    async with StreamingClient.connect(cluster.address) as wal:
        txn = wal.txn(vchannel, timeout=0.5)
        await txn.append(insert(vchannel, b"a"))
        await txn.flush()
        await asyncio.sleep(0.1)
        await cluster.owner("test_0").release("test_0", 99)
        with pytest.raises(WalError) as unknown:
            await txn.commit()
        assert unknown.value.code is ErrorCode.OUTCOME_UNKNOWN
        with pytest.raises(WalError) as over:
            await txn.rollback()
        assert over.value.code is ErrorCode.INVALID_TRANSACTION_STATE


async def test_a_log_that_fails_says_nothing_of_a_commit(
    wal: StreamingClient, vchannel: str, cluster: MiniCluster
) -> None:
    """It refuses whatever comes, also the second copy of what it has written."""
    txn, whole = wal.txn(vchannel), wal.txn(vchannel)
    await txn.append(insert(vchannel, b"a"))
    await txn.flush()
    await whole.append(insert(vchannel, b"b"))
    await until(lambda: all(done.done() for done in txn._sent))
    broken = WalError(ErrorCode.UNRECOVERABLE, "an entry that cannot be taken in")
    cluster.owner("test_0").edge("test_0", cluster.terms["test_0"]).wal.recovery.poison = broken
    for each in (txn, whole):
        with pytest.raises(WalError) as failed:
            await each.commit()
        assert failed.value.code is ErrorCode.UNRECOVERABLE
        assert each.state is TxnState.UNKNOWN


async def test_a_transaction_that_lost_a_message_is_rolled_back_when_its_block_ends(
    wal: StreamingClient, vchannel: str, cluster: MiniCluster
) -> None:
    """Also if that is known by then: nobody keeps it for the rest of its keepalive."""
    txn = wal.txn(vchannel, keepalive=3600)
    with pytest.raises(WalError, match="split it"):
        async with txn:
            await txn.append(insert(vchannel, b"a"))
            await txn.flush()
            await txn.append(insert(vchannel, b"x" * 300_000))
            await until(lambda: txn._failure is not None)
    assert txn.state is TxnState.ROLLED_BACK
    await until(lambda: not open_at(cluster))
    assert not [lane for lane in wal._appends._producers["test_0"]._pipelines if " txn " in lane]


@pytest.mark.parametrize("commits", [True, False])
async def test_a_transaction_ends_also_while_the_byte_budget_is_full(
    wal: StreamingClient, vchannel: str, cluster: MiniCluster, commits: bool
) -> None:
    txn = wal.txn(vchannel, keepalive=3600, timeout=5)
    await txn.append(insert(vchannel, b"a"))
    await txn.flush()
    budget = wal._appends._pending
    await until(lambda: not budget.used)
    assert budget.try_acquire(1 << 40)
    waiting = asyncio.create_task(wal.append(insert(vchannel, b"waits")))
    await until(lambda: not budget.try_acquire(1))
    await (txn.commit() if commits else txn.rollback())
    await until(lambda: not open_at(cluster))
    budget.release(1 << 40)
    await waiting
    assert await contents(wal, vchannel) == [b"a", b"waits"][1 - commits :]


async def test_a_rollback_that_a_closed_client_cannot_send_says_so(
    cluster: MiniCluster, vchannel: str
) -> None:
    async with StreamingClient.connect(cluster.address) as wal:
        txn = wal.txn(vchannel)
        await txn.append(insert(vchannel, b"a"))
        await txn.flush()
    with pytest.raises(WalError, match="is closed") as caught:
        await txn.rollback()
    assert caught.value.code is ErrorCode.ON_SHUTDOWN


async def test_a_cancelled_block_is_rolled_back(wal: StreamingClient, vchannel: str) -> None:
    begun: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def block() -> None:
        async with wal.txn(vchannel) as txn:
            await txn.append(insert(vchannel, b"a"))
            await txn.flush()
            begun.set_result(txn.txn_id)
            await asyncio.sleep(60)

    task = asyncio.create_task(block())
    await begun
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with wal.txn(vchannel) as txn:
        await txn.append(insert(vchannel, b"next"))
        await txn.flush()
    assert await units(wal, vchannel) == [[b"next"]]


async def test_wrong_messages_are_refused_and_the_rest_commits(
    wal: StreamingClient, vchannel: str, manual_flush: MutableMessage
) -> None:
    async with wal.txn(vchannel) as txn:
        await txn.append(insert(vchannel, b"a"))
        for wrong in (manual_flush, insert("test_0_9v0", b"elsewhere")):
            with pytest.raises(WalError) as refused:
                await txn.append(wrong)
            assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    assert await units(wal, vchannel) == [[b"a"]]
    with pytest.raises(WalError) as over:
        await txn.append(insert(vchannel, b"late"))
    assert over.value.code is ErrorCode.INVALID_TRANSACTION_STATE
    with pytest.raises(WalError):
        wal.txn(vchannel, keepalive=0)


async def test_a_large_transaction_leaves_in_many_entries(
    wal: StreamingClient, vchannel: str
) -> None:
    contents = [b"%d" % number * 2000 for number in range(100, 300)]
    async with wal.txn(vchannel) as txn:
        await txn.append_many(insert(vchannel, content) for content in contents)
    assert txn.txn_id > 0
    assert await units(wal, vchannel) == [contents]


async def test_blocking_programs_have_transactions(cluster: MiniCluster, vchannel: str) -> None:
    def program() -> list[bytes]:
        with SyncStreamingClient.connect(cluster.address) as wal:
            with wal.txn(vchannel) as txn:
                txn.append(insert(vchannel, b"a"))
                txn.append(delete(vchannel, b"b"))
            assert txn.result is not None
            gone = wal.txn(vchannel)
            gone.append(insert(vchannel, b"gone"))
            gone.rollback()
            return [message.payload for message in wal.read(vchannel) if message.txn_id]

    assert await asyncio.to_thread(program) == [b"a", b"b"]


async def test_tail_tells_which_messages_are_of_one_transaction(
    wal: StreamingClient, vchannel: str
) -> None:
    await wal.append(insert(vchannel, b"plain"))
    async with wal.txn(vchannel) as txn:
        await txn.append(insert(vchannel, b"a"))
        await txn.append(delete(vchannel, b"b"))
    rows = [as_row(message) async for message in wal.read(vchannel, follow=False)][-3:]
    assert [row.get("txn_id") for row in rows] == [None, txn.txn_id, txn.txn_id]
    assert [row["type"] for row in rows] == ["INSERT", "INSERT", "DELETE"]


@pytest.fixture
def manual_flush(vchannel: str) -> MutableMessage:
    return MutableMessage(MessageType.MANUAL_FLUSH, vchannel, headers_pb2.ManualFlushHeader())
