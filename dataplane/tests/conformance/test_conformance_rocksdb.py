"""The embedded backend against the conformance suite."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from walplane.backends.rocksdb import RocksBackend
from walplane.testkit.conformance import Acknowledged, BackendConformance, ConformanceHarness
from walplane.testkit.crash_writer import acknowledged_until_killed


class RocksHarness:
    """One directory; the writer that crashes is a process of its own."""

    refuses_stale_opener = True
    owner_reopens = 0

    def __init__(self, path: str, backend: RocksBackend) -> None:
        self.backend = backend
        self._path = path
        self._topics = (f"topic-{number}" for number in itertools.count())

    def new_topic(self) -> str:
        return next(self._topics)

    async def reopen(self) -> None:
        await self.backend.close()
        self.backend = await RocksBackend.open(self._path)

    async def crash(
        self, topic: str, term: int, open_number: int, count: int
    ) -> list[Acknowledged]:
        await self.backend.close()
        url = f"rocksdb:{self._path}"
        acks = await acknowledged_until_killed(url, topic, term, open_number, count)
        self.backend = await RocksBackend.open(self._path)
        return acks


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[ConformanceHarness]:
    path = str(tmp_path / "data")
    harness = RocksHarness(path, await RocksBackend.open(path))
    yield harness
    await harness.backend.close()


class TestConformanceRocksdb(BackendConformance):
    """Every test of the suite."""
