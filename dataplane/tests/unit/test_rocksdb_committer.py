"""Group commit of the embedded backend: what waits goes together, an error is the last word."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from walplane.backends.interface import EARLIEST, LATEST, Record
from walplane.backends.rocksdb import RocksBackend, committer, floor, values
from walplane.backends.rocksdb.backend import RocksSession, RocksWriter
from walplane.backends.rocksdb.batch import Batch
from walplane.backends.rocksdb.database import Database
from walplane.message.ids import RecordID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.conformance.harness import append_all, payloads, read_to_end, settle


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[RocksBackend]:
    backend = await RocksBackend.open(str(tmp_path / "data"))
    yield backend
    await backend.close()


async def writer_of(backend: RocksBackend, topic: str = "t") -> tuple[RocksSession, RocksWriter]:
    session = await backend.session()
    await session.ensure_topic(topic)
    return session, await session.open_writer(topic, 1, 0)


class Gate:
    """Holds every sync of a database until it is opened; counts them."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.syncs = 0
        self._sync = database.sync
        monkeypatch.setattr(database, "sync", self._held)

    def _held(self) -> None:
        self.syncs += 1
        self.reached.set()
        assert self.open.wait(30)
        self._sync()


def wrote(database: Database, sequence: int) -> bool:
    """Whether the first topic's record was written, durable or not."""
    try:
        return bool(database.read(1, sequence, sequence + 1, 1))
    except WalError:
        return False


async def until(condition: Callable[[], bool]) -> None:
    """Waits for `condition`, which another thread makes true."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def test_what_waits_is_synced_together(
    backend: RocksBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, one = await writer_of(backend, "one")
    _, two = await writer_of(backend, "two")
    gate = Gate(backend.database, monkeypatch)
    first = one.append(b"first")
    await until(gate.reached.is_set)
    rest = [writer.append(b"rest") for _ in range(100) for writer in (one, two)]
    gate.open.set()
    await asyncio.gather(first, *rest)
    assert gate.syncs == 2


WRITES_THREE = """
import asyncio, sys
from walplane.backends.rocksdb import RocksBackend

async def main() -> None:
    backend = await RocksBackend.open(sys.argv[1])
    session = await backend.session()
    await session.ensure_topic("t")
    writer = await session.open_writer("t", 1, 0)
    for _ in range(3):
        print("append", file=sys.stderr, flush=True)
        await writer.append(b"x")
        print("acknowledged", file=sys.stderr, flush=True)
    await backend.close()

asyncio.run(main())
"""


def test_every_acknowledgement_follows_an_fsync_of_the_log(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace to see system calls: apt-get install strace")
    calls = tmp_path / "calls"
    trace = [strace, "-f", "-y", "-e", "trace=fdatasync,write", "-o", str(calls)]
    program = [sys.executable, "-c", WRITES_THREE, str(tmp_path / "data")]
    if subprocess.run([*trace, *program], stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("tracing is not allowed here")
    seen = re.findall(r'write\(2.*"(append|acknow)|(fdatasync)\(\d+<\S+\.log>', calls.read_text())
    words = [said or synced for said, synced in seen]
    start = words.index("append")
    assert words[start : start + 9] == ["append", "fdatasync", "acknow"] * 3


async def test_a_group_is_bounded(backend: RocksBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "GROUP_BYTES", 1000)
    _, writer = await writer_of(backend)
    gate = Gate(backend.database, monkeypatch)
    appends = [writer.append(bytes(500)) for _ in range(9)]
    gate.open.set()
    await asyncio.gather(*appends)
    assert gate.syncs >= 4


async def test_large_groups_are_written_while_one_is_synced(
    backend: RocksBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And still answered in order, together with the small ones behind them."""
    monkeypatch.setattr(values, "VALUE_BYTES", 1 << 30)
    session, writer = await writer_of(backend)
    gate = Gate(backend.database, monkeypatch)
    ended: list[asyncio.Future[RecordID | None]] = []
    first = writer.append(bytes(committer.OVERLAP_BYTES))
    await until(gate.reached.is_set)
    sizes = (committer.OVERLAP_BYTES, 10, 10)
    appends = [first, *(writer.append(bytes(size)) for size in sizes)]
    for append in appends:
        append.add_done_callback(ended.append)
    await until(lambda: wrote(backend.database, 2))
    assert not ended
    gate.open.set()
    await asyncio.gather(*appends)
    assert ended == appends
    assert gate.syncs >= 2
    assert len(await read_to_end(session, "t")) == 4


