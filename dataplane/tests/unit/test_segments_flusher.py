"""Segments come to the store whole and once, whatever their log looks like and whoever owns it."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from walplane.backends.registry import open_backend
from walplane.message.ids import ResumeToken
from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.segments import (
    MemoryStore,
    arrow_payload,
    flush,
    headed,
    insert,
    segment_deps,
    whole,
)
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import World, payloads_of, read_all
from walplane.wal.config import WALConfig
from walplane.wal.ports import TURN_ENTRIES
from walplane.wal.recovery.segments.parquet import ENTRY, TICK
from walplane.wal.recovery.segments.storing import SegmentWriter
from walplane.wal.recovery.segments.table import StreamKey
from walplane.wal.recovery.segments.units import Unit
from walplane.wal.scan import scanner
from walplane.wal.scan.request import ScanStart, StartKind
from walplane.wal.shard.config import ShardConfig

EAGER = WALConfig(idle_tick_s=0.02, checkpoint_s=0.05, retention_s=0.0)
PART = log_pb2.TXN_KIND_PART

pytestmark = pytest.mark.usefixtures("logs_by_hand", "stores_segments")


@pytest.fixture
def world_url(each_url: str) -> str:
    return each_url


async def test_a_flushed_segment_holds_its_rows_and_no_others(
    world: World, store: MemoryStore
) -> None:
    wal = await world.open(1, EAGER)
    results = [
        await wal.append(insert(7, b"a", b"b")),
        await wal.append(insert(8, b"x")),
        await wal.append(insert(7, b"c")),
    ]
    await wal.append(flush(7))
    await until(lambda: whole(store) == {"7"})
    (table,) = store.tables(7)
    first, _, third = results
    ticks = [first.first_tick, first.first_tick + 1, third.first_tick]
    assert table.column("payload").to_pylist() == [b"a", b"b", b"c"]
    assert table.column(TICK).to_pylist() == ticks
    ids = [str(result.message_id) for result in (first, first, third)]
    assert table.column(ENTRY).to_pylist() == ids


async def test_segments_that_the_log_assigns_itself_are_stored(
    world: World, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    wal = await world.open(1, EAGER)
    await wal.append(insert(0, b"a", b"b"))
    await wal.append(insert(0, b"c"))
    await wal.append(headed(MessageType.MANUAL_FLUSH))
    await until(lambda: len(store.manifests()) == 1)
    (manifest,) = store.manifests()
    assert store.payloads(int(manifest["segment_id"])) == [b"a", b"b", b"c"]


async def test_many_parts_seal_a_segment(
    world: World, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is short all the time, so that each append becomes a part of its own."""
    monkeypatch.undo()
    world.segments = segment_deps(store, max_bytes=1)
    shard = ShardConfig(segment_files=3)
    wal = await world.open(1, EAGER.model_copy(update={"shard": shard}))
    for number in range(3):
        assert store.manifests() == []
        await wal.append(insert(0, b"%d" % number))
        await until(lambda number=number: len(store.objects) > number)  # type: ignore[misc]
    await until(lambda: len(store.manifests()) == 1)
    (manifest,) = store.manifests()
    assert store.payloads(int(manifest["segment_id"])) == [b"0", b"1", b"2"]
    await wal.append(insert(0, b"the next segment's"))


async def test_arrow_payloads_become_their_own_columns(world: World, store: MemoryStore) -> None:
    wal = await world.open(1, EAGER)
    some = arrow_payload({"flight": ["LH1", "LH2"], "seats": [180, 200]})
    more = arrow_payload({"flight": ["LH3"], "seats": [90]})
    none = arrow_payload({"flight": pa.array([], pa.string()), "seats": pa.array([], pa.int64())})
    result = await wal.append(insert(7, some, none, more, arrow=True))
    await wal.append(flush(7))
    await until(lambda: whole(store) == {"7"})
    (table,) = store.tables(7)
    assert table.select(["flight", "seats"]).to_pydict() == {
        "flight": ["LH1", "LH2", "LH3"],
        "seats": [180, 200, 90],
    }
    tick = result.first_tick
    assert table.column(TICK).to_pylist() == [tick, tick, tick + 2]


