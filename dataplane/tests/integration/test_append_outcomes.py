"""An append of many says what became of each message, also when an owner was never reached."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from walplane.cli.append import LineAppender
from walplane.client import AppendResult, CollectionInfo, PartialAppendError, StreamingClient
from walplane.message.builder import insert
from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.reading import payloads, tailing
from walplane.testkit.waiting import until

SERVED, UNSERVED = "test_0", "test_1"
DEADLINE_S = 20.0


@pytest.fixture
async def shards(cluster: MiniCluster, wal: StreamingClient) -> tuple[str, str]:
    """Two VChannels that `wal` has not met yet; nobody serves the second one."""
    names = await cluster.create_vchannel(SERVED), await cluster.create_vchannel(UNSERVED, 1, 1)
    cluster.publish(UNSERVED, term=cluster.terms[UNSERVED], state="UNAVAILABLE")
    await until(lambda: not wal.topology().assignments[UNSERVED].served)
    return names


async def test_each_message_has_its_outcome_when_an_owner_is_never_reached(
    wal: StreamingClient, shards: tuple[str, str]
) -> None:
    messages = [insert(shards[number % 2], b"%d" % number) for number in range(6)]
    with pytest.raises(PartialAppendError) as caught:
        await wal.append_many(messages, timeout=0.5)
    for number, outcome in enumerate(caught.value.outcomes):
        if number % 2:
            assert isinstance(outcome, WalError)
            assert outcome.code is ErrorCode.RESOURCE_ACQUIRED
            assert f"nobody serves {UNSERVED}" in outcome.message
        else:
            assert isinstance(outcome, AppendResult)
    assert await payloads(wal, shards[0]) == [b"0", b"2", b"4"]


async def test_whoever_is_served_does_not_wait_for_whoever_is_not(
    wal: StreamingClient, shards: tuple[str, str]
) -> None:
    messages = [insert(shards[1], b"later"), insert(shards[0], b"now")]
    both = asyncio.create_task(wal.append_many(messages))
    async with tailing(wal, shards[0]) as got:
        await until(lambda: got == [b"now"])
    assert not both.done()
    both.cancel()


async def test_the_order_of_calls_is_kept_while_an_owner_is_awaited(
    cluster: MiniCluster, wal: StreamingClient, shards: tuple[str, str]
) -> None:
    calls = [
        asyncio.create_task(wal.append_many([insert(v, b"%d" % n) for v in shards]))
        for n in range(3)
    ]
    calls.append(asyncio.create_task(wal.append_many([insert(shards[1], b"3")])))
    single = asyncio.create_task(wal.append(insert(shards[1], b"4")))
    await cluster.move(UNSERVED, "n2")
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*calls, single)
    assert await payloads(wal, shards[0]) == [b"0", b"1", b"2"]
    assert await payloads(wal, shards[1]) == [b"0", b"1", b"2", b"3", b"4"]


async def test_results_are_those_of_the_messages_at_the_first_contact_too(
    cluster: MiniCluster, wal: StreamingClient
) -> None:
    first, second = await cluster.create_vchannel(SERVED), await cluster.create_vchannel(UNSERVED)
    many = [insert((first, second)[n % 2], b"%d" % n, *[b"x"] * (n % 3)) for n in range(60)]
    results = await wal.append_many(many)
    for vchannel in (first, second):
        found = {m.message_id: m async for m in wal.read(vchannel, follow=False)}
        for message, result in zip(many, results, strict=True):
            if message.vchannel == vchannel:
                assert found[result.message_id].payload == message.payloads[0]
                assert result.message_count == len(message.payloads)


async def test_what_is_awaited_ends_when_the_client_is_closed(
    wal: StreamingClient, shards: tuple[str, str]
) -> None:
    call = asyncio.create_task(wal.append_many([insert(shards[1], b"a")], timeout=600))
    for _ in range(5):  # turns of the loop: it waits for an owner now
        await asyncio.sleep(0)
    await wal.close()
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(PartialAppendError, match="was closed"):
            await call


async def test_what_no_client_may_append_is_refused_before_an_owner_is_awaited(
    wal: StreamingClient, shards: tuple[str, str]
) -> None:
    fine = insert(shards[0], b"fine")
    tick = replace(fine, type=MessageType.TIME_TICK, header=headers_pb2.TimeTickHeader())
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(WalError) as caught:
            await wal.append_many([fine, replace(tick, vchannel=shards[1])], timeout=600)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert not isinstance(caught.value, PartialAppendError)
    assert await payloads(wal, shards[0]) == []


async def _append_lines(wal: StreamingClient, shards: tuple[str, ...], text: bytes) -> LineAppender:
    reading, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    appender = LineAppender(wal, CollectionInfo("c", 1, shards, 0, 1, 0), None, 0.5, None)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await appender.run(reading, asyncio.Event())
    finally:
        os.close(reading)
    return appender


async def test_lines_of_a_shard_that_nobody_serves_are_named(
    wal: StreamingClient, shards: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    appender = await _append_lines(wal, shards, b"a\nb\nc\nd\n")
    assert (appender.acknowledged, appender.failed) == (2, 2)
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in told] == ["line 2", "line 4"]
    assert await payloads(wal, shards[0]) == [b"a", b"c"]


async def test_lines_that_are_refused_before_they_are_sent_are_named(
    wal: StreamingClient, shards: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    appender = await _append_lines(wal, (shards[0], "test_9_1v1"), b"a\nb\nc\nd\n")
    assert (appender.acknowledged, appender.failed) == (2, 2)
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in told] == ["line 2", "line 4"]
    assert "there is no PChannel test_9" in told[0]
