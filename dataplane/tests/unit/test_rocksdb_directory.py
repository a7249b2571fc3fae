"""Directories of the embedded backend: in use, foreign, unusable, full."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from walplane.backends.registry import open_backend
from walplane.backends.rocksdb import RocksBackend, layout, options
from walplane.backends.rocksdb.database import Database
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.conformance.harness import (
    Acknowledged,
    append_all,
    expect_holds,
    payloads,
    read_to_end,
    settle,
)


async def refusal(path: Path) -> WalError:
    """The error of opening `path`."""
    with pytest.raises(WalError) as caught:
        await RocksBackend.open(str(path))
    assert str(path) in caught.value.message
    return caught.value


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "data"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "walplane.testkit.crash_writer", f"rocksdb:{path}", "t", "1", "0"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        await asyncio.wait_for(process.stdout.readline(), 30)
        for stop in (None, signal.SIGSTOP):
            if stop is not None:
                process.send_signal(stop)
            error = await asyncio.wait_for(refusal(path), 10)
            assert error.code is ErrorCode.RESOURCE_ACQUIRED
            assert "in use by another walplane process" in error.message
    finally:
        process.kill()
        await process.communicate()  # `wait` alone hangs when what it printed fills the pipe
    backend = await RocksBackend.open(str(path))
    assert await read_to_end(await backend.session(), "t")
    await backend.close()


async def test_one_backend_at_a_time(tmp_path: Path) -> None:
    backend = await RocksBackend.open(str(tmp_path))
    assert (await refusal(tmp_path)).code is ErrorCode.RESOURCE_ACQUIRED
    await backend.close()
    await backend.close()
    with pytest.raises(WalError, match="ON_SHUTDOWN"):
        await backend.session()
    await (await RocksBackend.open(str(tmp_path))).close()


async def test_a_cancelled_open_lets_go(tmp_path: Path) -> None:
    for delay in (0, 0.001, 0.003, 0.01, 0.03):
        opening = asyncio.ensure_future(RocksBackend.open(str(tmp_path)))
        await asyncio.wait({opening}, timeout=delay)
        opening.cancel()
        await asyncio.wait({opening}, timeout=30)
        if not opening.cancelled():
            await opening.result().close()
        await (await RocksBackend.open(str(tmp_path))).close()


async def test_directories_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(WalError, match=r"INVALID_ARGUMENT.*names no directory"):
        await open_backend("rocksdb:")
    file = tmp_path / "file"
    file.write_text("no directory")
    assert (await refusal(file)).code is ErrorCode.INVALID_ARGUMENT
    assert (await refusal(file / "below")).code is ErrorCode.INVALID_ARGUMENT
    nested = tmp_path / "made" / "with" / "parents"
    await (await open_backend(f"rocksdb:{nested}")).close()


async def test_foreign_and_newer_databases(tmp_path: Path) -> None:
    foreign, newer = tmp_path / "foreign", tmp_path / "newer"
    rocks = Rdict(str(foreign), Options(raw_mode=True))
    rocks.put(b"k", b"v")
    rocks.close()
    assert "another program's" in (await refusal(foreign)).message
    rocks = Rdict(str(newer), Options(raw_mode=True))
    rocks.put(layout.FORMAT_KEY, b"walplane 3")
    rocks.close()
    assert "use the version that wrote it" in (await refusal(newer)).message


async def test_a_missing_record_is_damage(tmp_path: Path) -> None:
    backend = await RocksBackend.open(str(tmp_path))
    session = await backend.session()
    await session.ensure_topic("t")
    await append_all(await session.open_writer("t", 1, 0), payloads("r", 10))
    await backend.close()
    rocks = Rdict(str(tmp_path), Options(raw_mode=True))
    rocks.delete(layout.record_key(1, 5))
    rocks.close()
    database = Database(str(tmp_path))
    assert len(database.read(1, 1, 5, 1 << 20)) == 4
    assert len(database.read(1, 6, 11, 1 << 20)) == 5
    for first, end in ((1, 11), (5, 6), (5, 11), (10, 12)):
        with pytest.raises(WalError, match=r"UNRECOVERABLE.*is gone; restore"):
            database.read(1, first, end, 1 << 20)
    database.close()


async def test_truncation_deletes(tmp_path: Path) -> None:
    backend = await RocksBackend.open(str(tmp_path))
    session = await backend.session()
    for topic in ("t", "other"):
        await session.ensure_topic(topic)
        await append_all(await session.open_writer(topic, 1, 0), payloads(topic, 10))
    await session.truncate("t", (7,))
    await backend.close()
    database = Database(str(tmp_path))
    with pytest.raises(WalError, match="record 6 of topic number 1 is gone"):
        database.read(1, 6, 7, 1)
    assert len(database.read(1, 7, 11, 1 << 20)) == 4
    assert len(database.read(2, 1, 11, 1 << 20)) == 10
    database.close()


def disk_use(directory: Path) -> int:
    """Bytes that the files of `directory` take."""
    sizes = []
    for file in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a compaction was done with it
            sizes.append(file.stat().st_blocks * 512)
    return sum(sizes)


async def test_truncation_frees_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a topic that nobody truncates shares the files."""
    monkeypatch.setattr(options, "WRITE_BUFFER_BYTES", 1 << 20)
    backend = await RocksBackend.open(str(tmp_path))
    session = await backend.session()
    for topic in ("t", "idle"):
        await session.ensure_topic(topic)
    idle = await append_all(await session.open_writer("idle", 1, 0), payloads("idle", 1, 50_000))
    writer = await session.open_writer("t", 1, 0)
    for number in range(48):
        (*_, last) = await append_all(writer, payloads(f"{number}", 10, 100_000))
        assert last.record_id is not None
        await session.truncate("t", last.record_id)
    assert disk_use(tmp_path) < 16 << 20
    expect_holds(await read_to_end(session, "idle"), idle)
    await backend.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 MiB, which `enlarge` makes larger."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    path = tmp_path / "disk"
    path.mkdir()
    arguments = ["-t", "tmpfs", "-o", "size=100m", "tmpfs", str(path)]
    if subprocess.run([mount, *arguments], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def enlarge(disk: Path) -> None:
    """Makes room."""
    subprocess.run(["mount", "-o", "remount,size=400m", str(disk)], check=True)


async def test_full_disk(small_disk: Path) -> None:
    path = small_disk / "data"
    backend = await RocksBackend.open(str(path))
    session = await backend.session()
    await session.ensure_topic("t")
    writer = await session.open_writer("t", 1, 0)
    acks: list[Acknowledged] = []
    failures: list[WalError] = []
    for number in range(200):
        data = payloads(f"full{number}", 1, 1 << 20)
        (result,) = await settle([writer.append(data[0])])
        if isinstance(result, WalError):
            failures.append(result)
        else:
            acks.append(Acknowledged(data[0], result))
    assert len(acks) > 30
    assert len(failures) + len(acks) == 200
    assert {error.code for error in failures} == {ErrorCode.UNRECOVERABLE}
    assert {error.message for error in failures} == {
        f"the disk of {path} is full: free space and start again, everything acknowledged is kept"
    }
    expect_holds(await read_to_end(session, "t"), acks)
    try:
        await backend.close()
    except WalError as error:
        assert error.code is ErrorCode.UNRECOVERABLE
    enlarge(small_disk)
    backend = await RocksBackend.open(str(path))
    session = await backend.session()
    expect_holds(await read_to_end(session, "t"), acks)
    acks += await append_all(await session.open_writer("t", 1, 1), [b"goes on"])
    expect_holds(await read_to_end(session, "t"), acks)
    await backend.close()