async def test_payloads_that_are_no_arrow_streams_hold_up_nothing(
    world: World, store: MemoryStore
) -> None:
    """Nor do schemas that change, which make as many parts."""
    wal = await world.open(1, EAGER)
    await wal.append(insert(7, arrow_payload({"n": [1]}), arrow=True))
    await wal.append(insert(7, b"garbage", arrow=True))
    await wal.append(insert(7, arrow_payload({"s": ["x"]}), arrow=True))
    await wal.append(flush(7))
    await until(lambda: whole(store) == {"7"})
    parts = store.manifests()[0]["parts"]
    assert [part["rows"] for part in parts] == [1, 1, 1]
    assert store.tables(7)[1].column("payload").to_pylist() == [b"garbage"]
    assert wal.status().state == "serving"


async def test_arrow_payloads_that_are_broken_inside_are_kept_as_they_are(
    world: World, store: MemoryStore
) -> None:
    """Written as columns, an offset beyond the data would end the process."""
    payload = arrow_payload({"s": ["xxxxxx", "y"]})
    offsets, beyond = struct.pack("<iii", 0, 6, 7), struct.pack("<iii", 0, 1 << 28, 7)
    assert payload.count(offsets) == 1
    broken = payload.replace(offsets, beyond)
    wal = await world.open(1, EAGER)
    await wal.append(insert(7, broken, arrow=True))
    await wal.append(flush(7))
    await until(lambda: whole(store) == {"7"})
    assert store.payloads(7) == [broken]


@pytest.mark.parametrize(
    ("kind", "vchannel", "sealed"),
    [
        (MessageType.MANUAL_FLUSH, "test_0_1v0", {"7"}),
        (MessageType.DROP_COLLECTION, "test_0_1v0", {"7"}),
        (MessageType.FLUSH_ALL, "", {"7", "8"}),
    ],
)
async def test_flush_effect_seals_what_grows_in_scope(
    world: World, store: MemoryStore, kind: MessageType, vchannel: str, sealed: set[str]
) -> None:
    wal = await world.open(1, EAGER)
    await wal.append(insert(7, b"a"))
    await wal.append(insert(8, b"b", vchannel="test_0_2v0"))
    await wal.append(headed(kind, vchannel=vchannel))
    await until(lambda: whole(store) == sealed)
    await wal.append(insert(9, b"c"))
    await wal.append(flush(9))
    await until(lambda: whole(store) == sealed | {"9"})


async def test_dropping_a_partition_seals_its_segments_alone(
    world: World, store: MemoryStore
) -> None:
    wal = await world.open(1, EAGER)
    for partition, segment in ((1, 7), (2, 8)):
        entry = insert(segment, b"a")
        entry.envelope.partition_id = partition
        await wal.append(entry)
    header = headers_pb2.PartitionHeader(partition_id=2).SerializeToString()
    await wal.append(headed(MessageType.DROP_PARTITION, header))
    await until(lambda: whole(store) == {"8"})


async def test_a_transaction_is_stored_when_it_is_committed_or_never(
    world: World, store: MemoryStore
) -> None:
    wal = await world.open(1, EAGER)

    async def begin() -> int:
        entry = headed(MessageType.BEGIN_TXN)
        entry.envelope.txn.CopyFrom(log_pb2.TxnContext(kind=PART, keepalive_ms=60_000))
        return (await wal.append(entry)).first_tick

    async def end(kind: MessageType, txn_id: int) -> int:
        entry = headed(kind)
        entry.envelope.txn.CopyFrom(log_pb2.TxnContext(kind=PART, txn_id=txn_id))
        return (await wal.append(entry)).first_tick

    kept, gone = await begin(), await begin()
    for txn_id, payload in ((kept, b"kept"), (gone, b"gone")):
        context = log_pb2.TxnContext(kind=PART, txn_id=txn_id)
        await wal.append(insert(7, payload, txn=context))
    await wal.append(insert(7, b"plain"))
    await end(MessageType.ROLLBACK_TXN, gone)
    committed = await end(MessageType.COMMIT_TXN, kept)
    await wal.append(flush(7))
    await until(lambda: whole(store) == {"7"})
    assert store.payloads(7) == [b"plain", b"kept"]
    (table,) = store.tables(7)
    assert table.column(TICK).to_pylist()[1] == committed


async def test_an_open_transaction_and_a_growing_segment_hold_the_position(
    world: World, store: MemoryStore
) -> None:
    wal = await world.open(1, EAGER)
    await wal.append(insert(7, b"a"))
    await wal.append(insert(8, b"b"))
    await wal.append(flush(8))
    await until(lambda: whole(store) == {"8"})
    await until(lambda: wal.recovery.checkpoint_tick > 0)
    assert payloads_of(await read_all(wal))[0] == b"a"
    await wal.append(flush(7))
    tick = wal.live_position().watermark
    await until(lambda: wal.recovery.segments.position.time_tick >= tick)
    assert wal.recovery.segments.streams == {}, "nothing of it will be read again"


