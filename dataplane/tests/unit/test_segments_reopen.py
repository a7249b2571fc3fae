"""A flusher goes on through a self-reopen of its log, and where its log was cut off behind it."""

from __future__ import annotations

import asyncio
import errno
import io
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from walplane.backends.registry import open_backend
from walplane.backends.rocksdb.values import DIRECTORY, VALUE_BYTES
from walplane.message.ids import MessageID, ResumeToken
from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.faulty import Fault, FaultyBackend, no_faults
from walplane.testkit.segments import MemoryStore, headed, segment_deps
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import CH, EARLIEST, World, entry, payloads_of, read_all
from walplane.wal.config import WALConfig
from walplane.wal.recovery.segments.table import SegmentTable
from walplane.wal.scan.request import ScanBatch, ScanRequest
from walplane.wal.scan.scanner import WALScanner
from walplane.wal.wal import WAL

EAGER = WALConfig(idle_tick_s=0.02, checkpoint_s=0.05, retention_s=0.0, ack_timeout_s=0.2)
FAULTS = [fault for fault in Fault if fault is not Fault.NONE]

pytestmark = pytest.mark.usefixtures("stores_segments")


def stored(store: MemoryStore) -> list[bytes]:
    """The payloads of all parts."""
    tables = [
        pq.read_table(io.BytesIO(data))
        for path, data in sorted(store.objects.items())
        if path.endswith(".parquet")
    ]
    return [payload for table in tables for payload in table.column("payload").to_pylist()]


def once(world: World, fault: Fault) -> None:
    """The next record of the data topic meets `fault`."""

    def faults(topic: str) -> Fault:
        if topic != CH:
            return Fault.NONE
        world.backend.faults = no_faults
        return fault

    world.backend.faults = faults


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_flush_of_unknown_outcome_ends_in_one_copy_of_each_row(
    world: World, store: MemoryStore, fault: Fault
) -> None:
    wal = await world.open(1, EAGER)
    for number in range(5):
        await wal.append(entry(b"%d" % number))
    once(world, fault)
    await wal.append(headed(MessageType.MANUAL_FLUSH))
    await until(lambda: len(store.manifests()) == 1)
    assert wal.open_number == 1
    await wal.append(entry(b"5"))
    await wal.append(headed(MessageType.MANUAL_FLUSH))
    await until(lambda: len(store.manifests()) == 2)
    assert sorted(stored(store)) == [b"%d" % number for number in range(6)]


@pytest.mark.parametrize("fault", [Fault.FAIL_AFTER, Fault.FAIL_BEFORE])
async def test_rows_of_unknown_outcome_are_stored_once_or_never(
    world: World, store: MemoryStore, fault: Fault
) -> None:
    """The log opens itself again while a part of it is on its way, and rows wait in memory."""
    held, begun = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        begun.set()
        await held.wait()

    store.before = hold
    wal = await world.open(1, EAGER)
    await wal.append(entry(b"0"))
    await wal.append(headed(MessageType.MANUAL_FLUSH))
    await begun.wait()
    once(world, fault)
    for number in range(1, 4):
        await wal.append(entry(b"%d" % number))
    assert wal.open_number == 1
    held.set()
    await wal.append(headed(MessageType.MANUAL_FLUSH))
    await until(lambda: len(store.manifests()) == 2)
    assert sorted(stored(store)) == [b"0", b"1", b"2", b"3"]


async def cut_off(wal: WAL, payload: bytes) -> None:
    """Returns when `payload` is in the log no more."""
    async with asyncio.timeout(10):
        while payload in payloads_of(await read_all(wal)):
            await wal.append(entry(b"more"))


