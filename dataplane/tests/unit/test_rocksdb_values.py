"""Large records of the embedded backend, which lie in files beside the database."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from walplane.backends.interface import EARLIEST
from walplane.backends.registry import open_backend
from walplane.backends.rocksdb import RocksBackend, committer, layout, values
from walplane.backends.rocksdb.backend import RocksSession, RocksWriter
from walplane.backends.rocksdb.batch import Batch
from walplane.backends.rocksdb.database import Database
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.conformance import Acknowledged
from walplane.testkit.conformance.harness import (
    append_all,
    expect_holds,
    payloads,
    read_to_end,
    settle,
)

LARGE = 2000


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "VALUE_BYTES", 1000)
    monkeypatch.setattr(values, "FILE_BYTES", 10_000)


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[RocksBackend]:
    backend = await RocksBackend.open(str(tmp_path / "data"))
    yield backend
    await backend.close()


async def writer_of(backend: RocksBackend, topic: str = "t") -> tuple[RocksSession, RocksWriter]:
    session = await backend.session()
    await session.ensure_topic(topic)
    return session, await session.open_writer(topic, 1, 0)


def files(directory: Path) -> list[Path]:
    """The files of large records, oldest first."""
    return sorted((directory / values.DIRECTORY).iterdir())


def known_files(directory: Path) -> list[int]:
    """Numbers of the files that a closed database keeps something of."""
    rocks = Rdict(str(directory), Options(raw_mode=True))
    keys = [bytes(key) for key in rocks.keys() if isinstance(key, bytes)]
    rocks.close()
    between = (key for key in keys if layout.FILES_FROM <= key < layout.FILES_TO)
    return [layout.file_number(key) for key in between]


def open_in(directory: Path) -> list[str]:
    """Files of the directory that this process has open."""
    handles = Path("/proc/self/fd")
    opened = [os.readlink(path) for path in handles.iterdir() if path.is_symlink()]
    return [path for path in opened if path.startswith(str(directory))]


async def append_each(writer: RocksWriter, data: Sequence[bytes]) -> list[Acknowledged]:
    """Appends one after the other, each in a group of its own."""
    return [ack for one in data for ack in await append_all(writer, [one])]


async def freed(directory: Path, writer: RocksWriter, held: set[Path]) -> None:
    """Appends small records until no file is left but `held`: each group removes some."""
    async with asyncio.timeout(30):
        while not set(files(directory)) <= held:
            await append_all(writer, [b"small"])


async def read_again(directory: Path, topic: str, acks: list[Acknowledged]) -> None:
    """Opens the directory and finds `acks` in the topic."""
    backend = await RocksBackend.open(str(directory))
    try:
        session = await backend.session()
        expect_holds(await read_to_end(session, topic), acks)
    finally:
        await backend.close()


async def refusal(directory: Path, topic: str) -> WalError:
    """What opening the directory, or reading the topic, is refused with."""
    with pytest.raises(WalError) as caught:
        await read_again(directory, topic, [])
    return caught.value


async def test_large_and_small_records_keep_their_order(
    backend: RocksBackend, tmp_path: Path
) -> None:
    session, writer = await writer_of(backend)
    sizes = [10, LARGE, 10, LARGE, LARGE, 999, 1000] * 5
    data = [payloads(f"{at}", 1, size)[0] for at, size in enumerate(sizes)]
    acks = await append_all(writer, data[:20]) + await append_each(writer, data[20:])
    expect_holds(await read_to_end(session, "t"), acks)
    assert len(files(tmp_path / "data")) > 1
    copy = shutil.copytree(tmp_path / "data", tmp_path / "killed")
    for _ in range(2):
        await read_again(copy, "t", acks)


async def test_records_are_synced_before_the_database_knows_them(
    backend: RocksBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, writer = await writer_of(backend)
    calls: list[str] = []
    for name in ("place", "sync_values", "write", "sync", "note"):
        call = getattr(backend.database, name)

        def noted(*args: object, name: str = name, call: object = call) -> object:
            calls.append(name)
            return call(*args)  # type: ignore[operator]

        monkeypatch.setattr(backend.database, name, noted)
    await writer.append(bytes(LARGE))
    assert calls == ["place", "sync_values", "write", "sync", "note"]


async def test_a_place_is_written_after_its_record_and_the_name_of_its_file(
    backend: RocksBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over several files, whose handles are closed one after the other."""
    durable: dict[str, int] = {}
    named: set[str] = set()
    write, fdatasync = backend.database.write, os.fdatasync
    expected = {layout.place_key(1, number) for number in range(1, 41)}
    places: list[values.Place] = []

    def synced(handle: int) -> None:
        fdatasync(handle)
        durable[Path(os.readlink(f"/proc/self/fd/{handle}")).name] = os.fstat(handle).st_size

    def checked(batch: Batch) -> None:
        for key, value in batch.puts:
            if key in expected:
                place = values.Place.decode(value)
                name = f"{place.file:016}"
                assert name in named
                assert durable[name] >= place.offset + place.size
                places.append(place)
        write(batch)

    monkeypatch.setattr(os, "fdatasync", synced)
    monkeypatch.setattr(values, "sync_directory", lambda path: named.update(os.listdir(path)))
    monkeypatch.setattr(backend.database, "write", checked)
    _, writer = await writer_of(backend)
    await append_each(writer, payloads("t", 20, LARGE))
    await append_all(writer, payloads("more", 20, LARGE))
    assert len(places) == 40
    assert len(open_in(tmp_path / "data" / values.DIRECTORY)) <= 1