async def test_deletes_are_stored_with_a_flush_of_their_vchannel(
    world: World, store: MemoryStore
) -> None:
    wal = await world.open(1, EAGER)
    await wal.append(insert(7, b"a"))
    await wal.append(insert(0, b"key", kind=MessageType.DELETE))
    await wal.append(flush(7))
    await until(lambda: any("/deletes/" in path for path in store.objects))
    await until(lambda: wal.recovery.segments.position.time_tick > 0)


@pytest.mark.parametrize(
    ("kind", "folder"), [(MessageType.DELETE, "deletes"), (MessageType.INSERT, "unassigned")]
)
async def test_what_nothing_seals_is_stored_by_its_age(
    world: World, store: MemoryStore, kind: MessageType, folder: str
) -> None:
    """Its VChannel may never have another segment, and the whole log would wait for it."""
    other = "test_0_2v0"
    wal = await world.open(1, EAGER)
    await wal.append(insert(0, b"key", kind=kind))
    await wal.append(flush(8, vchannel=other))
    await until(lambda: whole(store) == {"8"})
    assert not any(f"/{folder}/" in path for path in store.objects)
    short = EAGER.model_copy(update={"shard": ShardConfig(segment_lifetime_s=0.01)})
    wal = await world.open(2, short)
    await world.skip_ticks(20)
    tick = (await wal.append(flush(9, vchannel=other))).first_tick
    await until(lambda: any(f"/{folder}/" in path for path in store.objects))
    await until(lambda: wal.recovery.segments.position.time_tick >= tick)


async def test_the_log_is_cut_off_behind_what_is_stored(world: World, store: MemoryStore) -> None:
    wal = await world.open(1, EAGER)
    for number in range(20):
        await wal.append(insert(7, b"%d" % number))
    await wal.append(flush(7))
    await wal.append(insert(8, b"later"))
    await until(lambda: whole(store) == {"7"})

    async def first() -> list[bytes]:
        return payloads_of(await read_all(wal))

    async with asyncio.timeout(10):
        while b"0" in await first():
            await wal.append(insert(8, b"more"))
    assert b"later" in await first()
    await wal.append(flush(8))
    successor = await world.open(2, EAGER)
    assert successor.recovery.segments.position.time_tick > 0, "it begins where the other ended"
    assert b"later" in payloads_of(await read_all(successor)) or whole(store) >= {"8"}
    await until(lambda: whole(store) == {"7", "8"})
    assert store.payloads(7) == [b"%d" % number for number in range(20)]
    assert store.payloads(8)[0] == b"later"


async def test_a_token_from_before_the_cut_is_no_place_any_more(
    world: World, store: MemoryStore
) -> None:
    """Not even one from when nothing was confirmed yet, which names no record."""
    wal = await world.open(1, EAGER)
    results = [await wal.append(insert(7, b"%d" % number)) for number in range(20)]
    await wal.append(flush(7))
    async with asyncio.timeout(30):
        while b"1" in payloads_of(await read_all(wal)):
            await wal.append(insert(8, b"more"))
    successor = await world.open(2, EAGER)
    token = ResumeToken(None, results[0].first_tick, 1, 0)
    with pytest.raises(WalError) as error:
        await read_all(successor, ScanStart(StartKind.TOKEN, token))
    assert error.value.code is ErrorCode.DATA_TRUNCATED


async def test_nothing_is_cut_off_without_a_store_or_before_its_time(
    world: World, store: MemoryStore
) -> None:
    kept = EAGER.model_copy(update={"retention_s": 3600.0})
    for term, config, segments in ((1, kept, world.segments), (2, EAGER, None)):
        world.segments = segments
        wal = await world.open(term, config)
        tick = (await wal.append(insert(term, b"%d" % term))).first_tick
        await wal.append(flush(term))
        await until(lambda: whole(store) == {"1"})
        await until(lambda wal=wal, tick=tick: wal.recovery.checkpoint_tick > tick)  # type: ignore[misc]
        await wal.append(insert(term + 10, b"more"))
        tick = wal.live_position().watermark
        await until(lambda wal=wal, tick=tick: wal.recovery.checkpoint_tick >= tick)  # type: ignore[misc]
    assert payloads_of(await read_all(wal))[0] == b"1"


