"""kill -9 of a standalone cluster with 50 transactions open: those that commit are seen, whole.

Some are rolled back, some are left to expire, and after each kill a ManualFlush has one VChannel
for itself, which ends what is open there. `WALPLANE_TXN_WAVES` sets the number of kills (4),
`WALPLANE_TXN_OPEN` how many are open at each.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from walplane.client import StreamingClient, Txn
from walplane.client.txn import TxnState
from walplane.message.builder import delete, insert, manual_flush
from walplane.message.codec import decode_body
from walplane.message.registry import MessageType
from walplane.message.txn_view import ImmutableTxnMessage
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2
from walplane.testkit.standalone import StandaloneProcess
from walplane.testkit.waiting import until

OPEN = int(os.environ.get("WALPLANE_TXN_OPEN", "50"))
WAVES = int(os.environ.get("WALPLANE_TXN_WAVES", "4"))
BODIES = 6
KEEPALIVE_S = 600.0
SHORT_S = 3.0


class Work:
    """Waves of transactions, all open at once when the process is killed."""

    def __init__(self, wal: StreamingClient, collections: dict[str, int], seed: int = 1) -> None:
        """`collections` are the ids, by VChannel."""
        self.wal = wal
        self.collections = collections
        self.vchannels = list(collections)
        self.random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.committed: dict[str, dict[int, list[bytes]]] = {name: {} for name in collections}
        self.begun: set[int] = set()
        self.left: dict[int, str] = {}  # nobody commits them, or rolls them back
        self.flushed: dict[str, int] = dict.fromkeys(collections, 0)
        self.forced = 0

    async def wave(self, number: int, server: StandaloneProcess) -> None:
        """One kill while every transaction of the wave has been begun and none has ended."""
        all_open, flushed = asyncio.Barrier(OPEN + 1), self.random.choice(self.vchannels)

        async def one(index: int) -> None:
            vchannel = self.vchannels[index % len(self.vchannels)]
            contents = [b"%d/%d/%d" % (number, index, part) for part in range(BODIES)]
            leave = self.random.random() < 0.1
            txn = self.wal.txn(vchannel, keepalive=SHORT_S if leave else KEEPALIVE_S)
            await self.fill(txn, contents[:2])
            await txn.flush()
            self.begun.add(txn.txn_id)
            await all_open.wait()
            if leave:
                self.left[txn.txn_id] = vchannel
                return
            try:
                await self.fill(txn, contents[2:])
                await self.finish(txn, contents)
            except WalError as error:
                ended = error.code is ErrorCode.TRANSACTION_EXPIRED and vchannel == flushed
                if not ended:
                    raise
                self.forced += 1

        async with asyncio.TaskGroup() as tasks:
            for index in range(OPEN):
                tasks.create_task(one(index))
            await all_open.wait()
            await asyncio.sleep(self.random.uniform(0, 0.02))  # some are being committed by now
            await server.kill()
            await server.start()
            flush = await self.wal.append(manual_flush(flushed, self.collections[flushed]))
            self.flushed[flushed] = flush.time_tick

    @property
    def must_expire(self) -> set[int]:
        """What no flush has ended: only the keepalive does."""
        return {txn_id for txn_id, name in self.left.items() if txn_id > self.flushed[name]}

    async def fill(self, txn: Txn, contents: list[bytes]) -> None:
        for content in contents:
            make = self.random.choice([insert, delete])
            await txn.append(make(txn.vchannel, content))
            if self.random.random() < 0.3:
                await self.wal.append(insert(txn.vchannel, b"plain"))

    async def finish(self, txn: Txn, contents: list[bytes]) -> None:
        if self.random.random() < 0.2:
            await txn.rollback()
            return
        result = await txn.commit()
        assert txn.state is TxnState.COMMITTED
        assert result is not None
        self.committed[txn.vchannel][result.time_tick] = contents


async def read_whole(wal: StreamingClient, vchannel: str) -> dict[int, list[bytes]]:
    reader = wal.reader(vchannel, follow=False)
    return {
        batch.time_tick: batch.payloads
        async for batch in reader.batches()
        if isinstance(batch, ImmutableTxnMessage)
    }


async def expired(wal: StreamingClient) -> set[int]:
    """The transactions of which the logs say that their keepalive ended them."""
    found: set[int] = set()
    for pchannel in wal.topology().assignments:
        async for piece in wal.entries(pchannel):
            for each in piece:
                if each.entry.envelope.type == MessageType.ROLLBACK_TXN:
                    header, _ = decode_body(each.entry.body)
                    if headers_pb2.RollbackTxnHeader.FromString(header).expired:
                        found.add(each.entry.envelope.txn.txn_id)
    return found


@asynccontextmanager
async def following(wal: StreamingClient, vchannel: str) -> AsyncIterator[dict[int, list[bytes]]]:
    """What a reader gets that lives through all kills."""
    got: dict[int, list[bytes]] = {}

    async def follow() -> None:
        async for batch in wal.reader(vchannel).batches():
            if isinstance(batch, ImmutableTxnMessage):
                assert batch.time_tick not in got, "each transaction once"
                got[batch.time_tick] = batch.payloads

    task = asyncio.create_task(follow())
    yield got
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture(params=["rocksdb", pytest.param("pulsar", marks=pytest.mark.pulsar)])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> StandaloneProcess:
    backend = request.param
    if backend == "pulsar":
        backend = request.getfixturevalue("pulsar_url")
    return StandaloneProcess(tmp_path / "data", pchannels=2, backend=backend, prefix="txn")


@pytest.mark.slow
@pytest.mark.timeout(120 + (30 + OPEN // 10) * WAVES)
async def test_transactions_open_at_a_kill_survive_it(server: StandaloneProcess) -> None:
    await server.start()
    try:
        async with StreamingClient.connect(server.address) as wal:
            made = [await wal.create_collection(name, shards=2) for name in ("a", "b")]
            work = Work(wal, {each: info.collection_id for info in made for each in info.vchannels})
            first = work.vchannels[0]
            async with following(wal, first) as followed:
                for number in range(WAVES):
                    await work.wave(number, server)
                assert len(work.begun) == OPEN * WAVES
                async with asyncio.timeout(30):
                    while not work.must_expire <= await expired(wal):  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
                for vchannel, committed in work.committed.items():
                    assert await read_whole(wal, vchannel) == committed
                await until(lambda: len(followed) >= len(work.committed[first]), 20)
            assert followed == work.committed[first]
            whole = sum(map(len, work.committed.values()))
            print(
                f"{len(work.begun)} begun, {whole} committed, {len(work.left)} left alone, "
                f"{work.forced} ended by a flush while they went on"
            )
            assert work.forced
            assert work.left.keys() & await expired(wal)
    finally:
        await server.kill()
