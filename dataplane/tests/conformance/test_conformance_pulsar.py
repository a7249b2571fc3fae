"""The conformance suite on a real Pulsar."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from walplane.backends.interface import Backend
from walplane.backends.registry import open_backend
from walplane.testkit.conformance import Acknowledged, BackendConformance
from walplane.testkit.crash_writer import acknowledged_until_killed

pytestmark = pytest.mark.pulsar


class PulsarHarness:
    """One namespace of the broker of this run; the last opener wins, whatever its term."""

    refuses_stale_opener = False
    owner_reopens = 1

    def __init__(self, url: str, backend: Backend) -> None:
        self._url = url
        self.backend = backend

    def new_topic(self) -> str:
        return f"conformance-{secrets.token_hex(8)}"

    async def reopen(self) -> None:
        await self.backend.close()
        self.backend = await open_backend(self._url)

    async def crash(
        self, topic: str, term: int, open_number: int, count: int
    ) -> list[Acknowledged]:
        return await acknowledged_until_killed(self._url, topic, term, open_number, count)


@pytest.fixture
async def harness(pulsar_url: str) -> AsyncIterator[PulsarHarness]:
    harness = PulsarHarness(pulsar_url, await open_backend(pulsar_url))
    yield harness
    await harness.backend.close()


class TestConformancePulsar(BackendConformance):
    pass
