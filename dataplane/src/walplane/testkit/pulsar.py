"""What tests of the Pulsar backend share: faults, a load of numbered records, its judge.

Layer: testkit.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence

import httpx

from walplane.backends.interface import Record, TopicWriter
from walplane.backends.pulsar.config import PulsarConfig
from walplane.message.ids import RecordID
from walplane.rpc.errors import WalError

IN_FLIGHT = 64


async def unload(url: str, topic: str) -> None:
    """Makes the broker close `topic` and load it anew; its ledger is closed as well."""
    await admin(url, "PUT", f"/persistent/{PulsarConfig.parse(url).namespace}/{topic}/unload")


async def admin(url: str, method: str, path: str, body: object = None) -> httpx.Response:
    """One successful call of the admin service of the backend URL `url`."""
    base = f"{PulsarConfig.parse(url).admin_url}/admin/v2"
    async with httpx.AsyncClient(timeout=20) as http:
        answer = await http.request(method, base + path, json=body)
    return answer.raise_for_status()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Waits until `condition` holds in the broker, which tells nobody when it changes."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.05)


class Load:
    """Appends `old 0`, `old 1`, … with 64 records in flight until it is stopped or refused."""

    def __init__(self, writer: TopicWriter) -> None:
        """Starts at once."""
        self._writer = writer
        self._window = asyncio.Semaphore(IN_FLIGHT)
        self._stopping = asyncio.Event()
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self.acknowledged: dict[bytes, RecordID | None] = {}
        self.refused: list[WalError] = []
        self._task = asyncio.ensure_future(self._run())

    async def progress(self, count: int) -> None:
        """Waits for `count` acknowledgements from now on, thirty seconds at most."""
        while not self._arrived.empty():
            self._arrived.get_nowait()
        async with asyncio.timeout(30):
            for _ in range(count):
                await self._arrived.get()

    async def stop(self) -> None:
        """Appends nothing more and waits for what is in flight."""
        self._stopping.set()
        await asyncio.wait_for(self._task, 30)

    async def ended(self) -> None:
        """Waits until an append was refused and all that was in flight has ended."""
        await asyncio.wait_for(self._task, 30)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                await self._window.acquire()
                if self._stopping.is_set():
                    return
                group.create_task(self._append(b"old %d" % number))

    async def _append(self, data: bytes) -> None:
        try:
            self.acknowledged[data] = await self._writer.append(data)
        except WalError as error:
            self.refused.append(error)
            self._stopping.set()
        self._arrived.put_nowait(data)
        self._window.release()


def judge(log: Sequence[Record], acknowledged: Mapping[bytes, RecordID | None]) -> None:
    """Fails the test unless the log is one order without repeats that holds what was told.

    Every acknowledged record is there under its true id; records are `old N …` or `new …`, no old
    one stands behind a new one, and the old ones are in order and without a gap.
    """
    ids = {record.data: record.record_id for record in log}
    assert len(ids) == len(log), "a record is doubled"  # noqa: S101
    lost = [data for data in acknowledged if data not in ids]
    assert not lost, f"{len(lost)} acknowledged records are lost, first {lost[0]!r}"  # noqa: S101
    wrong = [data for data, told in acknowledged.items() if told not in (None, ids[data])]
    assert not wrong, f"{len(wrong)} acknowledged ids are not true"  # noqa: S101
    owners = [record.data.split()[0] for record in log]
    first_new = owners.index(b"new") if b"new" in owners else len(owners)
    assert b"old" not in owners[first_new:], "an old record stands behind a new one"  # noqa: S101
    numbers = [int(record.data.split()[1]) for record in log[:first_new]]
    assert numbers == list(range(len(numbers))), "the old records have a gap"  # noqa: S101