class Held:
    """Holds `sync_values` of a database until it is opened."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.reached = threading.Event(), threading.Event()
        self._call = database.sync_values
        monkeypatch.setattr(database, "sync_values", self._held)

    def _held(self, placed: object) -> None:
        self.reached.set()
        assert self.open.wait(30)
        self._call(placed)  # type: ignore[arg-type]


async def test_what_comes_later_waits_for_a_large_record(
    backend: RocksBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when its group is small; and a kill meanwhile leaves neither of them."""
    monkeypatch.setattr(committer, "OVERLAP_BYTES", LARGE)
    session, writer = await writer_of(backend)
    acks = await append_all(writer, [b"before"])
    held = Held(backend.database, monkeypatch)
    data = [b"1" * LARGE, b"small", b"2" * LARGE]
    appends = [writer.append(one) for one in data[:1]]
    await asyncio.to_thread(held.reached.wait, 30)
    appends.append(writer.append(data[1]))
    done, _ = await asyncio.wait(appends, timeout=0.2)
    appends.append(writer.append(data[2]))
    assert not done
    copy = shutil.copytree(tmp_path / "data", tmp_path / "killed")
    assert len(files(copy)) == 1
    held.open.set()
    acks += [Acknowledged(one, await append) for one, append in zip(data, appends, strict=True)]
    expect_holds(await read_to_end(session, "t"), acks)
    await read_again(copy, "t", acks[:1])
    assert not files(copy)


async def test_truncation_removes_files(tmp_path: Path) -> None:
    backend = await RocksBackend.open(str(tmp_path))
    session, writer = await writer_of(backend)
    idle = await append_all((await writer_of(backend, "idle"))[1], payloads("idle", 1, LARGE))
    _, busy = await writer_of(backend, "busy")
    acks = await append_each(writer, payloads("t", 50, LARGE))
    before = files(tmp_path)
    assert len(before) > 8
    assert acks[-1].record_id is not None
    await session.truncate("t", acks[-1].record_id)
    # the first is held by the idle topic, the last by the record that always stays
    await freed(tmp_path, busy, {before[0], *before[-2:]})
    expect_holds(await read_to_end(session, "idle"), idle)
    expect_holds(await read_to_end(session, "t"), acks[-1:])
    await backend.close()
    assert known_files(tmp_path) == [int(file.name) for file in files(tmp_path)]
    await read_again(tmp_path, "idle", idle)
    await read_again(tmp_path, "t", acks[-1:])


async def test_files_that_a_kill_left_go_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "remove", lambda _: None)
    backend = await RocksBackend.open(str(tmp_path / "data"))
    session, writer = await writer_of(backend)
    acks = await append_each(writer, payloads("t", 50, LARGE))
    assert acks[-1].record_id is not None
    await session.truncate("t", acks[-1].record_id)
    copy = shutil.copytree(tmp_path / "data", tmp_path / "killed")
    assert len(files(copy)) > 8
    await read_again(copy, "t", acks[-1:])
    assert len(files(copy)) <= 2
    await backend.close()


