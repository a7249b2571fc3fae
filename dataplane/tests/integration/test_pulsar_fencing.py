"""What the Pulsar backend alone guarantees about two owners of one topic, in two processes.

This file is also the old owner's program: it appends numbered records, 64 in flight, prints what
happened to each, and closes its client at the first refusal.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from walplane.backends.interface import Backend, BackendSession, TopicWriter
from walplane.backends.registry import open_backend
from walplane.message.ids import RecordID
from walplane.rpc.errors import WalError
from walplane.testkit.conformance.harness import REFUSED, read_to_end
from walplane.testkit.pulsar import judge, unload

pytestmark = pytest.mark.pulsar

IN_FLIGHT = 64
BACK_WITHIN_S = 2.0
WATCHDOG_S = 1.0


class Owner:
    """A rightful owner that opens again, under the same term, when nothing is acknowledged."""

    def __init__(self, backend: Backend, topic: str, term: int) -> None:
        self._backend = backend
        self._topic = topic
        self._term = term
        self._opens = 0
        self._session: BackendSession | None = None
        self._writer: TopicWriter | None = None
        self.acknowledged: dict[bytes, RecordID | None] = {}
        self.acknowledged_at: list[float] = []

    async def open(self) -> None:
        if self._session is not None:
            await self._session.close()
        self._session = await self._backend.session()
        self._opens += 1
        self._writer = await self._session.open_writer(self._topic, self._term, self._opens)

    async def append(self, data: bytes) -> None:
        """One record; unknown outcomes are tried again under another name."""
        for attempt in itertools.count():
            assert self._writer is not None
            named = b"%b try %d" % (data, attempt)
            try:
                record_id = await asyncio.wait_for(self._writer.append(named), WATCHDOG_S)
            except (WalError, TimeoutError) as error:
                assert isinstance(error, TimeoutError) or error.code in REFUSED
                await self.open()
                continue
            self.acknowledged[named] = record_id
            self.acknowledged_at.append(time.monotonic())
            return

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def longest_gap(self) -> float:
        return max(b - a for a, b in itertools.pairwise(self.acknowledged_at))


@asynccontextmanager
async def old_owner(url: str, topic: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, url, topic, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def lines(process: asyncio.subprocess.Process, count: int | None = None) -> list[list[str]]:
    """The next `count` lines of the old owner, or all to its end."""
    assert process.stdout is not None
    got: list[list[str]] = []
    async with asyncio.timeout(30):
        while count is None or len(got) < count:
            line = await process.stdout.readline()
            if not line:
                break
            got.append(line.decode().split())
    return got


@pytest.mark.parametrize("unloaded", [False, True], ids=["stopped", "stopped-and-unloaded"])
async def test_old_owner_wakes_after_a_takeover(pulsar_url: str, unloaded: bool) -> None:
    """SIGSTOP with 64 in flight, takeover, SIGCONT: the new owner is back within two seconds."""
    topic = f"fence-{secrets.token_hex(6)}"
    backend = await open_backend(pulsar_url)
    owner = Owner(backend, topic, term=2)
    async with old_owner(pulsar_url, topic) as old:
        told = await lines(old, 3 * IN_FLIGHT)
        old.send_signal(signal.SIGSTOP)
        await owner.open()
        await owner.append(b"new 0")
        if unloaded:
            await unload(pulsar_url, topic)
            await owner.append(b"new 1")
            await asyncio.sleep(1)  # until the owner's client is long connected again
        old.send_signal(signal.SIGCONT)
        rest = asyncio.ensure_future(lines(old))
        end = time.monotonic() + 5
        for number in itertools.count(2):
            await owner.append(b"new %d" % number)
            if rest.done() and time.monotonic() > end:
                break
            await asyncio.sleep(0.01)
        told += rest.result()
    session = await backend.session()
    log = await read_to_end(session, topic)
    old_acks: dict[bytes, RecordID | None] = {
        f"old {number}".encode(): (int(ledger), int(entry))
        for kind, number, ledger, entry in told
        if kind == "ack"
    }
    judge(log, {**old_acks, **owner.acknowledged})
    assert {number for kind, number, *_ in told if kind == "refused"} == {"CHANNEL_FENCED"}
    assert owner.longest_gap < BACK_WITHIN_S, f"{owner.longest_gap:.2f} s without an append"
    print(f"owner away for {owner.longest_gap:.3f} s at most")
    await session.close()
    await owner.close()
    await backend.close()


async def _old_owner(url: str, topic: str) -> None:
    backend = await open_backend(url)
    session = await backend.session()
    await session.ensure_topic(topic)
    writer = await session.open_writer(topic, 1, 0)
    window = asyncio.Semaphore(IN_FLIGHT)
    refused = asyncio.Event()

    async def one(number: int) -> None:
        try:
            record_id = await writer.append(b"old %d" % number)
        except WalError as error:
            print("refused", error.code.name, "-", "-", flush=True)
            refused.set()
        else:
            assert record_id is not None
            print("ack", number, *record_id, flush=True)
        window.release()

    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            await window.acquire()
            if refused.is_set():
                break
            group.create_task(one(number))
    await session.close()
    await backend.close()


if __name__ == "__main__":
    asyncio.run(_old_owner(*sys.argv[1:]))
