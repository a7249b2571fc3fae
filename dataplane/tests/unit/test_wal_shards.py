"""Segments: which one an Insert goes to, what seals it, and what the order rules refuse."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.message import Message

from walplane.backends.interface import Record
from walplane.message import codec
from walplane.message.registry import MessageType, spec_of
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.runtime import Runtime
from walplane.testkit.faulty import Fault, no_faults
from walplane.testkit.log_checks import check_log
from walplane.testkit.log_view import LogView
from walplane.testkit.outside import TestNode
from walplane.testkit.txns import begin, body, end, exclusive_entry
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import (
    CH,
    EARLIEST,
    V,
    World,
    create,
    create_entry,
    entry,
    read_all,
)
from walplane.ticks import TICKS_PER_S
from walplane.wal.config import WALConfig
from walplane.wal.scan.request import Only, ScanRequest
from walplane.wal.shard.config import ShardConfig
from walplane.wal.shard.segments import Segment
from walplane.wal.wal import WAL

W = "test_0_7v0"
T = MessageType


def shaped(**shard: float) -> WALConfig:
    """A log with these limits of segments."""
    limits = ShardConfig.model_validate(shard)
    return WALConfig(idle_tick_s=0.01, ack_timeout_s=0.2, shard=limits)


def ddl(kind: MessageType, header: Message, vchannel: str = W) -> log_pb2.Entry:
    """A message about the collection of `vchannel`, as one of a broadcast."""
    envelope = log_pb2.Envelope(version=1, type=kind, vchannel=vchannel, count=1)
    return codec.seal_entry(envelope, codec.encode_body(header.SerializeToString(), [b""]))


def drop(vchannel: str = W) -> log_pb2.Entry:
    return ddl(T.DROP_COLLECTION, headers_pb2.CollectionHeader(), vchannel)


def partition(kind: MessageType, number: int) -> log_pb2.Entry:
    return ddl(kind, headers_pb2.PartitionHeader(partition_id=number))


def insert(
    *payloads: bytes, vchannel: str = W, partition: int = 0, version: int = 0, collection: int = 0
) -> log_pb2.Entry:
    made = entry(*payloads, vchannel=vchannel)
    made.envelope.partition_id = partition
    made.envelope.schema_version = version
    made.envelope.collection_id = collection
    return made


async def refused(wal: WAL, made: log_pb2.Entry) -> WalError:
    with pytest.raises(WalError) as caught:
        await wal.append(made)
    return caught.value


async def log_of(world: World) -> LogView:
    """The log as its records say."""
    topic = world.backend.inner.topics[CH]  # type: ignore[attr-defined]
    found = [Record((place,), data) for place, data in enumerate(topic.records, topic.earliest)]
    return LogView.of(CH, "memory", found)


def segments(wal: WAL, vchannel: str = W) -> list[Segment]:
    meta = wal.recovery.shards.meta(vchannel)
    return [] if meta is None else list(meta.segments.values())


def shape(wal: WAL, vchannel: str = W) -> list[tuple[int, bool]]:
    """(rows, whether it grows) of each segment."""
    return [(segment.rows, segment.growing) for segment in segments(wal, vchannel)]


async def check(world: World, wal: WAL) -> None:
    """The log keeps the order rules, and who replays it knows what its owner knows."""
    assert check_log(await log_of(world)) == []
    before = wal.recovery.shards.save()
    again = await world.open(wal.term + 1, wal.config)
    assert again.recovery.shards.save() == before


# --- segments ----------------------------------------------------------------------------------


async def test_the_first_insert_of_a_partition_is_preceded_by_its_create_segment(
    world: World,
) -> None:
    wal = await world.open(1)
    await wal.append(create_entry(W, partitions=[5], schema_version=3))
    results = await asyncio.gather(*(wal.append(insert(b"x")) for _ in range(5)))
    await wal.append(insert(b"y", b"z", partition=5, version=3))
    assert shape(wal) == [(5, True), (2, True)]
    first, second = segments(wal)
    assert (first.partition_id, first.schema_version, second.partition_id) == (0, 3, 5)
    assert first.segment_id == results[0].first_tick - 1, "the tick of its CreateSegment"
    log = await log_of(world)
    [created, _] = [each for each in log.entries if each.envelope.type == T.CREATE_SEGMENT]
    assert created.first_tick == first.segment_id
    assert (created.envelope.collection_id, created.envelope.schema_version) == (7, 3)
    header = headers_pb2.CreateSegmentHeader.FromString(codec.decode_body(created.body)[0])
    assert header.segment_id == first.segment_id
    assert header.max_rows == wal.config.shard.segment_rows
    await check(world, wal)


async def test_readers_see_create_segment_and_flush_only_when_they_ask(world: World) -> None:
    wal = await world.open(1, shaped(segment_rows=1))
    for number in range(3):
        await wal.append(entry(b"%d" % number))
    await until(lambda: shape(wal, V) == [(1, False), (1, False), (1, True)])
    assert {item.entry.envelope.type for item in await read_all(wal)} == {T.INSERT}
    request = ScanRequest(EARLIEST, follow=False, only=Only(frozenset({T.CREATE_SEGMENT, T.FLUSH})))
    seen: list[int] = []
    async with wal.scan(request) as scanner:
        while not (batch := await scanner.next()).end:
            seen += [item.entry.envelope.type for item in batch.entries]
        seen += [item.entry.envelope.type for item in batch.entries]
    assert sorted(seen) == [T.FLUSH] * 2 + [T.CREATE_SEGMENT] * 3


@pytest.mark.parametrize("limit", [{"segment_rows": 2}, {"segment_bytes": 20}])
async def test_a_full_segment_is_sealed_and_the_next_one_begins(
    world: World, limit: dict[str, float]
) -> None:
    wal = await world.open(1, shaped(**limit))
    await asyncio.gather(*(wal.append(entry(b"%05d" % number)) for number in range(5)))
    await until(lambda: shape(wal, V) == [(2, False), (2, False), (1, True)])
    sizes = [segment.bytes for segment in segments(wal, V)]
    assert sizes == [2 * sizes[2], 2 * sizes[2], len(entry(b"00000").body)]
    await check(world, wal)


async def test_an_entry_larger_than_a_segment_gets_one_of_its_own(world: World) -> None:
    wal = await world.open(1, shaped(segment_rows=2))
    await wal.append(entry(b"a"))
    await wal.append(entry(*[b"x"] * 10))
    await wal.append(entry(b"b"))
    await until(lambda: shape(wal, V) == [(1, False), (10, False), (1, True)])


async def test_age_seals_a_segment(world: World) -> None:
    wal = await world.open(1, shaped(segment_lifetime_s=0.05))
    await wal.append(entry(b"a"))
    await until(lambda: shape(wal, V) == [(1, False)])
    await wal.append(entry(b"b"))
    assert shape(wal, V)[0] == (1, False)
    assert len(shape(wal, V)) == 2


async def test_silence_seals_a_segment_that_is_large_enough(world: World) -> None:
    wal = await world.open(1, shaped(segment_idle_s=0.03, segment_idle_bytes=100))
    await wal.append(entry(b"small"))
    await wal.append(entry(b"x" * 200, vchannel="test_0_2v0"))
    await until(lambda: shape(wal, "test_0_2v0") == [(1, False)])
    assert shape(wal, V) == [(1, True)]


async def test_silence_begins_anew_with_each_insert(world: World) -> None:
    wal = await world.open(1, shaped(segment_idle_s=60, segment_idle_bytes=0))
    now = Runtime.system().monotonic()
    wal.shards._monotonic = lambda: now
    await wal.append(entry(b"a"))
    now += 40
    await wal.append(entry(b"b"))
    now += 40
    wal.seal_segments()
    assert len(wal.shards.candidates()) == 1
    now += 40
    wal.seal_segments()
    assert wal.shards.candidates() == []
    await until(lambda: shape(wal, V) == [(2, False)])


async def test_a_segment_is_sealed_once_all_that_was_put_into_it_is_written(world: World) -> None:
    wal = await world.open(1, shaped(segment_rows=2))
    await wal.append(entry(b"a"))
    acknowledge = asyncio.Event()
    world.backend.before_ack = acknowledge.wait
    late = [asyncio.create_task(wal.append(entry(payload))) for payload in (b"b", b"c")]
    await until(lambda: wal.appender.bytes_pending > 0)
    wal.seal_segments()  # the first segment is full, and its second row on its way
    acknowledge.set()
    await asyncio.gather(*late)
    await until(lambda: shape(wal, V) == [(2, False), (1, True)])
    [sealed] = [each for each in (await log_of(world)).entries if each.envelope.type == T.FLUSH]
    header = headers_pb2.FlushHeader.FromString(codec.decode_body(sealed.body)[0])
    assert header.rows == 2


async def test_many_data_files_seal_a_segment(world: World) -> None:
    wal = await world.open(1, shaped(segment_files=3))
    await wal.append(entry(b"a"))
    [segment] = segments(wal, V)
    wal.shards.note_files(segment.segment_id, 2)
    await wal.append(entry(b"b"))
    wal.shards.note_files(segment.segment_id, 3)
    await until(lambda: shape(wal, V) == [(2, False)])


async def test_what_recovery_finds_stale_is_sealed_at_once(world: World) -> None:
    wal = await world.open(1)
    await wal.append(entry(b"a"))
    node = world.opened[-1][0]
    while node.reserve.take(10 * TICKS_PER_S, 0) is None:  # ten seconds of tick time pass
        await node.reserve.ready(16 << 20, 0)
        world.oracle._next += 10 * TICKS_PER_S
        break
    world.oracle._next += 10 * TICKS_PER_S
    successor = await world.open(2, shaped(segment_lifetime_s=10))
    await until(lambda: shape(successor, V) == [(1, False)])


# --- messages that seal ------------------------------------------------------------------------


async def test_a_flush_message_seals_what_it_covers(world: World) -> None:
    wal = await world.open(1)
    await wal.append(create_entry(W, partitions=[5, 6], schema_version=1))

    async def fill() -> None:
        for number in (0, 5, 6):
            await wal.append(insert(b"x", partition=number))
        await wal.append(entry(b"elsewhere"))

    await fill()
    await wal.append(exclusive_entry(W))
    assert shape(wal) == [(1, False)] * 3
    assert shape(wal, V) == [(1, True)]
    await fill()
    await wal.append(partition(T.DROP_PARTITION, 5))
    assert shape(wal)[3:] == [(1, True), (1, False), (1, True)]
    await wal.append(exclusive_entry(""))
    assert shape(wal)[3:] == [(1, False)] * 3
    assert shape(wal, V) == [(2, False)]
    await wal.append(insert(b"x"))
    rename = headers_pb2.AlterCollectionHeader(new_collection_name="other")
    await wal.append(ddl(T.ALTER_COLLECTION, rename))
    assert shape(wal)[6:] == [(1, True)]
    schema = headers_pb2.AlterCollectionHeader(new_schema_version=2)
    await wal.append(ddl(T.ALTER_COLLECTION, schema))
    await wal.append(insert(b"x", version=2))
    assert [segment.schema_version for segment in segments(wal)[6:]] == [1, 2]
    await wal.append(ddl(T.TRUNCATE_COLLECTION, headers_pb2.CollectionHeader()))
    await wal.append(insert(b"x", version=2))
    await wal.append(drop())
    assert not any(segment.growing for segment in segments(wal))
    await check(world, wal)


async def test_a_policy_waits_for_open_transactions_and_a_flush_message_ends_them(
    world: World,
) -> None:
    wal = await world.open(1, shaped(segment_rows=2))
    txn = await begin(wal, V)
    await body(wal, txn, b"a", b"b")
    await wal.append(entry(b"c", b"d"))
    await wal.append(entry(b"e"))
    await until(lambda: shape(wal, V) == [(0, True), (2, False), (1, True)])
    await end(wal, txn)
    await until(lambda: shape(wal, V) == [(2, False), (2, False), (1, True)])
    other = await begin(wal, V)
    await body(wal, other, b"never")
    await wal.append(exclusive_entry(V))
    assert shape(wal, V) == [(2, False), (2, False), (1, False)]
    await check(world, wal)


async def test_what_is_rolled_back_is_in_no_segment(world: World) -> None:
    wal = await world.open(1, shaped(segment_rows=2))
    txn = await begin(wal, V)
    await body(wal, txn, b"a")
    await end(wal, txn, T.ROLLBACK_TXN)
    await wal.append(entry(b"b"))
    await wal.append(entry(b"c"))
    await until(lambda: shape(wal, V) == [(1, False), (1, True)])
    await check(world, wal)


# --- the order rules ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [T.INSERT, T.DELETE, T.BEGIN_TXN, T.MANUAL_FLUSH])
async def test_nothing_precedes_create_collection_or_follows_drop_collection(
    world: World, kind: MessageType
) -> None:
    wal = await world.open(1)
    made = ddl(kind, spec_of(kind).header())
    made.envelope.partition_id = 3
    before = await refused(wal, made)
    assert before.code is ErrorCode.INVALID_ARGUMENT
    for word in (kind.name, "collection 7", "partition 3", W, "CreateCollection precedes"):
        assert word in before.message
    await wal.append(create_entry(W))
    await wal.append(create_entry(W))  # its broadcast comes again
    await wal.append(drop())
    await wal.append(drop())
    after = await refused(wal, made)
    assert after.code is ErrorCode.INVALID_ARGUMENT
    assert "DropCollection ends everything" in after.message
    assert "DropCollection ends" in (await refused(wal, create_entry(W))).message
    await check(world, wal)


async def test_an_append_that_waits_behind_drop_collection_is_refused(world: World) -> None:
    wal = await world.open(1)
    await wal.append(create_entry(W))
    acknowledge = asyncio.Event()
    world.backend.before_ack = acknowledge.wait
    dropping = asyncio.create_task(wal.append(drop()))
    await asyncio.sleep(0)
    late = asyncio.create_task(refused(wal, insert(b"late")))
    await asyncio.sleep(0.01)
    acknowledge.set()
    await dropping
    assert "DropCollection ends" in (await late).message
    assert b"late" not in [message.payload for message in (await log_of(world)).messages()]


async def test_partitions_and_schema_versions_are_checked(world: World) -> None:
    wal = await world.open(1)
    await wal.append(create_entry(W, partitions=[5], schema_version=1))
    assert "CreatePartition precedes" in (await refused(wal, insert(b"x", partition=6))).message
    await wal.append(partition(T.CREATE_PARTITION, 6))
    await wal.append(insert(b"x", partition=6, version=1, collection=7))
    await wal.append(partition(T.DROP_PARTITION, 6))
    gone = await refused(wal, insert(b"x", partition=6))
    assert "partition 6" in gone.message
    assert "DropPartition ends" in gone.message
    key = ddl(T.DELETE, headers_pb2.DeleteHeader())
    key.envelope.partition_id = 6
    assert "DropPartition ends" in (await refused(wal, key)).message
    await wal.append(
        ddl(T.ALTER_COLLECTION, headers_pb2.AlterCollectionHeader(new_schema_version=2))
    )
    stale = await refused(wal, insert(b"x", version=1))
    assert stale.code is ErrorCode.SCHEMA_VERSION_MISMATCH
    assert "2 is the current" in stale.message
    await wal.append(insert(b"x", version=2))
    other = await refused(wal, insert(b"x", collection=8))
    assert "of collection 7, not of this" in other.message
    control = await refused(wal, insert(b"x", vchannel=f"{CH}_vcchan"))
    assert "holds no data" in control.message
    await check(world, wal)


async def test_what_cannot_be_read_afterwards_is_refused(world: World) -> None:
    wal = await world.open(1)
    envelope = log_pb2.Envelope(version=1, type=T.ALTER_COLLECTION, vchannel=V, count=1)
    broken = codec.seal_entry(envelope, codec.encode_body(b"\xff", [b""]))
    assert (await refused(wal, broken)).code is ErrorCode.INVALID_ARGUMENT
    await wal.append(entry(b"goes on"))


# --- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [each for each in Fault if each is not Fault.NONE])
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_self_reopen_assigns_again_what_was_not_written(
    world: World, fault: Fault, number: int
) -> None:
    wal = await world.open(
        1, shaped(segment_rows=3).model_copy(update={"frame_bytes": 40, "frames_in_flight": 3})
    )
    seen = 0

    def faults(topic: str) -> Fault:
        nonlocal seen
        seen += topic == CH
        return fault if topic == CH and seen == number else Fault.NONE

    world.backend.faults = faults
    async with asyncio.timeout(10):
        await asyncio.gather(*(wal.append(entry(b"%d" % i, number=i)) for i in range(20)))
        await wal.append(exclusive_entry(V))
        await wal.append(entry(b"20", number=20))
    world.backend.faults = no_faults
    assert wal.open_number >= 1
    await until(lambda: sum(rows for rows, _ in shape(wal, V)) == 21)
    assert [growing for _, growing in shape(wal, V)][-1]
    await check(world, wal)


async def test_a_checkpoint_holds_the_segments(world: World) -> None:
    wal = await world.open(1, shaped(segment_rows=4))
    await wal.append(create_entry(W, partitions=[5]))
    for number in range(6):
        await wal.append(insert(b"x", partition=5))
        if number == 2:
            await wal.checkpoint()
    txn = await begin(wal, W)
    await wal.append(insert(b"x", partition=5))
    await wal.checkpoint()
    await end(wal, txn, vchannel=W)
    await until(lambda: shape(wal) == [(4, False), (3, True)])
    await wal.close()
    await check(world, wal)


async def test_what_an_open_finds_counts_in_what_grows_on_the_node(world: World) -> None:
    wal = await world.open(1)
    await wal.append(entry(b"a"))
    successor = await world.open(2)
    node, _ = world.opened[-1]
    [segment] = segments(successor, V)
    assert node.deps.growth.bytes == segment.bytes > 0


async def test_the_node_seals_its_largest_segments_when_too_much_grows(world: World) -> None:
    node = TestNode(world.backend, world.oracle, world.authority, Runtime.system())
    node.deps.growth._config = node.deps.growth._config.model_copy(
        update={"high_bytes": 1000, "low_share": 0.5}
    )
    wals = [await node.open(name, 1, shaped()) for name in ("one_0", "two_0")]
    for wal in wals:
        world.opened.append((node, wal))
        await create(wal, f"{wal.pchannel}_1v0", f"{wal.pchannel}_1v1")
    sizes = {"one_0_1v0": 100, "one_0_1v1": 500, "two_0_1v0": 200, "two_0_1v1": 400}
    for vchannel, size in sizes.items():
        await wals["two" in vchannel].append(entry(b"x" * size, vchannel=vchannel))
    await until(lambda: shape(wals[0], "one_0_1v1") == [(1, False)])
    await until(lambda: shape(wals[1], "two_0_1v1") == [(1, False)])
    assert shape(wals[0], "one_0_1v0") == shape(wals[1], "two_0_1v0") == [(1, True)]
    growing = [len(entry(b"x" * size).body) for size in (100, 200)]
    assert node.deps.growth.bytes == sum(growing)
    for wal in wals:
        await wal.close()
    assert node.deps.growth.bytes == 0
