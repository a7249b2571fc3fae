"""What a flusher makes of a store, a backend and a process that fail, and of foreign objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from walplane.backends.interface import RecordScanner, Start
from walplane.backends.registry import open_backend
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.segments import MemoryStore, flush, insert, segment_deps, whole
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import CH, EARLIEST, World, payloads_of, read_all
from walplane.wal.config import WALConfig
from walplane.wal.recovery.segments import flusher
from walplane.wal.recovery.segments.parquet import ParquetFormat
from walplane.wal.recovery.segments.store import Encoded
from walplane.wal.recovery.segments.units import Unit
from walplane.wal.wal import WAL

EAGER = WALConfig(idle_tick_s=0.02, checkpoint_s=0.05, retention_s=0.0)

pytestmark = pytest.mark.usefixtures("logs_by_hand", "stores_segments")


@pytest.fixture
def world_url(each_url: str) -> str:
    return each_url


async def test_a_store_that_is_away_is_tried_until_it_is_back(
    world: World, store: MemoryStore
) -> None:
    tries = 0

    async def away() -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise OSError("no route to the store")

    store.before = away
    wal = await world.open(1, EAGER)
    await wal.append(insert(7, b"a"))
    await wal.append(flush(7))
    await until(lambda: "no route" in wal.status().last_error)
    await until(lambda: whole(store) == {"7"})
    await until(lambda: wal.status().last_error == "")
    assert wal.open_number == 0


async def test_a_write_that_happened_unheard_is_taken_as_it_is(
    world: World, store: MemoryStore
) -> None:
    tries = 0

    async def unheard() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise TimeoutError

    store.after = unheard
    wal = await world.open(1, EAGER)
    await wal.append(insert(7, b"a"))
    await wal.append(flush(7))
    await until(lambda: whole(store) == {"7"})
    assert store.payloads(7) == [b"a"]


@pytest.mark.parametrize("of", ["parquet", "json"])
async def test_a_name_that_is_only_being_written_is_written_again(
    world: World, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    """S3 answers so to a create that meets another, of an owner that may have died in it."""
    create, met = store.create, 0

    async def meets(path: str, data: bytes) -> bool:
        nonlocal met
        if path.endswith(of) and not met:
            met += 1
            return False
        return await create(path, data)

    monkeypatch.setattr(store, "create", meets)
    wal = await world.open(1, EAGER)
    await wal.append(insert(7, b"a"))
    await wal.append(flush(7))
    await until(lambda: whole(store) == {"7"})
    assert store.payloads(7) == [b"a"]
    assert met == 1
    assert wal.status().state == "serving"


@pytest.mark.parametrize("list_there", [b"not ours", b'{"segment_id": "7", "parts": []}', b"[]"])
async def test_a_list_that_says_something_else_quarantines(
    world: World, store: MemoryStore, list_there: bytes
) -> None:
    wal = await world.open(1, EAGER)
    await wal.append(insert(7, b"a"))
    store.objects[f"{CH}/1/0/test_0_1v0/7/segment.json"] = list_there
    await wal.append(flush(7))
    await until(lambda: wal.status().state == "quarantined")
    assert "segment.json" in wal.status().last_error


async def test_a_foreign_object_in_the_way_quarantines_and_appends_go_on(
    world: World, store: MemoryStore
) -> None:
    wal = await world.open(1, EAGER)
    result = await wal.append(insert(7, b"a"))
    store.objects[f"{CH}/1/0/test_0_1v0/7/{result.first_tick:020d}.parquet"] = b"not ours"
    await wal.append(flush(7))
    await until(lambda: wal.status().state == "quarantined")
    assert "none of this log" in wal.status().last_error
    position = wal.recovery.segments.position
    await wal.append(insert(8, b"b"))
    tick = wal.live_position().watermark
    await until(lambda: wal.recovery.checkpoint_tick >= tick)
    assert wal.recovery.segments.position == position
    assert payloads_of(await read_all(wal, EARLIEST))[0] == b"a"


async def test_what_another_log_could_not_store_holds_the_position(store: MemoryStore) -> None:
    """It comes to relieve this one while this one waits for news, and meets what is not ours."""
    world = World(FaultyBackend(await open_backend("memory:")))
    world.segments = segment_deps(store, max_bytes=110_000)
    wal = await world.open(1, EAGER)
    other = await world.open(1, EAGER, channel="test_1")
    payload = bytes(600)
    rows = [await wal.append(insert(7, payload)) for _ in range(40)]
    path = f"{CH}/1/0/test_0_1v0/7/{rows[0].first_tick:020d}.parquet"
    store.objects[path] = b"not ours"
    flushing = wal._flusher
    assert flushing is not None
    await until(lambda: flushing.backlog_bytes >= 40 * len(payload))
    for _ in range(20):  # fewer: it is the other one that is to be relieved
        await other.append(insert(8, payload, vchannel="test_1_1v0"))
    await until(lambda: wal.status().state == "quarantined")
    await wal.append(insert(9, b"more"))
    tick = wal.live_position().watermark
    await until(lambda: wal.recovery.checkpoint_tick >= tick)
    assert wal.recovery.segments.position.time_tick < rows[0].first_tick
    assert payloads_of(await read_all(wal, EARLIEST))[:40] == [payload] * 40
    await world.close()


class FailsOnce(ParquetFormat):
    """A format that finds no memory for its first object."""

    def __init__(self) -> None:
        self.failed = False

    def encode(self, units: Sequence[Unit], about: dict[str, str]) -> Iterator[Encoded]:
        if not self.failed:
            self.failed = True
            raise MemoryError
        return super().encode(units, about)


async def test_what_another_log_could_not_store_for_once_is_tried_again(store: MemoryStore) -> None:
    """And this one needs no news for that, since none may come for long."""
    world = World(FaultyBackend(await open_backend("memory:")))
    world.segments = replace(segment_deps(store, max_bytes=110_000), format=FailsOnce())
    wal = await world.open(1, EAGER)
    other = await world.open(1, EAGER, channel="test_1")
    payload = bytes(600)
    for _ in range(40):
        await wal.append(insert(7, payload))
    flushing = wal._flusher
    assert flushing is not None
    await until(lambda: flushing.backlog_bytes >= 40 * len(payload))
    for _ in range(20):  # fewer: it is the other one that relieves
        await other.append(insert(8, payload, vchannel="test_1_1v0"))
    await until(lambda: any("/7/" in path for path in store.objects))
    assert wal.status().state == "serving"
    await wal.append(flush(7))
    await until(lambda: whole(store) == {"7"})
    assert store.payloads(7) == [payload] * 40
    await world.close()


async def test_a_backend_that_is_away_takes_no_attempt_from_what_nobody_foresaw(
    world: World, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = WalError(ErrorCode.INNER, "the backend cannot be reached")
    errors: list[Exception] = [away, away, MemoryError(), away, MemoryError()]
    original = WAL.open_scanner

    async def open_scanner(wal: WAL, start: Start) -> RecordScanner:
        if errors:
            raise errors.pop(0)
        return await original(wal, start)

    first = await world.open(1, EAGER)
    await first.append(insert(7, b"a"))
    await first.close()
    monkeypatch.setattr(flusher, "_BACKOFF_S", (0.01, 0.01))
    monkeypatch.setattr(WAL, "open_scanner", open_scanner)
    wal = await world.open(2, EAGER)
    await wal.append(flush(7))
    await until(lambda: whole(store) == {"7"})
    assert errors == []
    assert wal.status().state == "serving"
