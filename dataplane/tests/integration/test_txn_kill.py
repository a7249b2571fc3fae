"""kill -9 of a standalone cluster on RocksDB with 50 transactions open: they survive, whole.

`WALPLANE_TXN_WAVES` sets the number of kills (4), `WALPLANE_TXN_OPEN` how many are open at each.
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
from walplane.message.builder import delete, insert
from walplane.message.txn_view import ImmutableTxnMessage
from walplane.testkit.standalone import StandaloneProcess

OPEN = int(os.environ.get("WALPLANE_TXN_OPEN", "50"))
WAVES = int(os.environ.get("WALPLANE_TXN_WAVES", "4"))
BODIES = 6


class Work:
    """Waves of transactions, all open at once when the process is killed."""

    def __init__(self, wal: StreamingClient, vchannels: list[str], seed: int) -> None:
        self.wal = wal
        self.vchannels = vchannels
        self.random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.committed: dict[str, dict[int, list[bytes]]] = {name: {} for name in vchannels}
        self.begun: set[int] = set()

    async def wave(self, number: int, server: StandaloneProcess) -> None:
        """One kill while every transaction of the wave has been begun and none has ended."""
        all_open = asyncio.Barrier(OPEN + 1)

        async def one(index: int) -> None:
            vchannel = self.vchannels[index % len(self.vchannels)]
            contents = [b"%d/%d/%d" % (number, index, part) for part in range(BODIES)]
            txn = self.wal.txn(vchannel, keepalive=600)
            await self.fill(txn, contents[:2])
            await txn.flush()
            self.begun.add(txn.txn_id)
            await all_open.wait()
            await self.fill(txn, contents[2:])
            await self.finish(txn, contents)

        async with asyncio.TaskGroup() as tasks:
            for index in range(OPEN):
                tasks.create_task(one(index))
            await all_open.wait()
            await asyncio.sleep(self.random.uniform(0, 0.02))  # some are being committed by now
            await server.kill()
            await server.start()

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


@pytest.mark.slow
@pytest.mark.timeout(120 + (30 + OPEN // 10) * WAVES)
async def test_transactions_open_at_a_kill_survive_it(tmp_path: Path) -> None:
    server = StandaloneProcess(tmp_path / "data", pchannels=2)
    await server.start()
    try:
        async with StreamingClient.connect(server.address) as wal:
            names = [(await wal.create_collection(n, shards=2)).vchannels for n in ("a", "b")]
            vchannels = [vchannel for pair in names for vchannel in pair]
            work = Work(wal, vchannels, seed=1)
            async with following(wal, vchannels[0]) as followed:
                for number in range(WAVES):
                    await work.wave(number, server)
                assert len(work.begun) == OPEN * WAVES
                for vchannel in vchannels:
                    assert await read_whole(wal, vchannel) == work.committed[vchannel]
                async with asyncio.timeout(20):
                    while len(followed) < len(work.committed[vchannels[0]]):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
            assert followed == work.committed[vchannels[0]]
    finally:
        await server.kill()
