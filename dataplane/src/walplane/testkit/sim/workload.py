"""What users do to a simulated cluster: append, read, go on after their own death. Layer: testkit.

Contract: a `User` is a program with the product's own client. Its memory of what it was told and
what it read is the world's, so that it survives its kill: a reader goes on from the token of the
last message it took, a producer goes on with new messages. Every operation is counted.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from walplane.backends.sequenced import FIRST
from walplane.channel import is_pchannel, pchannel_of
from walplane.client import StreamingClient
from walplane.client.reader import Reader
from walplane.client.results import AppendResult, PartialAppendError
from walplane.message.builder import MutableMessage, insert
from walplane.message.codec import crc32c
from walplane.message.ids import ResumeToken
from walplane.message.registry import MessageType
from walplane.message.txn_view import AnyBatch
from walplane.message.view import Batch
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.history import DEFINITE, Attempt, Delivered, History, Outcome, Reading
from walplane.testkit.sim.cluster import SimCluster
from walplane.testkit.sim.process import PROCESS, Process
from walplane.testkit.sim.user_keys import Keys, UserKeys
from walplane.testkit.sim.user_names import Names, UserNames
from walplane.testkit.sim.user_txns import UserTxns, manual_flush

_EXPECTED = frozenset({ErrorCode.RESOURCE_ACQUIRED, ErrorCode.OUTCOME_UNKNOWN})
_RESTART_S = 0.1
_LATE_S = 0.5  # after its time a call has come back


def pchannel_read(channel: str) -> str:
    """The PChannel of what a reader reads: all of it, or a VChannel there."""
    return channel if is_pchannel(channel) else pchannel_of(channel)


def delivered(batch: AnyBatch) -> list[Delivered]:
    """The rows of a batch, for a reading."""
    return [
        Delivered(each.vchannel, each.payload, each.message_id, each.time_tick, each.txn_id)
        for each in batch
        if each.type is MessageType.INSERT
    ]


@dataclass
class Tail:
    """A reader that survives its program.

    Attributes:
        reading: all it got.
        channel: what it reads.
        token: where it goes on; None before the first message.
        watermark: highest tick up to which it has everything.
    """

    reading: Reading
    channel: str
    start: str
    token: ResumeToken | None = None
    watermark: int = 0

    def take(self, batch: AnyBatch, watermark: int) -> None:
        """The program has taken a batch."""
        self.reading.messages += delivered(batch)
        if isinstance(batch, Batch):
            self.token = ResumeToken(
                batch.last_confirmed, batch.last_tick, batch.envelope.term, batch.open_number
            )
        else:
            self.token = batch.resume_token
        self.mark(watermark)

    def begin_anew(self, reading: Reading) -> None:
        """The program reads again, from the earliest message there is."""
        reading.after = 0
        self.reading, self.token, self.start, self.watermark = reading, None, "earliest", 0

    @property
    def placed(self) -> bool:
        """Whether it was given anything to go on from."""
        return self.token is not None or self.start != "earliest"

    def mark(self, watermark: int) -> None:
        """The reader says that it has everything up to `watermark`."""
        if watermark > self.watermark:
            self.watermark = watermark
            self.reading.marks.append((len(self.reading.messages), watermark))


@dataclass
class Work:
    """What all users share.

    Attributes:
        history: what happened.
        vchannels: where they append and read; known once the collection is there.
        operations: how many were begun.
        unexpected: errors that no user should see.
        tails: readers that follow, by their names.
        names: what was appended by named producers.
        keys: what was appended under idempotency keys.
    """

    cluster: SimCluster
    history: History
    vchannels: list[str] = field(default_factory=list)
    operations: int = 0
    unexpected: list[str] = field(default_factory=list)
    tails: list[Tail] = field(default_factory=list)
    names: Names = field(default_factory=Names)
    keys: Keys = field(default_factory=Keys)

    def place(self, reading: Reading) -> None:
        """A reading from the earliest message is about to get its first piece."""
        beginning = self.cluster.cuts.beginning(pchannel_read(reading.vchannel))
        reading.floor = (beginning,) if beginning > FIRST else ()

    def overtaken(self, tail: Tail, error: WalError) -> None:
        """The log was cut off above where `tail` stood: it begins anew with what is left."""
        place = tail.token.last_confirmed if tail.token is not None else None
        first = FIRST if place is None else place.record[0]
        if self.cluster.cuts.beginning(pchannel_read(tail.channel)) <= first:
            self.unexpected.append(f"nothing was cut off above {tail.token}, but: {error}")
        self.cluster.trace.count("reader overtaken")
        again = f"{tail.reading.reader}'"
        tail.begin_anew(self.history.reading(again, tail.channel, complete=False))

    def settle(self, attempt: Attempt, outcome: AppendResult | WalError) -> None:
        """What became of an append."""
        if isinstance(outcome, AppendResult):
            attempt.outcome = Outcome.ACKNOWLEDGED
            attempt.message_id, attempt.time_tick = outcome.message_id, outcome.time_tick
            attempt.last_confirmed = outcome.last_confirmed_message_id
            return
        if outcome.code in DEFINITE:
            attempt.outcome = Outcome.REFUSED
        self.note_failure(outcome, f"{attempt.payload!r}", self._expected(attempt))

    def _expected(self, attempt: Attempt) -> Collection[ErrorCode]:
        """What an append may fail with: others may drop what is not everybody's."""
        if attempt.vchannel not in self.vchannels:
            return DEFINITE | _EXPECTED
        big = len(attempt.payload) >= self.cluster.shape.max_record_bytes
        return _EXPECTED | {ErrorCode.INVALID_ARGUMENT} if big else _EXPECTED

    @contextmanager
    def timed(self, what: str, timeout_s: float) -> Iterator[None]:
        """Around a call that is given so much time."""
        process = PROCESS.get()

        def now() -> float:
            stood = 0.0 if process is None else process.stood_s
            return asyncio.get_running_loop().time() - stood

        began = now()
        try:
            yield
        finally:
            if (took := now() - began) > timeout_s + _LATE_S:
                self.unexpected.append(f"I15 {what} took {took:.3f} s of {timeout_s:g} s")

    def note_failure(
        self, error: WalError, what: str, expected: Collection[ErrorCode] = _EXPECTED
    ) -> None:
        """`what` failed: a user has to reckon with some errors, and with damage that there was."""
        excused = error.code is ErrorCode.UNRECOVERABLE and self.cluster.broker.damaged
        if error.code not in expected and not excused:
            self.unexpected.append(f"{what} failed with {error}")


