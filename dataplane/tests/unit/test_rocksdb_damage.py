"""Damaged files of the embedded backend: refused, or every acknowledged record readable."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from walplane.backends.interface import Record
from walplane.backends.rocksdb import RocksBackend
from walplane.backends.rocksdb.database import MARK_FILE
from walplane.backends.rocksdb.mark import AcknowledgedMark
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.conformance.harness import append_all, payloads, read_to_end

TOPICS = ("a", "b")
Logs = dict[str, list[Record]]


async def fill(backend: RocksBackend, label: str, count: int) -> None:
    """Appends `count` records of several sizes to each topic."""
    session = await backend.session()
    for topic in TOPICS:
        await session.ensure_topic(topic)
        writer = await session.open_writer(topic, 1, 0)
        await append_all(writer, payloads(f"{label}/{topic}/small", count, 100))
        for one in payloads(f"{label}/{topic}/large", count // 4, 5000):
            await append_all(writer, [one])
    await session.close()


async def read_logs(backend: RocksBackend) -> Logs:
    """All records of all topics."""
    session = await backend.session()
    return {topic: await read_to_end(session, topic) for topic in TOPICS}


async def image(backend: RocksBackend, source: Path, target: Path) -> Logs:
    """Copies the open directory, as a kill -9 would leave it; what is in it."""
    logs = await read_logs(backend)
    shutil.copytree(source, target)
    return logs


async def outcome(damaged: Path, expected: Logs) -> WalError | None:
    """The refusal of a damaged directory, or None after reading all that was acknowledged."""
    try:
        backend = await RocksBackend.open(str(damaged))
    except WalError as error:
        return error
    try:
        logs = await read_logs(backend)
    except WalError as error:
        return error
    finally:
        await backend.close()
    assert logs == expected, "acknowledged records are missing without a word"
    return None


def flips(file: Path, offsets: Sequence[int], bits: random.Random) -> Iterator[Path]:
    """Copies of the file's directory, each with one bit of the file flipped."""
    for offset in offsets:
        copy = file.parent.with_name(f"flipped-{file.name}-{offset}")
        shutil.copytree(file.parent, copy)
        data = bytearray((copy / file.name).read_bytes())
        data[offset] ^= 1 << bits.randrange(8)
        (copy / file.name).write_bytes(data)
        yield copy
        shutil.rmtree(copy)


async def refusals(file: Path, offsets: Sequence[int], expected: Logs) -> list[WalError]:
    """How many of the flips at `offsets` are refused; the others lose nothing."""
    refused: list[WalError] = []
    for damaged in flips(file, offsets, random.Random(7)):  # noqa: S311 - the same in every run
        error = await outcome(damaged, expected)
        # What refused once, and may have been tidied up by it, must not be accepted later.
        assert error is None or await outcome(damaged, expected) is not None
        if error is not None:
            assert error.code in (ErrorCode.UNRECOVERABLE, ErrorCode.INVALID_ARGUMENT)
            assert str(damaged) in error.message
            refused.append(error)
    return refused


def anywhere(file: Path, count: int = 20) -> list[int]:
    """`count` offsets of the file, the same in every run."""
    size = file.stat().st_size
    offsets = random.Random(size)  # noqa: S311 - the same in every run
    return sorted(offsets.sample(range(size), min(count, size)))