async def test_a_file_that_was_not_ended_goes_after_a_restart_too(tmp_path: Path) -> None:
    backend = await RocksBackend.open(str(tmp_path))
    _, writer = await writer_of(backend)
    old = await append_all(writer, [bytes(LARGE)])
    await backend.close()
    (first,) = files(tmp_path)
    await read_again(tmp_path, "t", old)
    backend = await RocksBackend.open(str(tmp_path))
    session, writer = await writer_of(backend)
    (last,) = await append_all(writer, [b"x" * LARGE])
    assert first in files(tmp_path)
    assert last.record_id is not None
    await session.truncate("t", last.record_id)
    _, busy = await writer_of(backend, "busy")
    await freed(tmp_path, busy, set(files(tmp_path)) - {first})
    expect_holds(await read_to_end(session, "t"), [last])
    await backend.close()


async def test_damage_is_reported(backend: RocksBackend, tmp_path: Path) -> None:
    _, writer = await writer_of(backend)
    acks = await append_each(writer, payloads("t", 12, LARGE))
    source = tmp_path / "data"
    for number, file in enumerate(files(source)):
        data = file.read_bytes()
        for what, left in (
            ("flipped", data[:1500] + bytes([data[1500] ^ 1]) + data[1501:]),
            ("cut", data[:1500]),
            ("gone", None),
        ):
            copy = shutil.copytree(source, tmp_path / f"{what}{number}")
            damaged = copy / values.DIRECTORY / file.name
            damaged.unlink() if left is None else damaged.write_bytes(left)
            for _ in range(2):
                error = await refusal(copy, "t")
                assert error.code is ErrorCode.UNRECOVERABLE
                assert str(copy) in error.message
                assert file.name in error.message
                # what is missing is refused at the start, what is wrong when it is read
                assert ("cut off" in error.message) is (what != "flipped")
    await read_again(shutil.copytree(source, tmp_path / "whole"), "t", acks)


async def test_a_directory_that_is_refused_is_let_go_of(tmp_path: Path) -> None:
    backend = await RocksBackend.open(str(tmp_path))
    _, writer = await writer_of(backend)
    await append_all(writer, [bytes(LARGE)])
    await backend.close()
    (file,) = files(tmp_path)
    file.unlink()
    assert (await refusal(tmp_path, "t")).code is ErrorCode.UNRECOVERABLE
    assert not open_in(tmp_path)


async def test_what_nobody_acknowledged_may_be_torn(tmp_path: Path) -> None:
    """And be lost later: only what somebody points to has to be there."""
    backend = await RocksBackend.open(str(tmp_path))
    _, writer = await writer_of(backend)
    acks = await append_all(writer, [bytes(LARGE)])
    await backend.close()
    (file,) = files(tmp_path)
    with file.open("ab") as more:
        more.write(b"x" * 5000)
    backend = await RocksBackend.open(str(tmp_path))
    _, writer = await writer_of(backend)
    acks += await append_all(writer, [b"next"])
    await backend.close()
    os.truncate(file, LARGE)
    await read_again(tmp_path, "t", acks)
    os.truncate(file, LARGE - 1)
    assert (await refusal(tmp_path, "t")).code is ErrorCode.UNRECOVERABLE


