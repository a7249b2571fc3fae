"""What a caller waits for, its append waits for: a lock that others hold too long (rules §6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from walplane.backends.memory import MemoryBackend
from walplane.client import PartialAppendError, StreamingClient
from walplane.message.builder import insert
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.reading import payloads
from walplane.testkit.txns import exclusive_entry
from walplane.testkit.waiting import until

P0 = "test_0"


class Held:
    """A cluster whose log an exclusive append has to itself until `release`."""

    def __init__(self, cluster: MiniCluster, backend: FaultyBackend, vchannel: str) -> None:
        self._cluster = cluster
        self._acknowledge = asyncio.Event()
        self.vchannel = vchannel
        self.wal = cluster.owner(P0).wal(P0)
        backend.before_ack = self._acknowledge.wait
        self._alone = asyncio.create_task(self.wal.append(exclusive_entry(vchannel)))

    async def waiting(self, count: int) -> None:
        """Returns once so many wait for the lock."""
        await until(lambda: len(self.wal.meter.waiting) == count)

    async def release(self) -> None:
        self._acknowledge.set()
        await self._alone


@asynccontextmanager
async def _holding(local: bool) -> AsyncIterator[tuple[Held, StreamingClient]]:
    backend = FaultyBackend(MemoryBackend())
    async with MiniCluster(backend) as cluster:
        vchannel = await cluster.create_vchannel(P0)
        nodes = {"n1": cluster.members["n1"].node} if local else None
        async with StreamingClient.connect(cluster.address, local_nodes=nodes) as wal:
            await wal.append(insert(vchannel, b"before"))
            held = Held(cluster, backend, vchannel)
            await until(lambda: bool(held.wal.appender.unsettled()[0]))
            try:
                yield held, wal
            finally:
                await held.release()


@pytest.mark.parametrize("local", [False, True], ids=["grpc", "local"])
async def test_an_append_that_gets_no_lock_in_its_time_is_not_written(local: bool) -> None:
    async with _holding(local) as (held, wal):
        late = asyncio.create_task(wal.append(insert(held.vchannel, b"late"), timeout=1.0))
        await held.waiting(1)
        patient = asyncio.create_task(wal.append(insert(held.vchannel, b"patient")))
        await held.waiting(2)
        with pytest.raises(WalError, match="nothing is written") as refused:
            await late
        assert refused.value.code is ErrorCode.RESOURCE_ACQUIRED
        await held.waiting(1)  # a waiter that gave up leaves no trace
        await held.release()
        await patient
        assert await payloads(wal, held.vchannel) == [b"before", b"patient"]


@pytest.mark.parametrize("local", [False, True], ids=["grpc", "local"])
async def test_so_are_many_and_a_transaction_of_one_entry(local: bool) -> None:
    async with _holding(local) as (held, wal):
        with pytest.raises(PartialAppendError) as refused:
            await wal.append_many([insert(held.vchannel, b"a")] * 3, timeout=0.5)
        for outcome in refused.value.outcomes:
            assert isinstance(outcome, WalError)
            assert outcome.code is ErrorCode.RESOURCE_ACQUIRED
        with pytest.raises(WalError, match="nothing is written"):
            async with wal.txn(held.vchannel, timeout=0.5) as txn:
                await txn.append(insert(held.vchannel, b"b"))
        await held.release()
        async with wal.txn(held.vchannel) as txn:
            await txn.append(insert(held.vchannel, b"c"))
        assert await payloads(wal, held.vchannel) == [b"before", b"c"]


async def test_an_entry_waits_as_long_as_the_most_patient_of_its_callers() -> None:
    async with _holding(local=False) as (held, wal):
        calls = [
            asyncio.create_task(wal.append(insert(held.vchannel, b"x"), timeout=seconds))
            for seconds in (60.0, 0.3, 60.0)  # the first one goes alone
        ]
        await held.waiting(2)
        with pytest.raises(WalError) as unknown:
            await calls[1]
        assert unknown.value.code is ErrorCode.OUTCOME_UNKNOWN
        await held.release()
        await calls[0]
        await calls[2]
        assert await payloads(wal, held.vchannel) == [b"before", b"x", b"x", b"x"]
