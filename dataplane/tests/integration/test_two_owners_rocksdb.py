"""Two owners of one PChannel in one process on RocksDB; a second process is refused."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from walplane.backends.interface import Backend
from walplane.backends.registry import open_backend
from walplane.message import codec
from walplane.message.ids import MessageID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.testkit.outside import TestAuthority, TestNode, TestOracle
from walplane.testkit.owners import read_log
from walplane.testkit.waiting import until
from walplane.testkit.wal_owner import numbered_entry
from walplane.testkit.wal_world import create
from walplane.wal.config import WALConfig
from walplane.wal.ports import AppendResult
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind
from walplane.wal.wal import WAL

CH = "fight_0"
IN_FLIGHT = 64
BACK_WITHIN_S = 2.0
CONFIG = WALConfig(frames_in_flight=IN_FLIGHT, frame_bytes=1)


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[Backend]:
    opened = await open_backend(f"rocksdb:{tmp_path / 'log'}")
    yield opened
    await opened.close()


class Thrasher:
    """Appends without end, 64 frames in flight, also when it is refused."""

    def __init__(self, wal: WAL) -> None:
        self.wal = wal
        self.acked: dict[int, tuple[float, AppendResult]] = {}
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        slots = asyncio.Semaphore(IN_FLIGHT)

        async def one(number: int) -> None:
            try:
                result = await self.wal.append(numbered_entry(CH, self.wal.term, number))
                self.acked[number] = (time.monotonic(), result)
            except WalError as error:
                assert error.code in {ErrorCode.CHANNEL_FENCED, ErrorCode.UNMATCHED_CHANNEL_TERM}
                await asyncio.sleep(0.01)  # the newer owner shares this loop
            finally:
                slots.release()

        async with asyncio.TaskGroup() as tasks:
            number = 0
            while True:
                await slots.acquire()
                tasks.create_task(one(number))
                number += 1

    async def acknowledged(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.acked) < count:  # noqa: ASYNC110 - a count, not an event
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


class Tail:
    """A reader that begins before the fight and goes on with the next owner where it was."""

    def __init__(self, wal: WAL) -> None:
        self.owners = [wal]
        self.seen: list[MessageID] = []
        self._tick = 0
        self._start = ScanStart(StartKind.EARLIEST)
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        owner = 0
        while True:
            with suppress(WalError):  # that owner is over
                await self._read(self.owners[owner])
            owner += 1
            await until(lambda owner=owner: len(self.owners) > owner, 30)  # type: ignore[misc]

    async def _read(self, wal: WAL) -> None:
        async with wal.scan(ScanRequest(self._start)) as scanner:
            while True:
                batch = await scanner.next()
                self.seen.extend(item.message_id for item in batch.entries)
                if batch.entries:
                    self._start = ScanStart(StartKind.TOKEN, token=batch.entries[-1].token())
                self._tick = batch.watermark

    async def until_tick(self, tick: int) -> None:
        """Ends it once it has everything up to `tick`."""
        await until(lambda: self._tick >= tick or self._task.done(), 30)
        self._task.cancel()
        await asyncio.wait([self._task])
        assert self._tick >= tick


async def test_the_older_owner_acknowledges_nothing_once_the_newer_serves(backend: Backend) -> None:
    oracle, authority = TestOracle(), TestAuthority()
    nodes = [TestNode(backend, oracle, authority, Runtime.system()) for _ in range(2)]
    old = Thrasher(await nodes[0].open(CH, 1, CONFIG))
    await create(old.wal, f"{CH}_1v0")
    tail = Tail(old.wal)
    await old.acknowledged(500)
    asked = time.monotonic()
    new = Thrasher(await nodes[1].open(CH, 2, CONFIG))
    serving = time.monotonic()
    tail.owners.append(new.wal)
    await new.acknowledged(2000)
    assert min(at for at, _ in new.acked.values()) - asked < BACK_WITHIN_S
    assert not [at for at, _ in old.acked.values() if at > serving]
    times = sorted(at for at, _ in new.acked.values())
    gap = max(b - a for a, b in itertools.pairwise(times))
    print(
        f"newer owner served after {serving - asked:.3f} s, longest gap {gap:.3f} s (disk included)"
    )
    for thrasher in (old, new):
        await thrasher.stop()
    await tail.until_tick(max(result.first_tick for _, result in new.acked.values()))
    for thrasher in (old, new):
        await thrasher.wal.close()
    for node in nodes:
        await node.reserve.close()
    log = await read_log(backend, CH, 3)
    assert [item.first_tick for item in log] == sorted({item.first_tick for item in log})
    payloads = [payload for item in log for payload in codec.decode_body(item.entry.body)[1]]
    assert len(set(payloads)) == len(payloads), "nothing is in the log twice"
    assert tail.seen == [item.message_id for item in log[: len(tail.seen)]], "one order for all"
    items = {item.message_id: item for item in log}
    for thrasher in (old, new):
        for number, (_, result) in thrasher.acked.items():
            stored = codec.decode_body(items[result.message_id].entry.body)[1]
            assert stored == [b"%d/%d" % (thrasher.wal.term, number)]