async def test_a_flusher_that_its_own_position_overtook_goes_on_there(
    world: World, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it reads next was cut off behind its position, once it had read something."""
    wal = await world.open(1, EAGER)
    await wal.append(entry(b"0"))
    await wal.append(headed(MessageType.MANUAL_FLUSH))
    await until(lambda: len(store.manifests()) == 1)
    read, overtaken = WALScanner.next, list[WALScanner]()

    async def next_(scanner: WALScanner) -> ScanBatch:
        if not overtaken:
            overtaken.append(scanner)
            raise WalError(ErrorCode.DATA_TRUNCATED, "cut off behind the flusher's position")
        return await read(scanner)

    monkeypatch.setattr(WALScanner, "next", next_)
    await wal.append(entry(b"1"))
    await until(lambda: bool(overtaken))
    await wal.append(entry(b"2"))
    await wal.append(headed(MessageType.MANUAL_FLUSH))
    await until(lambda: b"2" in stored(store))
    assert wal.status().state == "serving"
    assert [stored(store).count(b"%d" % number) for number in range(3)] == [1] * 3


@pytest.mark.parametrize("looks", ["from the backend", "from memory", "and nothing came"])
async def test_a_reader_that_has_all_is_not_overtaken_by_a_cut_behind_it(
    world: World, store: MemoryStore, looks: str
) -> None:
    """Its last entry says a LastConfirmed of old, where the log is cut off while it is idle."""
    config = EAGER.model_copy(update={"write_ahead_bytes": 4000, "silence_s": 3600.0})
    wal = await world.open(1, config)
    for number in range(5):
        await wal.append(entry(b"%d" % number))
    seen: list[bytes] = []
    async with wal.scan(ScanRequest(EARLIEST)) as scanner, asyncio.timeout(20):
        while looks != "from the backend" and b"4" not in seen:
            seen += payloads_of(list((await scanner.next()).entries))
        last = await wal.append(headed(MessageType.MANUAL_FLUSH))
        await until(lambda: wal.live_position().last_confirmed == last.message_id)
        while scanner.tick < last.first_tick:
            seen += payloads_of(list((await scanner.next()).entries))
        if looks == "and nothing came":
            await scanner.next()
        await until(lambda: len(store.manifests()) == 1)
        await cut_off(wal, b"4")
        for number in range(20):  # out of memory before the reader looks again
            await wal.append(entry(b"late %d" % number))
        while b"late 19" not in seen:
            seen += payloads_of(list((await scanner.next()).entries))
    rows = [payload for payload in seen if payload not in (b"more", b"")]
    assert rows == [*(b"%d" % n for n in range(5)), *(b"late %d" % n for n in range(20))]


def test_a_token_takes_over_the_place_of_an_earlier_one_that_lies_further_on() -> None:
    place = at(9, 100).last_confirmed
    assert at(8, 101).reaching(place) == at(9, 101)
    assert at(10, 101).reaching(place) == at(10, 101)
    assert at(8, 101).reaching(None) == at(8, 101)
    assert ResumeToken(None, 101, 1, 0).reaching(place) == at(9, 101)


def at(record: int, tick: int) -> ResumeToken:
    return ResumeToken(MessageID("memory", (record,)), tick, 1, 0)


def test_a_position_never_goes_back_in_the_log() -> None:
    """An entry's own LastConfirmed lies below that of the live log, where it is cut off by now."""
    table = SegmentTable()
    table.move(at(10, 100))
    table.move(at(8, 101))
    assert table.position == at(10, 101)
    table.move(at(12, 50))
    assert table.position == at(10, 101)
    table.move(at(12, 102))
    assert table.position == at(12, 102)


async def test_a_log_that_no_file_can_be_opened_of_is_read_again(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than what is unforeseen is tried; the second owner reads what the first wrote."""
    monkeypatch.setattr("walplane.wal.recovery.segments.flusher._BACKOFF_S", (0.001, 0.001))
    world = World(FaultyBackend(await open_backend(f"rocksdb:{tmp_path}")))
    first = await world.open(1, EAGER)
    payload = bytes(VALUE_BYTES)
    await first.append(entry(payload))
    await first.append(headed(MessageType.MANUAL_FLUSH))
    await first.close()
    opened, refused = os.open, 0

    def none(path: Path, *arguments: int) -> int:
        nonlocal refused
        if refused < 5 and DIRECTORY in str(path):
            refused += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", none)
    world.segments = segment_deps(store)
    await world.open(2, EAGER)
    await until(lambda: stored(store) == [payload])
    assert refused == 5
    await world.close()
