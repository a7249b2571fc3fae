"""The memory backend against the conformance suite."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest

from walplane.backends.memory import MemoryBackend
from walplane.testkit.conformance import Acknowledged, BackendConformance, ConformanceHarness
from walplane.testkit.conformance.harness import payloads


class MemoryHarness:
    """The backend object is the storage, so it outlives reopen and crash."""

    refuses_stale_opener = True
    owner_reopens = 0

    def __init__(self) -> None:
        self.backend = MemoryBackend(max_record_bytes=1 << 20)
        self._topics = (f"topic-{number}" for number in itertools.count())

    def new_topic(self) -> str:
        return next(self._topics)

    async def reopen(self) -> None:
        await self.backend.close()

    async def crash(
        self, topic: str, term: int, open_number: int, count: int
    ) -> list[Acknowledged]:
        abandoned = await self.backend.session()
        await abandoned.ensure_topic(topic)
        writer = await abandoned.open_writer(topic, term, open_number)
        data = payloads(f"crash{term}", count)
        acks = [Acknowledged(one, await writer.append(one)) for one in data]
        for one in payloads(f"in-flight{term}", 10):
            writer.append(one)
        return acks


@pytest.fixture
async def harness() -> AsyncIterator[ConformanceHarness]:
    harness = MemoryHarness()
    yield harness
    await harness.backend.close()


class TestConformanceMemory(BackendConformance):
    """Every test of the suite."""