async def test_bit_flips_in_the_log(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    backend = await RocksBackend.open(str(source))
    await fill(backend, "one", 200)
    expected = await image(backend, source, copy)
    await backend.close()
    assert await outcome(copy, expected) is None
    shutil.rmtree(copy)
    backend = await RocksBackend.open(str(source))
    await fill(backend, "two", 200)
    expected = await image(backend, source, copy)
    await backend.close()
    (log,) = copy.glob("*.log")
    assert len(await refusals(log, anywhere(log), expected)) == 20


async def test_bit_flips_in_the_last_batch_of_the_log(tmp_path: Path) -> None:
    """Where RocksDB takes damage for a torn tail, the mark tells."""
    source, copy = tmp_path / "source", tmp_path / "copy"
    backend = await RocksBackend.open(str(source))
    await fill(backend, "one", 20)
    session = await backend.session()
    writer = await session.open_writer("a", 1, 1)
    await append_all(writer, [b"the last one"])
    expected = await image(backend, source, copy)
    await backend.close()
    (log,) = copy.glob("*.log")
    size = log.stat().st_size
    errors = await refusals(log, range(size - 90, size), expected)
    assert len(errors) == 90
    assert any("acknowledged records are missing" in error.message for error in errors)


@pytest.mark.parametrize("kind", ["*.sst", "*.blob", "MANIFEST-*", "CURRENT", "OPTIONS-*"])
async def test_bit_flips_in_other_files(tmp_path: Path, kind: str) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    backend = await RocksBackend.open(str(source))
    await fill(backend, "one", 200)
    backend.database.flush()
    expected = await image(backend, source, copy)
    await backend.close()
    files = sorted(copy.glob(kind))
    assert files
    for file in files:
        refused = await refusals(file, anywhere(file), expected)
        if kind in ("*.sst", "*.blob"):
            assert refused


async def two_logs(tmp_path: Path) -> tuple[Path, Logs]:
    """A directory with two logs of which both are needed, and what is in it."""
    source, copy = tmp_path / "source", tmp_path / "copy"
    backend = await RocksBackend.open(str(source))
    await fill(backend, "one", 40)
    await image(backend, source, copy)
    backend.database.flush()
    await fill(backend, "two", 40)
    expected = await read_logs(backend)
    (newer,) = source.glob("*.log")
    shutil.copy(newer, copy)
    shutil.copy(source / MARK_FILE, copy)
    await backend.close()
    assert len(list(copy.glob("*.log"))) == 2
    return copy, expected


async def test_cut_in_an_older_log(tmp_path: Path) -> None:
    """RocksDB goes on with the next log; the gap in the batch numbers tells."""
    copy, expected = await two_logs(tmp_path)
    older, _ = sorted(copy.glob("*.log"))
    for cut in (1, 30, 300):
        damaged = tmp_path / f"cut-{cut}"
        shutil.copytree(copy, damaged)
        with (damaged / older.name).open("r+b") as log:
            log.truncate(older.stat().st_size - cut)
        error = await outcome(damaged, expected)
        assert error is not None
        assert "of its log is gone" in error.message
    assert await outcome(copy, expected) is None


async def test_a_log_that_is_gone(tmp_path: Path) -> None:
    copy, expected = await two_logs(tmp_path)
    for log in sorted(copy.glob("*.log")):
        damaged = tmp_path / f"without-{log.name}"
        shutil.copytree(copy, damaged)
        (damaged / log.name).unlink()
        error = await outcome(damaged, expected)
        assert error is not None
        assert error.code is ErrorCode.UNRECOVERABLE


async def test_torn_tail_of_what_nobody_acknowledged(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    backend = await RocksBackend.open(str(source))
    await fill(backend, "one", 20)
    expected = await image(backend, source, copy)
    (log,) = source.glob("*.log")
    acknowledged = log.stat().st_size
    session = await backend.session()
    writer = await session.open_writer("b", 1, 1)
    await append_all(writer, payloads("unacknowledged", 1, 70_000))
    whole = log.read_bytes()
    await backend.close()
    for size in (acknowledged + 1, acknowledged + 8, acknowledged + 40_000, len(whole) - 1):
        torn = tmp_path / f"torn-{size}"
        shutil.copytree(copy, torn)
        (torn / log.name).write_bytes(whole[:size])
        assert await outcome(torn, expected) is None


@pytest.mark.parametrize("call", ["pwrite", "fsync", "pread"])
def test_a_mark_that_cannot_be_made_keeps_no_file_open(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space left"):
        AcknowledgedMark(tmp_path / "mark")
    assert len(os.listdir("/proc/self/fd")) == before


def test_mark_is_the_highest_note(tmp_path: Path) -> None:
    file = tmp_path / "mark"
    mark = AcknowledgedMark(file)
    assert mark.read() == 0
    for batch in (1, 3, 5, 700):
        mark.note(batch)
        assert mark.read() == batch
    mark.close()
    mark = AcknowledgedMark(file)
    assert mark.read() == 700
    mark.note(702)
    mark.close()
    data = file.read_bytes()
    assert len(data) == 1024
    for offset in (*range(12), *range(512, 524)):
        torn = bytearray(data)
        torn[offset] ^= 16
        file.write_bytes(torn)
        mark = AcknowledgedMark(file)
        assert mark.read() in (700, 702)
        mark.close()
