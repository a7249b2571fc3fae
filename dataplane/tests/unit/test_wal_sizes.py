"""What fits a record: envelopes count, what is too large harms nobody but its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from walplane.backends.registry import open_backend
from walplane.client import ClientConfig, StreamingClient
from walplane.message import codec
from walplane.message.builder import insert
from walplane.message.ids import MessageID
from walplane.message.registry import IDEMPOTENCY_KEY, MAX_KEY, MessageType
from walplane.node.checks import check_append
from walplane.node.delivery import next_part
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.reading import payloads
from walplane.testkit.txns import txn_entry
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import V, World, entry, payloads_of, read_all
from walplane.wal.audit.log import LogAudit
from walplane.wal.config import WALConfig
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.keyed import KeyedResults
from walplane.wal.recovery.segments.table import SegmentTable
from walplane.wal.recovery.windows import WindowLimits
from walplane.wal.scan.buffer import WriteAheadBuffer, WriteAheadMemory
from walplane.wal.txn.table import TxnTable
from walplane.wal.wal import WAL

RECORD_BYTES = 200_000
LARGE = {"k": "y" * 20_000}


@pytest.fixture
def world_url() -> str:
    return f"memory:?max_record_bytes={RECORD_BYTES}"


def of_size(wal: WAL, size: int, number: int, properties: dict[str, str]) -> log_pb2.Entry:
    """An entry whose envelope and body have exactly `size` bytes together."""
    body = size
    while True:
        made = entry(b"x" * body, number=number, properties=properties)
        over = made.envelope.ByteSize() + len(made.body) - size
        if not over:
            return made
        body -= over


@pytest.mark.parametrize("properties", [{}, LARGE])
async def test_the_largest_entry_is_written_and_one_byte_more_is_refused(
    world: World, properties: dict[str, str]
) -> None:
    wal = await world.open(1)
    async with asyncio.timeout(10):
        await wal.append(of_size(wal, wal.max_entry_bytes, 0, properties))
        over = of_size(wal, wal.max_entry_bytes + 1, 1, properties)
        with pytest.raises(WalError, match="larger than") as checked:
            check_append(over, wal)
        with pytest.raises(WalError, match="larger than") as appended:
            await wal.append(over)
        assert {checked.value.code, appended.value.code} == {ErrorCode.INVALID_ARGUMENT}
        await wal.append(entry(b"after", number=1))
    assert wal.open_number == 0
    assert payloads_of(await read_all(wal))[1:] == [b"after"]


def test_stamps_and_lengths_fit_the_room_left_for_them() -> None:
    largest = (1 << 64) - 1
    made = entry(b"x" * 300_000)
    before = made.envelope.ByteSize() + len(made.body)
    envelope = made.envelope
    envelope.term = envelope.first_tick = envelope.watermark = largest
    envelope.segment_id = -1  # ten bytes, as no other
    furthest = MessageID("woodpecker", (largest,) * 4, (1 << 32) - 1, (1 << 32) - 1)
    envelope.last_confirmed.CopyFrom(furthest.to_proto())
    content = log_pb2.FrameContent(term=largest, open_number=largest, number=largest, acked=largest)
    frame = codec.encode_frame(content.SerializeToString(), [made])
    assert len(frame) <= before + codec.ENTRY_ROOM_BYTES + codec.FRAME_ROOM_BYTES
    alone = len(codec.encode_frame(content.SerializeToString(), []))
    assert alone <= codec.FRAME_ROOM_BYTES


async def test_small_messages_with_large_properties_are_cut_into_frames_that_fit(
    world: World,
) -> None:
    wal = await world.open(1, WALConfig(frames_in_flight=1))
    async with asyncio.timeout(10):
        await asyncio.gather(
            *(wal.append(entry(b"%d" % i, number=i, properties=LARGE)) for i in range(50))
        )
    assert wal.open_number == 0, "every frame was taken"
    items = await read_all(wal)
    assert payloads_of(items) == [b"%d" % i for i in range(50)]
    records = {item.message_id.record for item in items}
    assert 5 < len(records) < 25, "and they still share frames"


async def test_a_limit_that_the_backend_did_not_tell_fails_what_exceeds_it_and_leaves_no_gap(
    world: World,
) -> None:
    """A broker whose maxMessageSize was lowered refuses what the backend promised to take."""
    world.backend.record_bytes = 50_000
    wal = await world.open(1, WALConfig(frames_in_flight=2))
    numbered = [
        *(entry(b"%d" % i * 8000, number=i) for i in range(9)),
        entry(b"x" * 60_000, number=9),
        *(entry(b"%d" % i, number=i) for i in range(10, 20)),
    ]
    innocent = [entry(b"i%d" % i, number=i, producer=b"other") for i in range(3)] + [entry(b"none")]
    async with asyncio.timeout(10):
        results = await asyncio.gather(
            *(wal.append(each) for each in [*numbered, *innocent]), return_exceptions=True
        )
        codes = [each.code if isinstance(each, WalError) else None for each in results]
        behind = [ErrorCode.INVALID_REQUEST_SEQ] * 10
        assert codes == [None] * 9 + [ErrorCode.INVALID_ARGUMENT, *behind] + [None] * 4
        opens = wal.open_number
        with pytest.raises(WalError, match="larger than"):
            await wal.append(entry(b"x" * 60_000, number=9))
        await wal.append(entry(b"after", number=9))
    assert wal.open_number == opens <= 3, "what is known to be too large costs no open any more"
    expected = [codec.decode_body(each.body)[1][0] for each in numbered[:9] + innocent]
    assert payloads_of(await read_all(wal)) == [*expected, b"after"]


async def test_a_named_producer_misses_nothing_behind_what_was_refused_late(world: World) -> None:
    world.backend.record_bytes = 50_000
    wal = await world.open(1)
    epoch = (await wal.opens.open(V, "loader", b"first", 0)).epoch
    batches = [entry(b"x" * 60_000 if i == 3 else b"%d" % i, number=i) for i in range(8)]
    for each in batches:
        each.envelope.producer.ClearField("producer_id")
        each.envelope.producer.name, each.envelope.producer.epoch = "loader", epoch
    async with asyncio.timeout(10):
        await asyncio.gather(*map(wal.append, batches), return_exceptions=True)
        standing = await wal.opens.open(V, "loader", b"second", epoch)
    assert standing.next_number == 3
    read = [item for item in await read_all(wal) if item.entry.envelope.producer.number < 8]
    assert payloads_of(read)[-3:] == [b"0", b"1", b"2"]


async def test_a_client_goes_on_behind_a_message_that_is_refused_late() -> None:
    backend = FaultyBackend(await open_backend(f"memory:?max_record_bytes={RECORD_BYTES}"))
    async with MiniCluster(backend) as cluster, asyncio.timeout(30):
        vchannel = await cluster.create_vchannel("test_0")
        backend.record_bytes, arrived = 50_000, asyncio.Event()
        backend.before_ack = arrived.wait
        bodies = [b"x" * 60_000 if i == 3 else b"%d" % i * 4000 for i in range(10)]
        log = cluster.owner("test_0").wal("test_0")
        config = ClientConfig(entry_bytes=10_000)
        async with StreamingClient.connect(cluster.address, config=config) as wal:
            appends = (wal.append(insert(vchannel, body)) for body in bodies)
            appending = asyncio.gather(*appends, return_exceptions=True)
            await until(lambda: log.appender.bytes_pending > sum(map(len, bodies[:4])))
            arrived.set()
            results = await appending
            assert [isinstance(result, WalError) for result in results] == [
                i == 3 for i in range(10)
            ]
            del bodies[3]
            assert await payloads(wal, vchannel) == bodies
            audit = LogAudit("test_0")
            async for piece in wal.entries("test_0"):
                for item in piece:
                    audit.take(item)
            audit.finish()
            assert audit.violations == []
    await backend.close()


async def test_a_program_with_the_log_in_itself_goes_on_behind_one_too() -> None:
    """What is refused as the log opens itself again makes nobody append in that same step."""
    backend = FaultyBackend(await open_backend(f"memory:?max_record_bytes={RECORD_BYTES}"))
    async with MiniCluster(backend) as cluster, asyncio.timeout(30):
        first = await cluster.create_vchannel("test_0", 1)
        other = await cluster.create_vchannel("test_0", 2)
        node = cluster.owner("test_0")
        async with StreamingClient.connect(cluster.address, local_nodes={"n1": node}) as wal:
            for vchannel in (first, other):
                await wal.append(insert(vchannel, b"alone"))
            backend.record_bytes = 50_000
            late = [(first, b"x" * 60_000), (first, b"behind"), (other, b"beside")]
            appends = (wal.append(insert(vchannel, body)) for vchannel, body in late)
            results = await asyncio.gather(*appends, return_exceptions=True)
            assert [isinstance(result, WalError) for result in results] == [True, False, False]
            assert await payloads(wal, first) == [b"alone", b"behind"]
            assert await payloads(wal, other) == [b"alone", b"beside"]
        assert node.wal("test_0").state == "serving"
    await backend.close()


async def test_a_snapshot_is_cut_into_records_that_the_backend_takes() -> None:
    world = World(FaultyBackend(await open_backend("memory:?max_record_bytes=20000")))
    wal = await world.open(1)
    async with asyncio.timeout(30):
        for i in range(400):
            await wal.append(entry(b"x", number=0, producer=b"%030d" % i))
        await wal.close()
        successor = await world.open(2)
    assert successor.recovery.checkpoint_tick > 0
    assert successor.recovery.windows.expected((b"%030d" % 7, "test_0_1v0")) == 1
    await world.close()


async def test_a_snapshot_finds_the_limit_that_the_backend_did_not_tell(world: World) -> None:
    config = WALConfig(idle_tick_s=0.02, checkpoint_s=0.05)
    wal = await world.open(1, config)
    world.backend.record_bytes = 6000
    for i in range(400):
        filled = await wal.append(entry(b"x", number=0, producer=b"%030d" % i))
    await until(lambda: wal.recovery.checkpoint_tick >= filled.first_tick)
    opens = wal.open_number
    assert opens > 0, "it was refused at first"
    last = await wal.append(entry(b"x", number=0, producer=b"last"))
    await until(lambda: wal.recovery.checkpoint_tick >= last.first_tick)
    assert wal.open_number == opens, "what was learnt is kept"
    successor = await world.open(2, config)
    assert successor.recovery.windows.expected((b"%030d" % 7, V)) == 1


def _many_ends() -> tuple[TxnTable, TxnTable]:
    table, again = (TxnTable(10_000, WindowLimits(1, 1, 1, 1, 1)) for _ in range(2))
    for tick in range(1, 4000, 2):
        for kind, txn_id in ((MessageType.BEGIN_TXN, 0), (MessageType.COMMIT_TXN, tick)):
            made = txn_entry(kind, V, txn_id)
            made.envelope.first_tick = tick + (txn_id > 0)
            table.observe(LogEntry(made, MessageID("memory", (tick,)), 0))
    return table, again


def _many_keys() -> tuple[KeyedResults, KeyedResults]:
    keys, again = (KeyedResults(10_000, 1 << 30, 1 << 40) for _ in range(2))
    for tick in range(2000):
        made = entry(b"x", properties={IDEMPOTENCY_KEY: f"{tick:0{MAX_KEY}}"})
        made.envelope.first_tick = tick
        keys.observe(LogEntry(made, MessageID("memory", (tick,)), 0))
    return keys, again


def _many_dropped() -> tuple[SegmentTable, SegmentTable]:
    table = SegmentTable()
    for tick in range(5000):
        table.drop(f"test_0_{tick}v0", tick, tick)
    return table, SegmentTable()


@pytest.mark.parametrize("made", [_many_ends, _many_keys, _many_dropped])
def test_a_component_of_many_is_saved_in_parts_that_fit_small_records(
    made: Callable[[], tuple[Any, Any]],
) -> None:
    component, again = made()
    parts = component.save()
    assert max(map(len, parts)) < 50_000
    again.load(parts)
    assert again.save() == parts


async def test_a_client_learns_that_its_message_is_too_large_and_others_go_on() -> None:
    backend = await open_backend(f"memory:?max_record_bytes={RECORD_BYTES}")
    async with MiniCluster(backend) as cluster, asyncio.timeout(20):
        vchannel = await cluster.create_vchannel("test_0")
        async with (
            StreamingClient.connect(cluster.address) as wal,
            StreamingClient.connect(cluster.address) as other,
        ):
            large = insert(vchannel, b"x" * (RECORD_BYTES - 9000), properties=LARGE)
            with pytest.raises(WalError, match="properties included") as error:
                await wal.append(large)
            assert error.value.code is ErrorCode.INVALID_ARGUMENT
            await other.append(insert(vchannel, b"innocent"))
            assert cluster.owner("test_0").wal("test_0").open_number == 0
            assert await payloads(wal, vchannel) == [b"innocent"]
    await backend.close()


async def test_messages_that_share_properties_share_only_entries_that_fit() -> None:
    backend = await open_backend(f"memory:?max_record_bytes={RECORD_BYTES}")
    async with MiniCluster(backend) as cluster, asyncio.timeout(20):
        vchannel = await cluster.create_vchannel("test_0")
        shared = {"k": "y" * 40_000}
        many = [insert(vchannel, b"%d" % i * 9000, properties=shared) for i in range(100, 140)]
        async with StreamingClient.connect(cluster.address) as wal:
            await wal.append_many(many)
            await asyncio.gather(*(wal.append(message) for message in many))
            expected = [message.payloads[0] for message in [*many, *many]]
            assert await payloads(wal, vchannel) == expected
            messages = [m.message_id async for m in wal.read(vchannel, follow=False)]
            assert len({m[:3] for m in messages}) < len(messages) / 2
    await backend.close()


async def test_responses_stay_small_when_envelopes_are_large() -> None:
    stored = entry(b"x", properties=LARGE)
    assert stored.envelope.type == MessageType.INSERT
    items = [LogEntry(stored, MessageID("memory", (i,)), 0) for i in range(1, 21)]
    left, made = iter(items), []
    while (part := await next_part(left, 100_000)) is not None:
        made.append(part)
    assert [sum(map(len, part.pieces)) < 130_000 for part in made] == [True] * 4
    assert sum(part.credit for part in made) == 20 * len(stored.body)


def test_the_write_ahead_buffer_counts_envelopes_and_objects() -> None:
    """Small entries with large properties, or none, take far more than their bodies."""
    buffer = WriteAheadBuffer(0, 1 << 20)
    for number in range(1000):
        item = entry(b"x", properties={"p": "y" * 5000})
        item.envelope.first_tick = number + 1
        buffer.add(LogEntry(item, MessageID("memory", (number,)), 0))
    found = buffer.read(buffer.place_after(buffer.floor) or 0, 1 << 30)
    assert found is not None
    assert 100 < len(found[0]) < (1 << 20) // 6500


def test_the_buffers_of_a_node_share_a_budget_and_the_fullest_gives_way() -> None:
    memory = WriteAheadMemory(20_000)
    large, small = (WriteAheadBuffer(0, 1 << 20, memory) for _ in range(2))
    for number, buffer in enumerate([large] * 6 + [small] * 2):
        item = entry(b"x" * 1000)
        item.envelope.first_tick = number + 1
        buffer.add(LogEntry(item, MessageID("memory", (number,)), 0))
    assert memory.used == large.bytes + small.bytes <= 20_000
    assert small.floor == 0 < large.floor
    large.close()
    assert memory.used == small.bytes > 0
