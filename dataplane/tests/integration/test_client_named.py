"""Named producers of the client: a program that begins again goes on exactly behind itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from walplane.backends.memory import MemoryBackend
from walplane.client import (
    ClientConfig,
    NamedProducer,
    PartialAppendError,
    StreamingClient,
    SyncStreamingClient,
)
from walplane.message.builder import delete, insert
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.faulty import Fault, FaultyBackend, no_faults
from walplane.testkit.link import FaultyLink
from walplane.testkit.reading import payloads

P0 = "test_0"


def source(first: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


async def load(producer: NamedProducer, count: int) -> None:
    """Appends the next `count` messages of the source."""
    rows = source(producer.next_number, count)
    await producer.append_many([insert(producer.vchannel, row) for row in rows])


async def test_another_run_goes_on_behind_what_is_written(
    cluster: MiniCluster, vchannel: str
) -> None:
    for run in range(3):
        async with StreamingClient.connect(cluster.address) as wal:
            async with wal.producer("loader", vchannel) as producer:
                assert producer.next_number == run * 11
                assert producer.last_number == (run * 11 - 1 if run else None)
                await load(producer, 10)
                result = await producer.append(insert(vchannel, b"%d" % producer.next_number))
                assert result.message_count == 1
            assert await payloads(wal, vchannel) == source(0, (run + 1) * 11)


async def test_the_older_of_two_instances_is_kept_out_and_told_so(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    async with wal.producer("loader", vchannel) as old:
        await load(old, 3)
        async with StreamingClient.connect(cluster.address) as other:
            async with other.producer("loader", vchannel) as new:
                assert new.next_number == 3
                with pytest.raises(WalError, match="was opened again") as error:
                    await old.append(insert(vchannel, b"stale"))
                assert error.value.code is ErrorCode.PRODUCER_FENCED
                with pytest.raises(WalError, match="takes nothing more") as error:
                    await old.append(insert(vchannel, b"stale"))
                assert error.value.code is ErrorCode.PRODUCER_FENCED
                await load(new, 3)
    assert await payloads(wal, vchannel) == source(0, 6)


async def test_it_goes_on_through_moves_of_its_channel(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    async with wal.producer("loader", vchannel) as producer:
        for move in range(4):
            loading = asyncio.create_task(load(producer, 50))
            await cluster.move(P0, ("n2", "n1")[move % 2])
            await loading
    async with wal.producer("loader", vchannel) as producer:
        assert producer.next_number == 200
    assert await payloads(wal, vchannel) == source(0, 200)


async def test_it_appends_in_the_same_process_too(cluster: MiniCluster, vchannel: str) -> None:
    nodes = {name: member.node for name, member in cluster.members.items()}
    async with StreamingClient.connect(cluster.address, local_nodes=nodes) as wal:
        for run in range(2):
            async with wal.producer("loader", vchannel) as producer:
                assert producer.next_number == run * 5
                await load(producer, 5)
        assert await payloads(wal, vchannel) == source(0, 10)


async def test_after_a_refusal_it_takes_nothing_more_and_opening_tells_what_is_written(
    wal: StreamingClient, vchannel: str
) -> None:
    async with wal.producer("loader", vchannel) as producer:
        await load(producer, 2)
        wrong = insert(vchannel, b"2", partition_id=77)
        rows = [wrong, *(insert(vchannel, b"%d" % number) for number in (3, 4))]
        with pytest.raises(PartialAppendError) as error:
            await producer.append_many(rows)
        codes = [outcome.code for outcome in error.value.outcomes if isinstance(outcome, WalError)]
        assert codes == [ErrorCode.INVALID_ARGUMENT, *[ErrorCode.INVALID_REQUEST_SEQ] * 2]
        with pytest.raises(WalError, match="takes nothing more"):
            await producer.append(insert(vchannel, b"3"))
    async with wal.producer("loader", vchannel) as producer:
        assert producer.next_number == 2
        await load(producer, 2)
    assert await payloads(wal, vchannel) == source(0, 4)


async def test_what_was_not_answered_in_time_is_told_by_the_next_open(
    cluster: MiniCluster, vchannel: str
) -> None:
    async with FaultyLink(cluster.members["n1"].server.address) as link:
        await cluster.move(P0, "n1", address=link.address)
        async with StreamingClient.connect(cluster.address) as wal:
            async with wal.producer("loader", vchannel) as producer:
                await load(producer, 5)
                link.hold_replies(True)
                with pytest.raises(WalError) as error:
                    await producer.append(insert(vchannel, b"5"), timeout=0.3)
                assert error.value.code is ErrorCode.OUTCOME_UNKNOWN
                link.hold_replies(False)
            async with wal.producer("loader", vchannel) as producer:
                assert producer.next_number == 6
                await load(producer, 12 - producer.next_number)
            assert await payloads(wal, vchannel) == source(0, 12)


async def test_wrong_use_is_refused_and_harms_nothing(wal: StreamingClient, vchannel: str) -> None:
    closed = wal.producer("loader", vchannel)
    with pytest.raises(WalError, match="is not open"):
        await closed.append(insert(vchannel, b"x"))
    for name, channel, code in (
        ("", vchannel, ErrorCode.INVALID_ARGUMENT),
        ("loader", "test_0_9v0", ErrorCode.CHANNEL_NOT_EXIST),
    ):
        with pytest.raises(WalError) as error:
            await wal.producer(name, channel).__aenter__()
        assert error.value.code is code
    async with wal.producer("loader", vchannel) as producer:
        for message in (
            insert("test_0_1v1", b"x"),
            insert(vchannel, b"x").with_key("key"),
        ):
            with pytest.raises(WalError, match="without keys of their own"):
                await producer.append(message)
        assert list(await producer.append_many([])) == []
        await producer.append(delete(vchannel, b"gone"))
        assert producer.next_number == 1
    with pytest.raises(WalError, match="is closed"):
        await producer.append(insert(vchannel, b"x"))


async def test_a_blocking_program_has_the_same(cluster: MiniCluster, vchannel: str) -> None:
    def run(first: int) -> None:
        with SyncStreamingClient.connect(cluster.address) as wal:
            with wal.producer("loader", vchannel) as producer:
                assert producer.next_number == first
                producer.append(insert(vchannel, b"%d" % first))
                producer.append_many(
                    [insert(vchannel, row) for row in source(producer.next_number, 4)]
                )
                assert producer.last_number == first + 4

    for first in (0, 5):
        await asyncio.to_thread(run, first)
    async with StreamingClient.connect(cluster.address) as wal:
        assert await payloads(wal, vchannel) == source(0, 10)


# --- whatever happens --------------------------------------------------------------------------


class Loaders:
    """Instances of one program that die and race; the message of number n is always the same."""

    def __init__(self, cluster: MiniCluster, vchannel: str, seed: int, goal: int) -> None:
        self.cluster = cluster
        self.vchannel = vchannel
        self.random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.goal = goal
        self.acknowledged = 0

    async def run(self) -> None:
        """Begins again and again until all is written."""
        done = False
        while not done:
            life = self.random.choice([0.01, 0.05, 0.2, 10.0])
            try:
                async with asyncio.timeout(life):
                    done = await self._instance()
            except* (TimeoutError, WalError):
                pass
            await asyncio.sleep(self.random.uniform(0, 0.02))

    async def _instance(self) -> bool:
        config = ClientConfig(
            entry_messages=self.random.choice([1, 3, 100]), backoff_min_s=0.005, backoff_max_s=0.02
        )
        async with StreamingClient.connect(self.cluster.address, config=config) as wal:
            async with wal.producer("loader", self.vchannel) as producer:
                assert self.acknowledged <= producer.next_number <= self.goal
                async with asyncio.TaskGroup() as tasks:
                    async for begin, rows in self._parts(producer.next_number):
                        tasks.create_task(self._append(producer, begin, rows))
        return True

    async def _parts(self, number: int) -> AsyncIterator[tuple[int, list[bytes]]]:
        while number < self.goal:
            rows = source(number, min(self.random.randint(1, 7), self.goal - number))
            yield number, rows
            number += len(rows)
            if self.random.random() < 0.3:
                await asyncio.sleep(self.random.uniform(0, 0.01))

    async def _append(self, producer: NamedProducer, begin: int, rows: list[bytes]) -> None:
        await producer.append_many([insert(self.vchannel, row) for row in rows])
        self.acknowledged = max(self.acknowledged, begin + len(rows))


@pytest.mark.parametrize("seed", range(8))
async def test_instances_that_die_and_race_write_the_source_once_and_in_order(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 - reproducible, not secret
    backend = FaultyBackend(MemoryBackend())
    faults = [fault for fault in Fault if fault is not Fault.NONE]
    async with MiniCluster(backend, pchannels=1, nodes=("n1", "n2")) as cluster:
        vchannel = await cluster.create_vchannel(P0)
        loaders = Loaders(cluster, vchannel, seed, goal=150)

        def now_and_then(_: str) -> Fault:
            return draw.choice(faults) if draw.random() < 0.02 else Fault.NONE

        async def disturb() -> None:
            for move in range(6):
                await asyncio.sleep(draw.uniform(0, 0.15))
                backend.faults = no_faults
                await cluster.move(P0, ("n2", "n1")[move % 2])
                backend.faults = lambda _: (
                    draw.choice(faults) if draw.random() < 0.02 else Fault.NONE
                )
            backend.faults = no_faults

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(loaders.run())
            tasks.create_task(loaders.run())
            tasks.create_task(disturb())
        async with StreamingClient.connect(cluster.address) as wal:
            assert await payloads(wal, vchannel) == source(0, 150)
    await backend.close()