async def test_a_start_that_was_killed_while_it_tidied_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is gone, and the database still knows it."""
    backend = await RocksBackend.open(str(tmp_path))
    session, writer = await writer_of(backend)
    acks = await append_all(writer, [bytes(LARGE), b"last"])
    assert acks[-1].record_id is not None
    await session.truncate("t", acks[-1].record_id)
    await backend.close()
    remove_unused = values.ValueFiles.remove_unused
    with monkeypatch.context() as killed:
        killed.setattr(values.ValueFiles, "remove_unused", lambda it: remove_unused(it) and [])
        await read_again(tmp_path, "t", acks[-1:])
    assert not files(tmp_path)
    await read_again(tmp_path, "t", acks[-1:])


@pytest.mark.parametrize("call", ["writev", "fdatasync"])
async def test_an_error_of_the_disk_is_final(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    backend = await RocksBackend.open(str(tmp_path))
    _, writer = await writer_of(backend)
    acks = await append_all(writer, [b"small", bytes(LARGE)])

    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(os, call, refuse)
        (error,) = await settle([writer.append(b"x" * LARGE)])
    (after,) = await settle([writer.append(b"small")])
    for refused in (error, after):
        assert isinstance(refused, WalError)
        assert refused.code is ErrorCode.UNRECOVERABLE
        assert str(tmp_path) in refused.message
    await backend.close()
    await read_again(tmp_path, "t", acks)


class NoTables:
    """A RocksDB, and an iterator of it, that finds nothing and says why."""

    def __init__(self, why: str) -> None:
        self._why = why

    def iter(self, _: object) -> NoTables:
        return self

    def seek(self, _: bytes) -> None:
        pass

    def valid(self) -> bool:
        return False

    def status(self) -> None:
        raise RuntimeError(f"IO error: While open a file for random read: 12.sst: {self._why}")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("size", [10, LARGE])
async def test_no_file_to_be_had_is_no_damage(
    backend: RocksBackend, monkeypatch: pytest.MonkeyPatch, number: int, size: int
) -> None:
    """It passes, and the scanner goes on where it was; RocksDB says it in words alone."""
    session, writer = await writer_of(backend)
    acks = await append_all(writer, payloads("t", 3, size))
    scanner = await session.open_scanner("t", EARLIEST)

    def none(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as refused:
        refused.setattr(os, "open", none)
        if size < values.VALUE_BYTES:
            refused.setattr(backend.database, "_rocks", NoTables(os.strerror(number)))
        with pytest.raises(WalError) as error:
            await scanner.read()
    assert error.value.code is ErrorCode.INNER
    assert [record.data for record in await scanner.read()] == [ack.data for ack in acks]


async def test_a_topic_that_falls_silent_holds_no_file(tmp_path: Path) -> None:
    """Though it was truncated while others still wrote into its file."""
    backend = await RocksBackend.open(str(tmp_path))
    session, silent = await writer_of(backend, "silent")
    acks = await append_all(silent, [bytes(LARGE), b"last"])
    (file,) = files(tmp_path)
    assert acks[-1].record_id is not None
    await session.truncate("silent", acks[-1].record_id)
    _, writer = await writer_of(backend)
    (*_, last) = await append_each(writer, payloads("t", 12, LARGE))
    assert last.record_id is not None
    await session.truncate("t", last.record_id)
    await freed(tmp_path, silent, set(files(tmp_path)) - {file})
    await backend.close()


async def test_a_write_that_takes_a_part_goes_on(
    backend: RocksBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda handle, buffers: writev(handle, [buffers[0][:700]]))
    session, writer = await writer_of(backend)
    acks = await append_all(writer, payloads("t", 7, LARGE))
    expect_holds(await read_to_end(session, "t"), acks)


async def test_a_database_of_the_format_before_is_read(tmp_path: Path) -> None:
    backend = await RocksBackend.open(str(tmp_path))
    session, writer = await writer_of(backend)
    acks = await append_all(writer, [b"old"])
    await backend.close()
    shutil.rmtree(tmp_path / values.DIRECTORY)
    rocks = Rdict(str(tmp_path), Options(raw_mode=True))
    rocks.put(layout.FORMAT_KEY, layout.READABLE[0])
    rocks.close()
    backend = await RocksBackend.open(str(tmp_path))
    session, writer = await writer_of(backend)
    acks += await append_all(writer, [bytes(LARGE)])
    expect_holds(await read_to_end(session, "t"), acks)
    await backend.close()


async def test_a_relative_directory_is_the_one_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the program goes to another one, and large records are read and files begun there."""
    monkeypatch.chdir(tmp_path)
    backend = await open_backend("rocksdb:data")
    assert isinstance(backend, RocksBackend)
    session, writer = await writer_of(backend)
    acks = await append_each(writer, payloads("t", 3, LARGE))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    acks += await append_each(writer, payloads("more", 12, LARGE))
    expect_holds(await read_to_end(session, "t"), acks)
    await backend.close()
    await read_again(tmp_path / "data", "t", acks)
    assert not os.listdir()
