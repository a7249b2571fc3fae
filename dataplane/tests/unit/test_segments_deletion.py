"""Objects of a dropped collection go in the end, and hold up nothing when they cannot."""

from __future__ import annotations

import pytest

from walplane.message.registry import MessageType
from walplane.testkit.segments import MemoryStore, headed
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import World, create, entry
from walplane.ticks import TICKS_PER_S
from walplane.wal.config import WALConfig
from walplane.wal.recovery.segments.deletion import Deletion
from walplane.wal.recovery.segments.table import SegmentTable
from walplane.wal.wal import WAL

EAGER = WALConfig(idle_tick_s=0.02, checkpoint_s=0.05, retention_s=0.0)
V, OTHER, ELSE = "test_0_3v0", "test_0_3v1", "test_0_2v0"

pytestmark = pytest.mark.usefixtures("stores_segments")


def of(store: MemoryStore, vchannel: str) -> list[str]:
    return [path for path in store.objects if path.split("/")[3] == vchannel]


async def fill(wal: WAL, store: MemoryStore) -> None:
    """A whole segment on each of three VChannels."""
    await create(wal, V, OTHER)
    for vchannel in (V, OTHER, ELSE):
        await wal.append(entry(b"row", vchannel=vchannel))
        await wal.append(headed(MessageType.MANUAL_FLUSH, vchannel=vchannel))
    await until(lambda: len(store.manifests()) == 3)


async def test_objects_go_with_their_vchannel_and_no_others(
    world: World, store: MemoryStore
) -> None:
    wal = await world.open(1, EAGER)
    await fill(wal, store)
    await wal.append(headed(MessageType.DROP_COLLECTION, vchannel=V))
    await until(lambda: of(store, V) == [])
    assert len(of(store, OTHER)) == len(of(store, ELSE)) == 2
    await until(lambda: not wal.recovery.segments.dropped)
    await until(lambda: not wal.recovery.segments.changed)
    successor = await world.open(2, EAGER)
    assert not successor.recovery.segments.dropped, "that it is done is saved"


async def test_rows_that_still_wait_when_their_vchannel_is_dropped_go_too(
    world: World, store: MemoryStore
) -> None:
    wal = await world.open(1, EAGER)
    await create(wal, V)
    await wal.append(entry(b"row", vchannel=V))
    tick = (await wal.append(headed(MessageType.DROP_COLLECTION, vchannel=V))).first_tick
    table = wal.recovery.segments
    await until(lambda: table.position.time_tick >= tick and not table.dropped)
    assert of(store, V) == []


async def test_a_store_that_deletes_nothing_holds_up_nothing(
    world: World, store: MemoryStore
) -> None:
    wal = await world.open(1, EAGER)
    await fill(wal, store)
    tries = 0

    async def away() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError("no route to the store")

    store.before = away
    await wal.append(headed(MessageType.DROP_COLLECTION, vchannel=V))
    await until(lambda: tries >= 1)
    dropped = wal.recovery.checkpoint_tick
    await wal.append(entry(b"more", vchannel=ELSE))
    await until(lambda: wal.recovery.checkpoint_tick > dropped)
    assert wal.status().last_error == ""
    await until(lambda: of(store, V) == [])


async def test_what_an_owner_left_its_successor_deletes(world: World, store: MemoryStore) -> None:
    kept = EAGER.model_copy(update={"retention_s": 3600.0})
    wal = await world.open(1, kept)
    await fill(wal, store)
    tick = (await wal.append(headed(MessageType.DROP_COLLECTION, vchannel=V))).first_tick
    await until(lambda: wal.recovery.segments.position.time_tick >= tick)
    await until(lambda: wal.recovery.checkpoint_tick >= tick)
    await until(lambda: not wal.recovery.segments.changed)
    assert len(of(store, V)) == 2, "it is younger than the retention"
    successor = await world.open(2, EAGER)
    await successor.append(entry(b"more", vchannel=ELSE))
    await until(lambda: of(store, V) == [])


def test_a_drop_waits_for_checkpoint_position_and_retention() -> None:
    table = SegmentTable()
    table.drop(V, 1, 10 * TICKS_PER_S)
    table.drop(V, 1, 11 * TICKS_PER_S)  # its broadcast may come again
    deletion = Deletion("test_0", table, WALConfig(retention_s=5.0), None)
    assert deletion.due(14 * TICKS_PER_S, 20 * TICKS_PER_S) == []
    assert deletion.due(20 * TICKS_PER_S, 9 * TICKS_PER_S) == []
    assert [gone.vchannel for gone in deletion.due(15 * TICKS_PER_S, 10 * TICKS_PER_S)] == [V]
    kept = SegmentTable()
    kept.load(table.save())
    assert kept.dropped == table.dropped
    kept.deleted(V)
    assert not kept.dropped and kept.changed


def test_what_is_remembered_of_drops_is_bounded() -> None:
    table = SegmentTable()
    for number in range(10_001):
        table.drop(f"test_0_{number}v0", number, number)
    assert len(table.dropped) == 10_000
    assert "test_0_0v0" not in table.dropped
