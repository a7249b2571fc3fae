"""Owner processes under test, and what must hold of a log that several of them wrote.

Layer: testkit. See `wal_owner` for the process itself.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from walplane.backends.interface import Backend
from walplane.backends.registry import open_backend
from walplane.message import codec
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.runtime import Runtime
from walplane.testkit.outside import TestAuthority, TestNode, TestOracle
from walplane.wal.config import WALConfig
from walplane.wal.ports import LogEntry
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind

Event = dict[str, Any]


class OwnerProcess:
    """One `walplane.testkit.wal_owner`; `events` grows as it speaks."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Use `start`."""
        self.process = process
        self.events: list[Event] = []
        self._grown = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, backend: str, pchannel: str, term: int, terms: Path, in_flight: int = 64
    ) -> OwnerProcess:
        """Starts one; `terms` is the file that holds the granted term."""
        arguments = {
            "backend": backend,
            "pchannel": pchannel,
            "term": term,
            "terms": terms,
            "in-flight": in_flight,
        }
        flags = [f"--{name}={value}" for name, value in arguments.items()]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "walplane.testkit.wal_owner"),
            *flags,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        return cls(process)

    async def until(self, condition: Callable[[list[Event]], bool], within: float = 60) -> None:
        """Waits until `condition` holds of the events."""
        async with asyncio.timeout(within), self._grown:
            await self._grown.wait_for(lambda: condition(self.events))

    async def acknowledged(self, count: int, within: float = 60) -> None:
        """Waits for `count` more acknowledgements than there are now."""
        target = len(self.acks()) + count
        await self.until(lambda _events: len(self.acks()) >= target, within)

    def acks(self, since: float = 0) -> list[Event]:
        """Its acknowledgements from `since` (monotonic seconds) on."""
        return [e for e in self.events if e["event"] == "ack" and e["at"] >= since]

    def said(self, event: str) -> bool:
        """Whether it said `event`."""
        return any(e["event"] == event for e in self.events)

    def send(self, signum: signal.Signals) -> None:
        """Sends it a signal."""
        os.kill(self.process.pid, signum)

    async def kill(self) -> None:
        """Ends it without a word, and waits for that."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading

    async def _read(self) -> None:
        if self.process.stdout is None:
            return
        async for line in self.process.stdout:
            if line.startswith(b"{"):
                async with self._grown:
                    self.events.append(json.loads(line))
                    self._grown.notify_all()


class Arena:
    """One PChannel and the processes that fight over it."""

    def __init__(self, url: str, folder: Path) -> None:
        """A new PChannel on `url`; `folder` holds the file with the granted term."""
        self.url = url
        self.pchannel = f"fight-{uuid.uuid4().hex[:8]}_0"
        self.terms = folder / "terms"
        self.owners: list[OwnerProcess] = []

    async def start(self, term: int, granted: int | None = None) -> OwnerProcess:
        """Grants `granted`, or `term`, and starts an owner under `term`."""
        self.terms.write_text(str(granted or term))
        owner = await OwnerProcess.start(self.url, self.pchannel, term, self.terms)
        self.owners.append(owner)
        return owner

    async def check(self, term: int) -> None:
        """Ends all owners and reads the log under `term`: see `check_log`."""
        for owner in self.owners:
            await owner.kill()
        backend = await open_backend(self.url)
        async with asyncio.timeout(60):
            check_log(await read_log(backend, self.pchannel, term), self.owners)
        await backend.close()

    async def close(self) -> None:
        """Ends all owners."""
        for owner in self.owners:
            await owner.kill()


def longest_gap(owner: OwnerProcess, since: float = 0) -> float:
    """The longest time between two acknowledgements of `owner`, in seconds."""
    times = [ack["at"] for ack in owner.acks(since)]
    return max((later - at for at, later in itertools.pairwise(times)), default=0.0)


async def read_log(backend: Backend, pchannel: str, term: int) -> list[LogEntry]:
    """Every entry of a log, read by an owner of `term` that opens it for that."""
    authority, oracle = TestAuthority(), TestOracle(term << 44)
    node = TestNode(backend, oracle, authority, Runtime.system())
    wal = await node.open(pchannel, term, WALConfig())
    items: list[LogEntry] = []
    request = ScanRequest(ScanStart(StartKind.EARLIEST), follow=False)
    try:
        async with wal.scan(request) as scanner:
            while not (batch := await scanner.next()).end:
                items.extend(batch.entries)
            items.extend(batch.entries)
    finally:
        await wal.close()
        await node.reserve.close()
    return items


def check_log(items: list[LogEntry], owners: list[OwnerProcess]) -> None:
    """Fails unless everything acknowledged is there once, in order, under the id it was given."""
    items = [item for item in items if item.entry.envelope.type == MessageType.INSERT]
    payloads = [codec.decode_body(item.entry.body)[1][0] for item in items]
    by_id = dict(zip((item.message_id for item in items), payloads, strict=True))
    ticks = [item.first_tick for item in items]
    problems: list[str] = []
    if len(set(payloads)) != len(payloads):
        problems.append("a message is in the log twice")
    if ticks != sorted(set(ticks)):
        problems.append("ticks do not strictly grow")
    numbers: dict[bytes, list[int]] = {}
    for payload in payloads:
        term, _, number = payload.partition(b"/")
        numbers.setdefault(term, []).append(int(number))
    problems += [f"term {t!r} out of order" for t, ns in numbers.items() if ns != sorted(ns)]
    for owner in owners:
        for ack in owner.acks():
            stored = by_id.get(MessageID.parse(ack["id"]))
            if stored is None or int(stored.partition(b"/")[2]) != ack["number"]:
                problems.append(f"acknowledged {ack['number']} at {ack['id']} reads {stored!r}")
    if problems:
        raise AssertionError("; ".join(problems[:5]))
