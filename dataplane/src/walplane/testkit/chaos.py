"""A standalone process is hurt under load, again and again, and judged. Layer: testkit.

Contract: several clients append without pause while the server is hurt as soon as enough was
acknowledged, and started again on the same data; clients and readers go on by themselves. One
reader per channel lives through everything, another one is made anew after each stroke from the
token the last one kept. At the end everything is read once more, and the whole history is judged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from walplane.client import StreamingClient
from walplane.message.ids import ResumeToken
from walplane.message.registry import MessageType
from walplane.message.txn_view import AnyBatch
from walplane.testkit.chaos_load import CONNECT_S, ChaosLoad, LoadPlan
from walplane.testkit.history import Delivered, History, Reading, check
from walplane.testkit.standalone import StandaloneProcess
from walplane.testkit.strokes import Stroke

COLLECTION = "chaos"
_CATCH_UP_S = 60.0


@dataclass(frozen=True)
class ChaosPlan:
    """What is done to the server.

    Attributes:
        strokes: one after the other.
        acks_between: acknowledgements before each stroke, at least.
        shards: VChannels of the collection.
        load: what appends meanwhile.
    """

    strokes: Sequence[Stroke]
    acks_between: int = 10_000
    shards: int = 4
    load: LoadPlan = field(default_factory=LoadPlan)


@dataclass
class ChaosReport:
    """What came of it.

    Attributes:
        history: everything that happened.
        violations: of the invariants; empty when all is well.
        recovery_s: per stroke, until the server was ready again.
        unavailable_s: per stroke, the longest time between two acknowledgements of a VChannel.
        acked_between: per stroke, acknowledgements since the one before.
    """

    history: History = field(default_factory=History)
    violations: list[str] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)
    unavailable_s: list[float] = field(default_factory=list)
    acked_between: list[int] = field(default_factory=list)

    def latest(self) -> str:
        """What came of the latest stroke."""
        return (
            f" after {self.acked_between[-1]:,} acknowledgements; ready again in "
            f"{self.recovery_s[-1]:.2f} s, longest gap {self.unavailable_s[-1]:.2f} s"
        )

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
    async with StreamingClient.connect(server.address) as wal:
        info = await wal.create_collection(COLLECTION, plan.shards)
        load = ChaosLoad(server.address, info.vchannels, plan.load, report.history)
        async with _readers(server.address, info.vchannels, report.history) as readers:
            async with load.running():
                for number, stroke in enumerate(plan.strokes, start=1):
                    await _strike(stroke, server, load, plan, report)
                    readers.renew()
                    say(f"{number} of {len(plan.strokes)}: {stroke.name}{report.latest()}")
                await load.acknowledged_more(plan.acks_between)
            await _read_all(wal, info.vchannels, report.history)
            await readers.catch_up(report.history)
    report.violations = await asyncio.to_thread(check, report.history)
    return report


async def _strike(
    stroke: Stroke,
    server: StandaloneProcess,
    load: ChaosLoad,
    plan: ChaosPlan,
    report: ChaosReport,
) -> None:
    report.acked_between.append(await load.acknowledged_more(plan.acks_between))
    load.count_gaps()
    report.recovery_s.append(await stroke.hit(server, load))
    report.unavailable_s.append(await load.longest_gap(time.monotonic()))


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
        async with StreamingClient.connect(self._address, timeout=CONNECT_S) as wal:
            reader = wal.reader(vchannel, start="earliest")
            async for batch in reader.batches():
                _record(self._lasting[vchannel], batch)
                self._grown.set()

    async def _renewal(self, vchannel: str) -> None:
        token = self._tokens[vchannel]
        async with StreamingClient.connect(self._address, timeout=CONNECT_S) as wal:
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
