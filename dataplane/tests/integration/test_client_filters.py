"""What readers ask for and what they are kept from: types, ticks, channels of tokens."""

from __future__ import annotations

import pytest

from walplane.client import Only, StreamingClient
from walplane.message.builder import delete, insert
from walplane.message.ids import ResumeToken
from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.cluster import MiniCluster

P1 = "test_1"


async def read(
    wal: StreamingClient, vchannel: str, only: Only, start: str = "earliest"
) -> list[bytes]:
    messages = wal.read(vchannel, start=start, follow=False, only=only)
    return [message.payload async for message in messages]


async def test_a_read_by_type_gets_transactions_whole(wal: StreamingClient, vchannel: str) -> None:
    await wal.append(insert(vchannel, b"i"))
    await wal.append(delete(vchannel, b"d"))
    for bodies in ([insert(vchannel, b"ti")], [insert(vchannel, b"tm"), delete(vchannel, b"tn")]):
        async with wal.txn(vchannel) as txn:
            await txn.append_many(bodies)
            await txn.flush()
    inserts, deletes = frozenset({MessageType.INSERT}), frozenset({MessageType.DELETE})
    assert await read(wal, vchannel, Only(types=inserts)) == [b"i", b"ti", b"tm", b"tn"]
    assert await read(wal, vchannel, Only(types=deletes)) == [b"d", b"tm", b"tn"]
    txns = Only(types=frozenset({MessageType.TXN}))
    assert await read(wal, vchannel, txns) == [b"ti", b"tm", b"tn"]
    created = wal.reader(
        vchannel, follow=False, only=Only(types=frozenset({MessageType.CREATE_COLLECTION}))
    )
    batches = [batch async for batch in created.batches()]
    assert [batch.type for batch in batches] == [MessageType.CREATE_COLLECTION]
    assert created.token is not None
    last = await wal.append(insert(vchannel, b"behind"))
    assert created.token.time_tick < last.time_tick


async def test_a_read_by_ticks_is_cut_to_the_message(wal: StreamingClient, vchannel: str) -> None:
    first = await wal.append(insert(vchannel, *(b"%d" % i for i in range(10))))
    second = await wal.append(insert(vchannel, *(b"%d" % i for i in range(10, 20))))
    low, high = first.time_tick + 4, second.time_tick + 4
    async with wal.txn(vchannel) as txn:
        await txn.append(insert(vchannel, b"t"))
        await txn.flush()
    assert txn.result is not None
    ranges = [
        (low, high),
        (0, high),
        (low, 0),
        (low, low),
        (high, txn.result.time_tick),
    ]
    every = [b"%d" % i for i in range(20)]
    expected = [
        every[4:15],
        [b"", *every[:15]],
        [*every[4:], b"t"],
        every[4:5],
        [*every[14:], b"t"],
    ]
    for (since, until), payloads in zip(ranges, expected, strict=True):
        assert await read(wal, vchannel, Only(from_tick=since, until_tick=until)) == payloads
    tailing = wal.reader(vchannel, follow=True, only=Only(until_tick=high))
    assert [m.payload async for m in tailing] == [b"", *every[:15]]
    assert tailing.token is not None
    rest = await read(wal, vchannel, Only(), start=str(tailing.token))
    assert rest == [*every[15:], b"t"]


@pytest.mark.parametrize("kind", [MessageType.TIME_TICK, MessageType.COMMIT_TXN])
async def test_what_no_reader_gets_is_not_asked_for(
    wal: StreamingClient, vchannel: str, kind: MessageType
) -> None:
    with pytest.raises(WalError, match=kind.name) as error:
        wal.reader(vchannel, only=Only(types=frozenset({kind})))
    assert error.value.code is ErrorCode.INVALID_ARGUMENT


async def test_a_token_is_of_one_channel(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    other = await cluster.create_vchannel(P1, collection_id=3)
    await wal.append(insert(vchannel, b"a"))
    reader = wal.reader(vchannel, follow=False)
    [message] = [m async for m in reader if m.payload == b"a"]
    for token in (reader.token, message.resume_token):
        assert token is not None
        assert str(token).endswith("@test_0")
        assert ResumeToken.parse(str(token)) == token
        with pytest.raises(WalError, match="is a place in test_0, not in test_1") as error:
            wal.reader(other, start=str(token))
        assert error.value.code is ErrorCode.INVALID_ARGUMENT
        old = str(token).rpartition("@")[0]  # as it was printed once: belongs anywhere
        assert [m async for m in wal.read(vchannel, start=old, follow=False)] == []
