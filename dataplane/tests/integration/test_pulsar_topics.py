"""Topics of the Pulsar backend: made so that they keep their data, refused when they would not."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from walplane.backends.interface import EARLIEST, LATEST, Backend, Record, Start, StartAt
from walplane.backends.pulsar.config import PulsarConfig
from walplane.backends.pulsar.writer import PulsarWriter
from walplane.backends.registry import open_backend
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.conformance.harness import (
    append_all,
    expect_error,
    payloads,
    read_to_end,
)
from walplane.testkit.pulsar import admin, unload, until

pytestmark = pytest.mark.pulsar


@pytest.fixture
async def backend(pulsar_url: str) -> AsyncIterator[Backend]:
    backend = await open_backend(pulsar_url)
    yield backend
    await backend.close()


def new_topic() -> str:
    return f"topics-{secrets.token_hex(6)}"


def path(url: str, topic: str) -> str:
    return f"/persistent/{PulsarConfig.parse(url).namespace}/{topic}"


async def ledgers(url: str, topic: str) -> list[int]:
    stats = (await admin(url, "GET", f"{path(url, topic)}/internalStats")).json()
    return [one["ledgerId"] for one in stats["ledgers"]]


async def in_three_ledgers(backend: Backend, url: str, topic: str, size: int) -> list[Record]:
    """60 records in each of two closed ledgers, 10 in an open one."""
    session = await backend.session()
    await session.ensure_topic(topic)
    for number, count in enumerate((60, 60, 10)):
        if number:
            await unload(url, topic)
        writer = await session.open_writer(topic, 1, number)
        await append_all(writer, payloads(f"ledger{number}", count, size))
    log = await read_to_end(session, topic)
    assert len({record.record_id[0] for record in log}) == 3
    await session.close()
    return log


async def freed(url: str, topic: str, gone: set[int]) -> None:
    """Waits until the ledgers `gone` are; deduplication holds them until its next snapshot."""

    async def are_gone() -> bool:
        return not gone.intersection(await ledgers(url, topic))

    await until(are_gone, 60)


async def test_truncation_frees_ledgers(pulsar_url: str, backend: Backend) -> None:
    topic = new_topic()
    log = await in_three_ledgers(backend, pulsar_url, topic, 100)
    session = await backend.session()
    await session.truncate(topic, log[70].record_id)
    await freed(pulsar_url, topic, {log[0].record_id[0]})
    assert await read_to_end(session, topic) == log[70:]
    await session.truncate(topic, log[-1].record_id)
    await freed(pulsar_url, topic, {one.record_id[0] for one in log[:120]})
    other = await open_backend(pulsar_url)
    reader = await other.session()
    assert await read_to_end(reader, topic) == log[-1:]
    async with expect_error(ErrorCode.DATA_TRUNCATED):
        await reader.open_scanner(topic, Start(StartAt.FROM, log[0].record_id))
    writer = await session.open_writer(topic, 2, 0)
    await append_all(writer, [b"goes on"])
    assert [one.data for one in await read_to_end(reader, topic)] == [log[-1].data, b"goes on"]
    await other.close()


async def test_overtaken_scanner_says_so(pulsar_url: str, backend: Backend) -> None:
    """A slow scanner whose next ledger was freed gets DATA_TRUNCATED, never a later record."""
    topic = new_topic()
    log = await in_three_ledgers(backend, pulsar_url, topic, 512 * 1024)
    session = await backend.session()
    scanner = await session.open_scanner(topic, EARLIEST)
    got = await scanner.read()
    await session.truncate(topic, log[-1].record_id)
    await freed(pulsar_url, topic, {one.record_id[0] for one in log[:120]})
    with pytest.raises(WalError) as raised:
        async with asyncio.timeout(30):
            while len(got) < len(log):
                got += await scanner.read()
    assert raised.value.code is ErrorCode.DATA_TRUNCATED
    assert got == log[: len(got)]
    assert len(got) < 120


async def test_missing_topic(backend: Backend) -> None:
    session = await backend.session()
    for start in (EARLIEST, LATEST):
        async with expect_error(ErrorCode.CHANNEL_NOT_EXIST):
            await session.open_scanner("nowhere", start)
    async with expect_error(ErrorCode.CHANNEL_NOT_EXIST):
        await session.open_writer("nowhere", 1, 0)
    async with expect_error(ErrorCode.CHANNEL_NOT_EXIST):
        await session.last_record_id("nowhere")


async def test_many_sessions_ensure_at_once(pulsar_url: str, backend: Backend) -> None:
    """Eight topics by three sessions each."""
    topics = [new_topic() for _ in range(8)]
    sessions = [await backend.session() for _ in range(3)]
    await asyncio.gather(*(one.ensure_topic(topic) for topic in topics for one in sessions))
    for topic in topics:
        await append_all(await sessions[0].open_writer(topic, 1, 0), [b"kept"])
        await sessions[1].ensure_topic(topic)


async def test_interrupted_creation_is_completed(pulsar_url: str, backend: Backend) -> None:
    topic = new_topic()
    await admin(pulsar_url, "PUT", path(pulsar_url, topic))
    session = await backend.session()
    async with expect_error(ErrorCode.UNRECOVERABLE):
        await session.open_scanner(topic, EARLIEST)
    await session.ensure_topic(topic)
    await append_all(await session.open_writer(topic, 1, 0), [b"kept"])
    assert [one.data for one in await read_to_end(session, topic)] == [b"kept"]


@pytest.mark.parametrize("emptied", [False, True])
async def test_lost_subscription_is_data_loss(
    pulsar_url: str, backend: Backend, emptied: bool
) -> None:
    """Also when the broker has already freed every record that it kept."""
    topic = new_topic()
    session = await backend.session()
    await session.ensure_topic(topic)
    acks = await append_all(await session.open_writer(topic, 1, 0), payloads("kept", 5))
    if emptied:
        await session.truncate(topic, acks[-1].record_id or ())
    await session.close()
    await admin(pulsar_url, "DELETE", f"{path(pulsar_url, topic)}/subscription/walplane")
    if emptied:
        await unload(pulsar_url, topic)
        await freed(pulsar_url, topic, {(acks[0].record_id or ())[0]})
    session = await backend.session()
    with pytest.raises(WalError, match="data loss") as raised:
        await session.ensure_topic(topic)
    assert raised.value.code is ErrorCode.UNRECOVERABLE


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("deduplicationEnabled", False),
        ("messageTTL?messageTTL=60", None),
        (
            "backlogQuota",
            {"limitSize": 1 << 20, "limitTime": -1, "policy": "consumer_backlog_eviction"},
        ),
        (
            "inactiveTopicPolicies",
            {
                "inactiveTopicDeleteMode": "delete_when_subscriptions_caught_up",
                "maxInactiveDurationSeconds": 1,
                "deleteWhileInactive": True,
            },
        ),
    ],
)
async def test_settings_that_lose_data_are_refused(
    pulsar_url: str, backend: Backend, setting: str, value: object
) -> None:
    topic = new_topic()
    session = await backend.session()
    await session.ensure_topic(topic)
    await admin(pulsar_url, "POST", f"{path(pulsar_url, topic)}/{setting}", value)
    with pytest.raises(WalError, match="would lose data") as raised:
        async with asyncio.timeout(10):
            while True:  # the broker takes a moment to see the change
                await session.ensure_topic(topic)
    assert raised.value.code is ErrorCode.UNRECOVERABLE


async def test_abandoned_open_leaves_no_producer(pulsar_url: str, backend: Backend) -> None:
    topic = new_topic()
    session = await backend.session()
    await session.ensure_topic(topic)
    cancelled = 0
    while cancelled < 5:
        opening = asyncio.ensure_future(session.open_writer(topic, 1, 0))
        await asyncio.wait({opening}, timeout=0)
        cancelled += opening.cancel()
        await asyncio.wait({opening})

    async def nobody_publishes() -> bool:
        stats = await admin(pulsar_url, "GET", f"{path(pulsar_url, topic)}/stats")
        return not stats.json()["publishers"]

    await until(nobody_publishes, 5)
    await session.close()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("away", ["broker", "admin", "both"])
async def test_unreachable_service_is_named_in_time(pulsar_url: str, away: str) -> None:
    config = PulsarConfig.parse(pulsar_url)
    nobody = f"127.0.0.1:{closed_port()}"
    service = config.service_url if away == "admin" else f"pulsar://{nobody}"
    admin_url = config.admin_url if away == "broker" else f"http://{nobody}"
    began = time.monotonic()
    with pytest.raises(WalError, match=nobody) as raised:
        await open_backend(f"{service}?admin={admin_url}&namespace={config.namespace}")
    assert raised.value.code is ErrorCode.INNER
    assert time.monotonic() - began < 10


async def test_the_clients_thread_keeps_what_python_knows_of_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that is made for each callback has no locals of the thread yet."""
    here, known = threading.local(), list[bool]()
    answered: Any = PulsarWriter._answered

    def spy(*arguments: object) -> None:
        known.append(hasattr(here, "seen"))
        here.seen = True
        answered(*arguments)

    monkeypatch.setattr(PulsarWriter, "_answered", spy)
    session, topic = await backend.session(), new_topic()
    await session.ensure_topic(topic)
    writer = await session.open_writer(topic, 1, 0)
    for number in range(10):
        await writer.append(b"%d" % number)
    await session.close()
    assert known == [False] + [True] * 9