async def test_nothing_is_seen_before_it_is_durable(
    backend: RocksBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, writer = await writer_of(backend)
    await writer.append(b"durable")
    scanners = [await session.open_scanner("t", start) for start in (EARLIEST, LATEST)]
    gate = Gate(backend.database, monkeypatch)
    append = writer.append(b"written, not durable")
    await until(gate.reached.is_set)
    assert await session.last_record_id("t") == (1,)
    assert await scanners[0].read() == [Record((1,), b"durable")]
    waiting = [asyncio.ensure_future(scanner.read()) for scanner in scanners]
    done, _ = await asyncio.wait(waiting, timeout=0.1)
    assert not done
    assert not append.done()
    late = await session.open_scanner("t", LATEST)
    gate.open.set()
    for read in (*waiting, asyncio.ensure_future(late.read())):
        assert await asyncio.wait_for(read, 10) == [Record((2,), b"written, not durable")]


@pytest.mark.parametrize("step", ["write", "sync", "note"])
async def test_a_storage_error_is_the_last_word(
    backend: RocksBackend, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    session, writer = await writer_of(backend)
    _, other = await writer_of(backend, "other")
    await writer.append(b"before")
    tail = await session.open_scanner("t", LATEST)
    waiting = asyncio.ensure_future(tail.read())
    calls = 0

    def broken(*_: object) -> None:
        nonlocal calls
        calls += 1
        raise WalError(ErrorCode.UNRECOVERABLE, "the disk of /data is broken")

    monkeypatch.setattr(backend.database, step, broken)
    failed = await settle([writer.append(b"lost") for _ in range(5)])
    later = await settle([writer.append(b"later"), other.append(b"later")])
    monkeypatch.undo()
    for result in (*failed, *later):
        assert isinstance(result, WalError)
        assert result.code is ErrorCode.UNRECOVERABLE
        assert "/data is broken" in result.message
    assert calls == 1
    for call in (session.ensure_topic("new"), session.open_writer("t", 2, 0), waiting):
        with pytest.raises(WalError, match="is broken"):
            await asyncio.wait_for(call, 10)
    assert [record.data for record in await read_to_end(session, "t")] == [b"before"]


async def test_a_bug_in_the_committer_ends_every_append(
    backend: RocksBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, writer = await writer_of(backend)
    monkeypatch.setattr(Batch, "put", None)
    results = await settle([writer.append(b"x") for _ in range(3)])
    assert [r.code for r in results if isinstance(r, WalError)] == [ErrorCode.UNRECOVERABLE] * 3


async def test_close_gives_up_on_a_dead_disk(
    backend: RocksBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("walplane.backends.rocksdb.backend.CALL_SECONDS", 0.2)
    session, writer = await writer_of(backend)
    gate = Gate(backend.database, monkeypatch)
    appends = [writer.append(b"stuck")]
    await until(gate.reached.is_set)
    appends += [writer.append(b"not yet written") for _ in range(2)]
    other = await backend.session()
    with pytest.raises(WalError, match=r"INNER.*is the disk of .* alive"):
        await other.ensure_topic("new")
    await asyncio.wait_for(session.close(), 10)
    results = await settle(appends)
    assert [r.code for r in results if isinstance(r, WalError)] == [ErrorCode.OUTCOME_UNKNOWN] * 3
    gate.open.set()
    await writer_of(backend, "later")
    reader = await backend.session()
    assert [record.data for record in await read_to_end(reader, "t")] == [b"stuck"]


async def test_closing_gives_up_on_a_dead_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backend = await RocksBackend.open(str(tmp_path))
    _, writer = await writer_of(backend)
    gate = Gate(backend.database, monkeypatch)
    append = writer.append(b"stuck")
    await until(gate.reached.is_set)
    monkeypatch.setattr("walplane.backends.rocksdb.backend.CALL_SECONDS", 0.2)
    with pytest.raises(WalError, match=r"INNER.*is the disk of .* alive"):
        await asyncio.wait_for(backend.close(), 10)
    with pytest.raises(WalError, match="OUTCOME_UNKNOWN"):
        await append
    gate.open.set()


async def test_the_floor_follows_the_logs(
    backend: RocksBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(floor, "LOOK_EVERY", 4)
    _, writer = await writer_of(backend)
    for number in range(40):
        await append_all(writer, payloads(f"{number}", 2))
        if number % 10 == 9:
            backend.database.flush()
            log = backend.database.oldest_and_newest_log
            await until(lambda log=log: log()[0] == log()[1])  # type: ignore[misc]
    await backend.close()
    database = Database(str(tmp_path / "data"))
    assert database.next_batch > 40
    assert len(database.batches()) < 20
    database.close()
    again = await RocksBackend.open(str(tmp_path / "data"))
    _, writer = await writer_of(again)
    await writer.append(b"again")
    assert len(await read_to_end(await again.session(), "t")) == 81
    await again.close()


async def test_the_floor_stays_below_what_is_in_the_logs(
    backend: RocksBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(floor, "LOOK_EVERY", 4)
    _, writer = await writer_of(backend)
    for number in range(20):
        await append_all(writer, payloads(f"{number}", 1))
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    database = Database(str(tmp_path / "copy"))
    assert database.batches() == list(range(1, database.next_batch))
    assert database.next_batch > 20
    database.close()


async def test_the_loop_is_never_held_for_long(backend: RocksBackend) -> None:
    """Records far above a slice are written with the interpreter's lock given up in between."""
    _, writer = await writer_of(backend)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.ensure_future(tick())
    await append_all(writer, [bytes(1 << 20)] * 32)
    ticking.cancel()
    assert ticks > 32