def _tagged(attempt: Attempt) -> MutableMessage:
    """An Insert; some have properties."""
    tag = crc32c(attempt.payload)
    if tag % 3:
        return insert(attempt.vchannel, attempt.payload)
    attempt.tag = f"{tag:08x}"
    return insert(attempt.vchannel, attempt.payload, properties={"tag": attempt.tag})


class User:
    """One program: it appends, it reads, and is started again when it was killed.

    Args:
        work: shared with all others.
        host: where it runs.
        appends: how many operations it has to do.
        tails: readers that it keeps.
        seed: of what it does.
    """

    def __init__(self, work: Work, host: str, appends: int, tails: list[Tail], seed: int) -> None:
        """Starts its first process."""
        self.done = asyncio.get_running_loop().create_future()
        self._work = work
        self._host = host
        self._left = appends
        self._tails = tails
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._name = 0
        self._client: StreamingClient | None = None
        self._txns = UserTxns(work, self._begin, self._random)
        self._keys = UserKeys(work, seed)
        self._names = UserNames(work, self._begin, self._random, self._spend)
        self.process = self._first_process()

    def kill(self) -> None:
        """SIGKILL; it starts again soon."""
        cluster = self._work.cluster
        process = self.process
        if not process.alive:
            return
        self._client = None
        process.kill()
        cluster.network.killed(process)
        cluster.network.world(_RESTART_S, self._restart)

    @property
    def connected(self) -> bool:
        """Whether it runs and has a client."""
        return self._client is not None and self.process.alive

    async def probe(self, timeout_s: float) -> None:
        """Whatever its client went through, it appends to every VChannel."""
        client = self._client
        if client is None:
            raise AssertionError(f"{self._host} is not there")
        # Once it may hear that a log has forgotten it, when an answer was lost.
        again = {ErrorCode.OUTCOME_UNKNOWN}
        for vchannel in self._work.vchannels:
            if not await self._probe(client, vchannel, timeout_s, again):
                await self._probe(client, vchannel, timeout_s, expected=())

    async def _probe(
        self,
        client: StreamingClient,
        vchannel: str,
        timeout_s: float,
        expected: Collection[ErrorCode],
    ) -> bool:
        self._name += 1
        payload = f"probe/{self._producer}/{self._name}".encode()
        attempt = self._work.history.begin(self._producer, vchannel, payload)
        try:
            result = await client.append(insert(vchannel, payload), timeout=timeout_s)
        except WalError as error:
            if error.code not in expected:
                self._work.unexpected.append(f"I15 {payload!r} after all healed: {error}")
            return False
        self._work.settle(attempt, result)
        return True

    def kill_within(self, steps: int) -> None:
        """SIGKILL before one of the next `steps` steps."""
        self.process.burn(self._random.randint(1, steps), self.kill)

    @property
    def _producer(self) -> str:
        """Its name in this life."""
        return self.process.name

    def _first_process(self) -> Process:
        process = self._work.cluster.process(self._host)
        process.start(self._run(process))
        return process

    def _restart(self) -> None:
        self.process = self._first_process()

    def _new_client(self, process: Process) -> StreamingClient:
        return self._work.cluster.client(process)

    async def _run(self, process: Process) -> None:
        while True:
            try:
                async with self._new_client(process) as client:
                    self._client = client
                    for tail in self._tails:
                        process.start(self._follow(client, tail), f"tail {tail.channel}")
                    await self._produce(client, process)
                    await asyncio.Event().wait()  # until the end of the world: its readers go on
            except WalError as error:
                if error.code is not ErrorCode.ON_SHUTDOWN:
                    self._work.unexpected.append(f"{self._host} could not connect: {error}")

    # --- appending -------------------------------------------------------------------------------

    async def _produce(self, client: StreamingClient, process: Process) -> None:
        window = asyncio.Semaphore(self._random.randint(1, 8))
        tasks = set()
        while self._left > 0:
            self._left -= 1
            await window.acquire()
            task = process.start(self._operate(client, self._producer), "append")
            task.add_done_callback(lambda _: window.release())
            tasks.add(task)
            if self._random.random() < 0.6:
                await asyncio.sleep(self._random.expovariate(1 / 0.04))
        if tasks:
            await asyncio.wait(tasks)
        if not self.done.done():
            self.done.set_result(None)

    async def _operate(self, client: StreamingClient, producer: str) -> None:
        self._work.operations += 1
        vchannel = self._random.choice(self._work.vchannels)
        timeout = self._random.choice([0.3, 2.0, 10.0, 60.0])
        kind = self._random.random()
        if kind < 0.06:
            await self._append_many(client, producer, vchannel, timeout)
        elif kind < 0.1:
            await self._give_up_soon(client, producer, vchannel)
        elif kind < 0.2:
            await self._txns.run(client, producer, vchannel)
        elif kind < 0.22:
            await self._flush(client, vchannel, timeout)
        elif kind < 0.26:
            await self._names.run(client, producer, vchannel)
        elif key := self._keys.next():
            await self._keys.run(client, vchannel, key, timeout)
        else:
            big = kind > 0.985
            await self._append(client, producer, vchannel, timeout, big=big)

    def _spend(self) -> None:
        self._left -= 1
        self._work.operations += 1

    async def _append(
        self, client: StreamingClient, producer: str, vchannel: str, timeout_s: float, *, big: bool
    ) -> None:
        size = self._work.cluster.shape.max_record_bytes if big else 0
        attempt = self._begin(producer, vchannel, size)
        message = _tagged(attempt)
        try:
            with self._work.timed(f"{attempt.payload!r}", timeout_s):
                result = await client.append(message, timeout=timeout_s)
        except WalError as error:
            self._work.settle(attempt, error)
        else:
            self._work.settle(attempt, result)

    async def _flush(self, client: StreamingClient, vchannel: str, timeout_s: float) -> None:
        try:
            with self._work.timed(f"a flush of {vchannel}", timeout_s):
                await client.append(manual_flush(vchannel), timeout=timeout_s)
        except WalError as error:
            self._work.note_failure(error, f"a flush of {vchannel}")

    async def _append_many(
        self, client: StreamingClient, producer: str, vchannel: str, timeout_s: float
    ) -> None:
        attempts = [self._begin(producer, vchannel) for _ in range(self._random.randint(2, 5))]
        outcomes: list[AppendResult | WalError]
        try:
            messages = [_tagged(attempt) for attempt in attempts]
            with self._work.timed(f"{len(messages)} to {vchannel}", timeout_s):
                outcomes = list(await client.append_many(messages, timeout=timeout_s))
        except PartialAppendError as error:
            outcomes = error.outcomes
        except WalError as error:
            outcomes = [error] * len(attempts)
        for attempt, outcome in zip(attempts, outcomes, strict=True):
            self._work.settle(attempt, outcome)

    async def _give_up_soon(self, client: StreamingClient, producer: str, vchannel: str) -> None:
        """A caller that is cancelled at some await: its message may be there or not."""
        appending = asyncio.ensure_future(
            self._append(client, producer, vchannel, timeout_s=60.0, big=False)
        )
        await asyncio.wait([appending], timeout=self._random.expovariate(1 / 0.002))
        appending.cancel()
        _, left = await asyncio.wait([appending], timeout=1.0)
        if left:
            self._work.unexpected.append(f"I15 an append to {vchannel} cannot be cancelled")

    def _begin(self, producer: str, vchannel: str, size: int = 0) -> Attempt:
        self._name += 1
        payload = f"{self._host}/{self._name}/".encode()
        payload += bytes(size) or b"x" * self._random.choice([0, 5, 60, 300])
        return self._work.history.begin(producer, vchannel, payload)

    # --- reading ---------------------------------------------------------------------------------

    async def _follow(self, client: StreamingClient, tail: Tail) -> None:
        edge = self._work.cluster.shape.edge
        while True:
            self._work.operations += 1
            reader = client.reader(tail.channel, start=tail.token or tail.start)
            until = self._random.expovariate(1 / 4.0)
            try:
                async with asyncio.timeout(until), reader:
                    watching = asyncio.ensure_future(self._watch(tail, reader))
                    try:
                        async for batch in reader.batches():
                            if not tail.placed:
                                self._work.place(tail.reading)
                            tail.take(batch, reader.watermark)
                            if edge is not None:
                                await asyncio.sleep(edge.slow_s)
                    finally:
                        watching.cancel()
            except TimeoutError:
                continue  # a program that reads a while, and again from its token
            except WalError as error:
                if error.code is ErrorCode.DATA_TRUNCATED:
                    self._work.overtaken(tail, error)
                else:
                    self._work.note_failure(error, f"a read of {tail.channel}", expected=())
                await asyncio.sleep(_RESTART_S)

    async def _watch(self, tail: Tail, reader: Reader) -> None:
        """A program that looks at the watermark now and then."""
        while True:
            await asyncio.sleep(0.25)
            if not tail.placed:
                self._work.place(tail.reading)
            # Whatever was handed out was taken in the same step, so the reader's token is ours.
            tail.token = reader.token or tail.token
            tail.mark(reader.watermark)
