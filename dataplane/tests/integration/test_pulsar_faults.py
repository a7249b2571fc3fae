"""What the Pulsar backend alone guarantees when the broker moves a topic or dies."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from devservices.pulsar import PrerequisiteMissingError, PulsarProcess
from walplane.backends.interface import (
    EARLIEST,
    Backend,
    BackendSession,
    Start,
    StartAt,
    TopicWriter,
)
from walplane.backends.registry import open_backend
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.conformance.harness import append_all, payloads, read_count, read_to_end
from walplane.testkit.pulsar import IN_FLIGHT, Load, judge, unload

pytestmark = pytest.mark.pulsar


@pytest.fixture
async def backend(pulsar_url: str) -> AsyncIterator[Backend]:
    backend = await open_backend(pulsar_url)
    yield backend
    await backend.close()


def new_topic() -> str:
    return f"faults-{secrets.token_hex(6)}"


async def test_unloads_with_records_in_flight(pulsar_url: str, backend: Backend) -> None:
    """The client resends by itself: nothing is doubled or lost, every id is true."""
    topic = new_topic()
    session = await backend.session()
    await session.ensure_topic(topic)
    load = Load(await session.open_writer(topic, 1, 0))
    for _ in range(5):
        await load.progress(10 * IN_FLIGHT)
        await unload(pulsar_url, topic)
    await load.progress(IN_FLIGHT)
    await load.stop()
    log = await read_to_end(session, topic)
    judge(log, load.acknowledged)
    assert len(log) == len(load.acknowledged)
    assert not load.refused


async def test_unload_before_the_first_acknowledgement(pulsar_url: str, backend: Backend) -> None:
    """With the client's own sequence ids, one in twenty of these lost 64 acknowledged records."""
    for _ in range(20):
        topic = new_topic()
        session = await backend.session()
        await session.ensure_topic(topic)
        load = Load(await session.open_writer(topic, 1, 0))
        await unload(pulsar_url, topic)
        await load.progress(2 * IN_FLIGHT)
        await load.stop()
        judge(await read_to_end(session, topic), load.acknowledged)
        await session.close()


async def test_scanner_goes_on_across_unloads(pulsar_url: str, backend: Backend) -> None:
    """A tailing scanner, and one opened on the empty topic, miss and repeat nothing."""
    topic = new_topic()
    session = await backend.session()
    await session.ensure_topic(topic)
    early = await session.open_scanner(topic, EARLIEST)
    await unload(pulsar_url, topic)
    load = Load(await session.open_writer(topic, 1, 0))
    await load.progress(IN_FLIGHT)
    late = await session.open_scanner(
        topic, Start(StartAt.AFTER, (await early.read())[0].record_id)
    )
    for _ in range(3):
        await unload(pulsar_url, topic)
        await load.progress(IN_FLIGHT)
    await load.stop()
    log = await read_to_end(session, topic)
    assert await read_count(late, len(log) - 1) == log[1:]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulsarProcess]:
    """A broker of this file's own, to be killed."""
    process = PulsarProcess(tmp_path_factory.mktemp("pulsar"))
    try:
        process.start()
    except PrerequisiteMissingError as missing:
        pytest.skip(str(missing))
    yield process
    process.wipe()


async def reopened(backend: Backend, topic: str) -> tuple[BackendSession, TopicWriter]:
    """A client and writer after a restart: a cold broker may answer the first tries too late."""
    async with asyncio.timeout(60):
        while True:
            session = await backend.session()
            try:
                return session, await session.open_writer(topic, 1, 2)
            except WalError as error:
                assert error.code is ErrorCode.INNER
                await session.close()


@pytest.mark.slow
@pytest.mark.timeout(300)  # a JVM starts twice
async def test_kill_9_with_records_in_flight(broker: PulsarProcess) -> None:
    """A killed broker: what was acknowledged is there, once; the truncation point as well."""
    topic = new_topic()
    url = f"{broker.url}&namespace=public/killed"
    backend = await open_backend(url)
    session = await backend.session()
    await session.ensure_topic(topic)
    kept = await append_all(await session.open_writer(topic, 1, 0), payloads("truncated", 20))
    assert kept[10].record_id is not None
    await session.truncate(topic, kept[10].record_id)
    load = Load(await session.open_writer(topic, 1, 1))
    await load.progress(20 * IN_FLIGHT)
    await asyncio.to_thread(broker.kill)
    await load.ended()
    assert {error.code for error in load.refused} == {ErrorCode.OUTCOME_UNKNOWN}
    await session.close()
    await asyncio.to_thread(broker.start)
    session, writer = await reopened(backend, topic)
    await append_all(writer, [b"new 0", b"new 1"])
    log = await read_to_end(session, topic)
    assert [(one.record_id, one.data) for one in log[:10]] == [
        (one.record_id, one.data) for one in kept[10:]
    ]
    judge(log[10:], load.acknowledged)
    assert [one.data for one in log[-2:]] == [b"new 0", b"new 1"]
    with pytest.raises(WalError, match="DATA_TRUNCATED"):
        await session.open_scanner(topic, Start(StartAt.FROM, kept[9].record_id or ()))
    await backend.close()
