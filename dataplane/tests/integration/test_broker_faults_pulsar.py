"""A real Pulsar that dies, comes back, or moves a topic, with 64 frames in flight."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from devservices.pulsar import PrerequisiteMissingError, PulsarProcess
from walplane.testkit.owners import Arena, longest_gap

pytestmark = [pytest.mark.pulsar, pytest.mark.slow]

NAMESPACE = "public/faults"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulsarProcess]:
    """A broker of this test's own: it is killed."""
    process = PulsarProcess(tmp_path_factory.mktemp("pulsar"))
    try:
        process.start()
    except PrerequisiteMissingError as missing:
        pytest.skip(str(missing))
    yield process
    process.wipe()


@pytest.fixture
async def arena(broker: PulsarProcess, tmp_path: Path) -> AsyncIterator[Arena]:
    made = Arena(f"{broker.url}&namespace={NAMESPACE}", tmp_path)
    yield made
    await made.close()


async def test_a_killed_broker_loses_and_doubles_nothing(
    arena: Arena, broker: PulsarProcess
) -> None:
    owner = await arena.start(1)
    await owner.acknowledged(1000)
    for _ in range(2):
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        ready = time.monotonic()
        await owner.acknowledged(1000, within=60)
        first = next(ack["at"] for ack in owner.acks(since=ready))
        print(f"first append {first - ready:.2f} s after the broker was ready again")
    print(f"longest gap {longest_gap(owner):.2f} s")
    await arena.check(2)


async def test_an_unloaded_topic_loses_and_doubles_nothing(
    arena: Arena, broker: PulsarProcess
) -> None:
    owner = await arena.start(1)
    await owner.acknowledged(1000)
    admin = parse_qs(urlsplit(broker.url).query)["admin"][0]
    async with httpx.AsyncClient(timeout=60) as client:
        for _ in range(3):
            topic = f"{admin}/admin/v2/persistent/{NAMESPACE}/{arena.pchannel}/unload"
            (await client.put(topic)).raise_for_status()
            await owner.acknowledged(1000, within=60)
    print(f"longest gap {longest_gap(owner):.2f} s")
    await arena.check(2)