async def test_an_owner_who_comes_after_a_crash_takes_the_parts_that_are_there(
    world: World, store: MemoryStore
) -> None:
    """The first owner stored a part, and its checkpoint does not say so."""
    slow = EAGER.model_copy(update={"checkpoint_s": 3600.0})
    world.segments = segment_deps(store, max_bytes=1)
    first = await world.open(1, slow)
    await first.append(insert(7, b"a", b"b"))
    await until(lambda: len(store.objects) == 1)
    world.segments = segment_deps(store)
    second = await world.open(2, EAGER)
    await second.append(insert(7, b"c"))
    await second.append(flush(7))
    await until(lambda: whole(store) == {"7"})
    assert store.payloads(7) == [b"a", b"b", b"c"]
    assert len(store.manifests()[0]["parts"]) == 2


async def test_replay_does_not_seal_what_began_behind_the_seal(store: MemoryStore) -> None:
    """A part of a segment is stored, and the next owner reads again what sealed the one before."""
    world = World(FaultyBackend(await open_backend("memory:")))
    world.segments = segment_deps(store, max_bytes=10_000)
    first = await world.open(1, EAGER)
    await first.append(insert(9, b"holds the position", vchannel="test_0_2v0"))
    await first.append(insert(7, b"a"))
    await first.append(headed(MessageType.MANUAL_FLUSH))
    await first.append(insert(8, bytes(20_000)))
    await until(lambda: any("/8/" in path for path in store.objects))
    stored = first.recovery.segments
    await until(lambda: first.recovery.checkpoint_tick > 0 and not stored.changed)
    world.segments = segment_deps(store)
    second = await world.open(2, EAGER)
    assert len(second.recovery.segments.streams) == 2
    await second.append(insert(8, b"b"))
    await second.append(headed(MessageType.MANUAL_FLUSH))
    await until(lambda: whole(store) == {"7", "8"})
    assert store.payloads(8) == [bytes(20_000), b"b"]
    await world.close()


async def test_a_part_takes_no_more_than_it_may(world: World, store: MemoryStore) -> None:
    """But a transaction is in one part, and so is a single append."""
    world.segments = replace(segment_deps(store), part_bytes=1000)
    wal = await world.open(1, EAGER)
    rows = [bytes(400), bytes(400), bytes(400), bytes(5000), b"x"]
    for payload in rows:
        await wal.append(insert(7, payload))
    await wal.append(flush(7))
    await until(lambda: whole(store) == {"7"})
    assert store.payloads(7) == rows
    assert [part["rows"] for part in store.manifests()[0]["parts"]] == [2, 1, 1, 1]


async def test_memory_is_given_back_by_storing_the_largest_first(store: MemoryStore) -> None:
    world = World(FaultyBackend(await open_backend("memory:")))
    world.segments = segment_deps(store, max_bytes=20_000)
    wal = await world.open(1, EAGER)
    other = await world.open(1, EAGER, channel="test_1")
    payload = bytes(1000)
    for _ in range(30):
        await wal.append(insert(7, payload))
    for _ in range(3):
        await other.append(insert(8, payload, vchannel="test_1_1v0"))
    await until(lambda: any("/7/" in path for path in store.objects))
    assert not any("/8/" in path for path in store.objects)
    await wal.append(flush(7))
    await until(lambda: whole(store) == {"7"})
    assert store.payloads(7) == [payload] * 30
    await world.close()


@pytest.mark.parametrize("batch_bytes", [2 << 20, 10_000])
async def test_others_have_their_turns_while_much_is_taken_in(
    world: World, monkeypatch: pytest.MonkeyPatch, batch_bytes: int
) -> None:
    turn, taken = 0, Counter[int]()
    original = SegmentWriter.add

    def add(writer: SegmentWriter, key: StreamKey, unit: Unit, place: Callable[[], Any]) -> None:
        taken[turn] += 1
        original(writer, key, unit, place)

    monkeypatch.setattr(scanner, "BATCH_BYTES", batch_bytes)
    monkeypatch.setattr(SegmentWriter, "add", add)
    wal = await world.open(1, EAGER)
    appends = [asyncio.ensure_future(wal.append(insert(7, b"x"))) for _ in range(4 * TURN_ENTRIES)]
    while sum(taken.values()) < len(appends):
        turn += 1
        await asyncio.sleep(0)
    assert max(taken.values()) <= TURN_ENTRIES
