"""kill -9 of a standalone process under load, again and again, and a verdict. Layer: testkit.

Contract: several clients append without pause while the server is killed as soon as enough was
acknowledged, and started again on the same data; clients and readers go on by themselves. One
reader per channel lives through everything, another one is made anew after each kill from the
token the last one kept. At the end everything is read once more, and the whole history is judged.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from walplane.client import AppendResult, PartialAppendError, StreamingClient
from walplane.message.builder import MutableMessage, insert
from walplane.message.ids import ResumeToken
from walplane.message.registry import MessageType
from walplane.message.txn_view import AnyBatch
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.history import Attempt, Delivered, History, Outcome, Reading, check
from walplane.testkit.standalone import StandaloneProcess

COLLECTION = "chaos"
_DEFINITE = {ErrorCode.INVALID_ARGUMENT, ErrorCode.CHANNEL_NOT_EXIST, ErrorCode.RESOURCE_ACQUIRED}
_CATCH_UP_S = 60.0


@dataclass(frozen=True)
class ChaosPlan:
    """What is done to the server.

    Attributes:
        kills: how often it is killed.
        acks_between: acknowledgements before each kill, at least.
        clients: that append at the same time.
        shards: VChannels of the collection.
        batch: messages of one call at most; calls of one message are mixed in.
        in_flight: calls of one client at a time.
        payload_bytes: of one message.
        seed: of all choices made here.
    """

    kills: int = 3
    acks_between: int = 10_000
    clients: int = 4
    shards: int = 4
    batch: int = 64
    in_flight: int = 8
    payload_bytes: int = 128
    seed: int = 0


@dataclass
class ChaosReport:
    """What came of it.

    Attributes:
        history: everything that happened.
        violations: of the invariants; empty when all is well.
        recovery_s: per kill, from SIGKILL to ready.
        acked_between: per kill, acknowledgements since the one before.
    """

    history: History = field(default_factory=History)
    violations: list[str] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)
    acked_between: list[int] = field(default_factory=list)

    @property
    def not_acknowledged(self) -> int:
        """Appends that clients did not carry through the kills."""
        return len(self.history.attempts) - self.history.acknowledged


async def run_chaos(
    server: StandaloneProcess, plan: ChaosPlan, say: Callable[[str], None]
) -> ChaosReport:
    """Carries out `plan` on a server that runs; it runs when this returns.

    Raises:
        RuntimeError: the server did not come back.
        TimeoutError: a reader did not catch up.
    """
    report = ChaosReport()
    random_source = random.Random(plan.seed)  # noqa: S311 - choices of a test, to be repeated
    async with StreamingClient.connect(server.address) as wal:
        info = await wal.create_collection(COLLECTION, plan.shards)
        load = _Load(server.address, info.vchannels, plan, report.history)
        async with _readers(server.address, info.vchannels, report.history) as readers:
            async with load.running():
                for number in range(plan.kills):
                    await _kill_once(server, load, plan, random_source, report)
                    readers.renew()
                    say(
                        f"kill {number + 1} of {plan.kills} after {report.acked_between[-1]:,} "
                        f"acknowledgements, ready again in {report.recovery_s[-1]:.2f} s"
                    )
                await load.acknowledged_more(plan.acks_between)
            await _read_all(wal, info.vchannels, report.history)
            await readers.catch_up(report.history)
    report.violations = await asyncio.to_thread(check, report.history)
    return report


async def _kill_once(
    server: StandaloneProcess,
    load: _Load,
    plan: ChaosPlan,
    random_source: random.Random,
    report: ChaosReport,
) -> None:
    more = plan.acks_between + random_source.randrange(plan.acks_between // 4 + 1)
    acked = await load.acknowledged_more(more)
    killed = time.monotonic()
    await server.kill()
    await server.start()
    report.recovery_s.append(time.monotonic() - killed)
    report.acked_between.append(acked)


class _Load:
    """Clients that append until they are told to stop."""

    def __init__(
        self, address: str, vchannels: Sequence[str], plan: ChaosPlan, history: History
    ) -> None:
        self._address = address
        self._vchannels = vchannels
        self._plan = plan
        self._history = history
        self._stop = False
        self._acked = 0
        self._progress = asyncio.Event()

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

    async def _client(self, name: str, seed: int) -> None:
        random_source = random.Random(seed)  # noqa: S311
        numbers = itertools.count()
        window = asyncio.Semaphore(self._plan.in_flight)
        async with (
            StreamingClient.connect(self._address) as wal,
            asyncio.TaskGroup() as calls,
        ):
            while not self._stop:
                await window.acquire()
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
        for attempt, outcome in zip(attempts, outcomes, strict=True):
            if isinstance(outcome, WalError):
                if outcome.code in _DEFINITE:
                    attempt.outcome = Outcome.REFUSED
                continue
            attempt.outcome = Outcome.ACKNOWLEDGED
            attempt.message_id = outcome.message_id
            attempt.time_tick = outcome.time_tick
            self._acked += 1
        self._progress.set()


class _Readers:
    """Readers that follow from the beginning: one that lives on, one that is made anew."""

    def __init__(self, address: str, vchannels: Sequence[str], history: History) -> None:
        self._address = address
        self._vchannels = vchannels
        self._lasting = {v: history.reading("lasting", v, complete=False) for v in vchannels}
        self._renewed = {v: history.reading("renewed", v, complete=False) for v in vchannels}
        self._tokens: dict[str, ResumeToken | None] = dict.fromkeys(vchannels)
        self._tasks: list[asyncio.Task[None]] = []
        self._renewing: list[asyncio.Task[None]] = []
        self._grown = asyncio.Event()

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._last(vchannel)) for vchannel in self._vchannels]
        self.renew()

    def renew(self) -> None:
        """The program that holds the second reader ends and begins again from its token."""
        for task in self._renewing:
            task.cancel()
        self._tasks += self._renewing
        self._renewing = [asyncio.create_task(self._renewal(v)) for v in self._vchannels]

    async def stop(self) -> None:
        tasks = [*self._tasks, *self._renewing]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def catch_up(self, history: History) -> None:
        """Waits until both kinds of readers have what the complete reading has."""
        whole = {each.vchannel: len(each.messages) for each in history.readings if each.complete}
        readings = [*self._lasting.values(), *self._renewed.values()]
        async with asyncio.timeout(_CATCH_UP_S):
            while any(len(each.messages) < whole[each.vchannel] for each in readings):
                self._grown.clear()
                await self._grown.wait()

    async def _last(self, vchannel: str) -> None:
        async with StreamingClient.connect(self._address) as wal:
            reader = wal.reader(vchannel, start="earliest")
            async for batch in reader.batches():
                _record(self._lasting[vchannel], batch)
                self._grown.set()

    async def _renewal(self, vchannel: str) -> None:
        token = self._tokens[vchannel]
        async with StreamingClient.connect(self._address) as wal:
            reader = wal.reader(vchannel, start="earliest" if token is None else str(token))
            async for batch in reader.batches():
                _record(self._renewed[vchannel], batch)
                self._tokens[vchannel] = reader.token
                self._grown.set()


@asynccontextmanager
async def _readers(
    address: str, vchannels: Sequence[str], history: History
) -> AsyncIterator[_Readers]:
    readers = _Readers(address, vchannels, history)
    readers.start()
    try:
        yield readers
    finally:
        with suppress(asyncio.CancelledError):
            await readers.stop()


async def _read_all(wal: StreamingClient, vchannels: Sequence[str], history: History) -> None:
    for vchannel in vchannels:
        reading = history.reading("whole", vchannel, complete=True)
        reader = wal.reader(vchannel, start="earliest", follow=False)
        async for batch in reader.batches():
            _record(reading, batch)


def _record(reading: Reading, batch: AnyBatch) -> None:
    if batch.type is not MessageType.INSERT:
        return
    reading.messages.extend(
        Delivered(message.vchannel, message.payload, message.message_id, message.time_tick)
        for message in batch
    )
