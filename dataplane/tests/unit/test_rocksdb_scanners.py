"""Scanners of the embedded backend: nothing is kept of one that is closed."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from walplane.backends.interface import EARLIEST, Record
from walplane.backends.rocksdb import RocksBackend
from walplane.backends.rocksdb.database import Database
from walplane.backends.rocksdb.scanner import RocksScanner
from walplane.rpc.errors import WalError
from walplane.testkit.conformance.harness import append_all, payloads
from walplane.testkit.waiting import until


class Records(list[Record]):
    """A list that can be watched."""


class HeldRead:
    """Holds a database's reads until they may go on."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.fetched: list[weakref.ref[Records]] = []
        self._read = database.read
        monkeypatch.setattr(database, "read", self._held)

    def _held(self, number: int, first: int, end: int, max_bytes: int) -> list[Record]:
        self.reached.set()
        assert self.go_on.wait(30)
        records = Records(self._read(number, first, end, max_bytes))
        self.fetched.append(weakref.ref(records))
        return records


@pytest.fixture
async def scanner(tmp_path: Path) -> AsyncIterator[RocksScanner]:
    """One of three records, whose session stays open."""
    backend = await RocksBackend.open(str(tmp_path))
    session = await backend.session()
    await session.ensure_topic("t")
    await append_all(await session.open_writer("t", 1, 0), payloads("r", 3))
    yield await session.open_scanner("t", EARLIEST)
    await backend.close()


async def read_under_way(
    scanner: RocksScanner, monkeypatch: pytest.MonkeyPatch
) -> tuple[HeldRead, asyncio.Future[list[Record]]]:
    """A read that is held where it fetches."""
    held = HeldRead(scanner._database, monkeypatch)
    waiting = asyncio.ensure_future(scanner.read())
    await asyncio.to_thread(held.reached.wait, 30)
    return held, waiting


async def test_a_closed_scanner_keeps_nothing_of_what_it_fetched(
    scanner: RocksScanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nobody waits for it any more."""
    held, waiting = await read_under_way(scanner, monkeypatch)
    waiting.cancel()
    await asyncio.wait({waiting})
    await scanner.close()
    held.go_on.set()
    await until(lambda: bool(held.fetched) and held.fetched[0]() is None)


async def test_a_session_forgets_scanners_that_are_closed(tmp_path: Path) -> None:
    backend = await RocksBackend.open(str(tmp_path))
    session = await backend.session()
    await session.ensure_topic("t")
    scanner = await session.open_scanner("t", EARLIEST)
    gone = weakref.ref(scanner)
    await scanner.close()
    del scanner
    gc.collect()
    assert gone() is None
    await backend.close()


async def test_a_reader_is_told_that_its_scanner_closed_while_it_fetches(
    scanner: RocksScanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, waiting = await read_under_way(scanner, monkeypatch)
    await scanner.close()
    held.go_on.set()
    with pytest.raises(WalError, match="ON_SHUTDOWN"):
        await waiting
