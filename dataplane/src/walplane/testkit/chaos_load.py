"""Clients that append without pause while their server is hurt. Layer: testkit.

Contract: every append is in the history before it is sent, with the outcome it had in the end. A
gap is the time between two acknowledgements of one VChannel.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from walplane.client import AppendResult, PartialAppendError, StreamingClient
from walplane.client.config import ClientConfig
from walplane.message.builder import MutableMessage, insert
from walplane.rpc.errors import WalError
from walplane.testkit.history import DEFINITE, Attempt, History, Outcome

CONNECT_S = 120.0
"""A program that starts while the server is away waits for it so long."""

PATIENT = ClientConfig(append_timeout_s=600.0)


@dataclass(frozen=True)
class LoadPlan:
    """What the clients do.

    Attributes:
        clients: that append at the same time.
        batch: messages of one call at most; calls of one message are mixed in.
        in_flight: calls of one client at a time.
        payload_bytes: of one message.
        seed: of all choices made here.
    """

    clients: int = 4
    batch: int = 64
    in_flight: int = 8
    payload_bytes: int = 128
    seed: int = 0


class ChaosLoad:
    """Clients that append until they are told to stop."""

    def __init__(
        self, address: str, vchannels: Sequence[str], plan: LoadPlan, history: History
    ) -> None:
        """Appends nothing until `running`."""
        self._address = address
        self._vchannels = vchannels
        self._plan = plan
        self._history = history
        self._stop = False
        self._acked = self._in_flight = 0
        self._progress = asyncio.Event()
        self._going = asyncio.Event()
        self._going.set()
        self._last: dict[str, float] = {}
        self._gaps: dict[str, float] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Appends while the body runs; every call has its outcome when this ends."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._plan.clients):
                tasks.create_task(self._client(f"client-{number}", self._plan.seed + number))
            try:
                yield
            finally:
                self._stop = True

    async def acknowledged_more(self, count: int) -> int:
        """Waits for `count` more acknowledgements; returns how many there were."""
        before = self._acked
        while self._acked - before < count:
            self._progress.clear()
            await self._progress.wait()
        return self._acked - before

    async def pause(self) -> None:
        """Appends nothing more; returns when nothing is in flight."""
        self._going.clear()
        while self._in_flight:
            self._progress.clear()
            await self._progress.wait()

    def go_on(self, since: float) -> None:
        """After `pause`; gaps count from `since` on, in seconds of the monotonic clock."""
        self._last = dict.fromkeys(self._last, since)
        self._going.set()

    def count_gaps(self) -> None:
        """Forgets the gaps that were."""
        self._gaps.clear()

    async def longest_gap(self, since: float) -> float:
        """Waits until every VChannel was acknowledged after `since`; the longest gap, in seconds.

        `since` is in seconds of the monotonic clock.
        """
        while any(self._last.get(vchannel, 0.0) <= since for vchannel in self._vchannels):
            self._progress.clear()
            await self._progress.wait()
        return max(self._gaps.values(), default=0.0)

    async def _client(self, name: str, seed: int) -> None:
        random_source = random.Random(seed)  # noqa: S311
        numbers = itertools.count()
        window = asyncio.Semaphore(self._plan.in_flight)
        async with (
            StreamingClient.connect(self._address, timeout=CONNECT_S, config=PATIENT) as wal,
            asyncio.TaskGroup() as calls,
        ):
            while not self._stop:
                await window.acquire()
                await self._going.wait()
                self._in_flight += 1
                size = random_source.choice((1, self._plan.batch))
                attempts, messages = self._next(name, numbers, size, random_source)
                call = calls.create_task(self._append(wal, attempts, messages))
                call.add_done_callback(lambda _: window.release())

    def _next(
        self, name: str, numbers: Iterator[int], size: int, random_source: random.Random
    ) -> tuple[list[Attempt], list[MutableMessage]]:
        attempts: list[Attempt] = []
        for number in itertools.islice(numbers, size):
            vchannel = random_source.choice(self._vchannels)
            payload = f"{name}/{number}/".encode().ljust(self._plan.payload_bytes, b".")
            attempts.append(self._history.begin(name, vchannel, payload))
        return attempts, [insert(each.vchannel, each.payload) for each in attempts]

    async def _append(
        self, wal: StreamingClient, attempts: Sequence[Attempt], messages: Sequence[MutableMessage]
    ) -> None:
        outcomes: Sequence[AppendResult | WalError]
        try:
            outcomes = await wal.append_many(messages)
        except PartialAppendError as error:
            outcomes = error.outcomes
        now = time.monotonic()
        self._in_flight -= 1
        for attempt, outcome in zip(attempts, outcomes, strict=True):
            if isinstance(outcome, WalError):
                if outcome.code in DEFINITE:
                    attempt.outcome = Outcome.REFUSED
                continue
            attempt.outcome = Outcome.ACKNOWLEDGED
            attempt.message_id = outcome.message_id
            attempt.time_tick = outcome.time_tick
            self._acked += 1
            gap = now - self._last.get(attempt.vchannel, now)
            self._gaps[attempt.vchannel] = max(gap, self._gaps.get(attempt.vchannel, 0.0))
            self._last[attempt.vchannel] = now
        self._progress.set()
