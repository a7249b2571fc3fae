"""What a log still knows of its producers: within bounds, over owners, for who comes late."""

from __future__ import annotations

import pytest

from walplane.message.codec import encode_body, seal_entry
from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.testkit.txns import begin, end, txn_entry
from walplane.testkit.wal_world import V, World, entry, payloads_of, read_all
from walplane.ticks import TICKS_PER_MS
from walplane.wal.config import WALConfig
from walplane.wal.wal import WAL

SHORT = WALConfig(producer_age_s=0.05, idle_tick_s=0.02)
NARROW = WALConfig(producer_bytes=2000, idle_tick_s=0.02)


@pytest.fixture
def world_url(each_url: str) -> str:
    return each_url


async def append(wal: WAL, number: int, producer: bytes = b"p", since: int = 0) -> int:
    made = entry(b"%d" % number, number=number, producer=producer)
    made.envelope.producer.since_tick = since
    return (await wal.append(made)).first_tick


async def unknown(wal: WAL, number: int, producer: bytes = b"p", since: int = 0) -> bool:
    with pytest.raises(WalError) as error:
        await append(wal, number, producer, since)
    return error.value.code is ErrorCode.OUTCOME_UNKNOWN


async def pass_time(world: World, ms: int) -> None:
    """Tick time goes on, and an entry of somebody else's tells the log."""
    node, wal = world.opened[-1]
    while node.reserve.take(ms * TICKS_PER_MS, 0) is None:
        await node.reserve.ready(ms * TICKS_PER_MS, 0)
    await wal.append(entry(b"other"))


async def reopened(world: World, wal: WAL, config: WALConfig, how: str) -> WAL:
    """`wal` itself, or the next owner."""
    if how == "here":
        return wal
    if how == "from a snapshot":
        await wal.checkpoint()
    return await world.open(2, config)


WHERE = pytest.mark.parametrize("how", ["here", "from a snapshot", "by replay"])


@WHERE
async def test_what_left_with_the_bytes_is_unknown_everywhere(world: World, how: str) -> None:
    wal = await world.open(1, NARROW)
    ticks = [await append(wal, number) for number in range(4)]
    wal = await reopened(world, wal, NARROW, how)
    assert await unknown(wal, 0)
    assert await append(wal, 3) == ticks[3]
    assert wal.recovery.windows.held_bytes <= NARROW.producer_bytes
    await append(wal, 4)
    written = payloads_of(await read_all(wal))
    assert written == [b"%d" % number for number in range(5)]


@WHERE
async def test_who_comes_back_after_the_age_goes_on(world: World, how: str) -> None:
    wal = await world.open(1, SHORT)
    await append(wal, 0)
    await pass_time(world, 60)
    wal = await reopened(world, wal, SHORT, how)
    assert await unknown(wal, 0)
    await append(wal, 1)
    assert payloads_of(await read_all(wal)) == [b"0", b"other", b"1"]


@WHERE
async def test_a_producer_that_was_forgotten_writes_nothing_twice(world: World, how: str) -> None:
    few = WALConfig(producers=1, idle_tick_s=0.02)
    wal = await world.open(1, few)
    since = wal.settled_tick()
    await append(wal, 0, since=since)
    await append(wal, 0, b"another", since)
    wal = await reopened(world, wal, few, how)
    assert await unknown(wal, 0, since=since)
    assert await unknown(wal, 1)
    await append(wal, 0, b"new", wal.settled_tick())
    assert payloads_of(await read_all(wal)) == [b"0", b"0", b"0"]


async def test_results_in_open_transactions_share_one_bound_and_leave_with_them(
    world: World,
) -> None:
    wal = await world.open(1, WALConfig(producer_bytes=20_000, idle_tick_s=0.02))
    txns = [await begin(wal, V) for _ in range(10)]
    for number in range(4):
        for txn in txns:
            made = txn_entry(MessageType.INSERT, V, txn, b"x", producer=(b"p", number))
            await wal.append(made)
    assert 0 < wal.recovery.txns.held_bytes <= 20_000
    for txn in txns:
        await end(wal, txn)
    assert wal.recovery.txns.held_bytes == 0


async def test_a_broadcast_gets_its_first_result_whatever_data_came_since(world: World) -> None:
    config = WALConfig(producers=1, producer_bytes=1, producer_age_s=0.001, idle_tick_s=0.02)
    wal = await world.open(1, config)
    first = await wal.append(_broadcast(7))
    for number in range(3):
        await wal.append(_broadcast(8 + number))
        await append(wal, 0, b"%d" % number, wal.settled_tick())
    await wal.checkpoint()
    assert await wal.append(_broadcast(7)) == first
    assert await (await world.open(2, config)).append(_broadcast(7)) == first


def _broadcast(broadcast_id: int) -> log_pb2.Entry:
    envelope = log_pb2.Envelope(
        version=1,
        type=MessageType.CREATE_COLLECTION,
        vchannel=f"test_0_{broadcast_id}v0",
        collection_id=broadcast_id,
        count=1,
    )
    envelope.broadcast.broadcast_id = broadcast_id
    envelope.producer.producer_id = b"broadcast/%d" % broadcast_id
    header = headers_pb2.CreateCollectionHeader(collection_id=broadcast_id)
    return seal_entry(envelope, encode_body(header.SerializeToString(), [b""]))
