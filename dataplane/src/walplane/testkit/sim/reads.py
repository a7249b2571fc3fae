"""Reads beside those of the users: to the present end, and read ticks. Layer: testkit."""

from __future__ import annotations

import asyncio
from functools import partial

from walplane.channel import carrier_of, pchannel_of
from walplane.client import Only, StreamingClient
from walplane.client.reader import Reader
from walplane.message.ids import ResumeToken
from walplane.node.remote_oracle import RemoteOracle
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.history import Attempt, Outcome, Reading, ReadTick
from walplane.testkit.sim.errands import Errands
from walplane.testkit.sim.grpc_client import SimChannel
from walplane.testkit.sim.node import COORD
from walplane.testkit.sim.process import Process
from walplane.testkit.sim.scenario import Step
from walplane.testkit.sim.workload import Work, delivered
from walplane.ticks import TICKS_PER_MS

_AHEAD_MS = 400  # at most; the log has not reached it then
_SPAN_MS = 400
_FROM_TOKEN = 0.7  # of catch-ups, where there is one
_FROM_ID = 0.85  # the others, up to here, from the earliest


class Reads(Errands):
    """Starts reads."""

    def __init__(self, work: Work) -> None:
        """None yet."""
        super().__init__(work, "r")

    def start(self, step: Step) -> None:
        """Begins what `step` says."""
        process = self._process()
        vchannel = self._work.vchannels[step.which % len(self._work.vchannels)]
        if step.what == "read_tick":
            self._begin(process, self._at_a_tick(process, vchannel, step))
        elif step.force > _FROM_ID and (asked := self._told(vchannel, step)) is not None:
            after = step.which % 2 == 0
            self._begin(process, self._from_id(process, asked, after=after))
        else:
            start = self._token(vchannel, step) or "earliest"
            self._begin(process, self._catch_up(process, vchannel, start))

    async def all_done(self) -> None:
        """Waits for what is under way."""
        if self._under_way:
            await asyncio.wait(set(self._under_way))

    async def take_tick(self, process: Process, pchannel: str) -> int | None:
        """Asks the oracle for a tick to read at, and notes what was acknowledged before."""
        work, cluster = self._work, self._work.cluster
        told = self._acknowledged(pchannel)
        term = cluster.leases.channel(pchannel).term
        oracle = RemoteOracle(COORD, connect=partial(SimChannel, cluster.network, process))
        try:
            tick = await oracle.fresh(pchannel, term)
        except WalError:
            return None  # the coordinator is away, or the term moved on
        work.history.read_ticks.append(ReadTick(pchannel, tick, told))
        return tick

    def _acknowledged(self, pchannel: str) -> tuple[Attempt, ...]:
        return tuple(
            attempt
            for attempt in self._work.history.attempts
            if attempt.outcome is Outcome.ACKNOWLEDGED and carrier_of(attempt.vchannel) == pchannel
        )

    async def to_the_end(
        self, client: StreamingClient, channel: str, name: str, start: str | ResumeToken
    ) -> Reading:
        """Reads to the present end, once."""
        reading = self._work.history.reading(name, channel, complete=False)
        reading.after = 0 if isinstance(start, str) else start.time_tick
        told = {each.payload for each in self._acknowledged(carrier_of(channel))}
        async with client.reader(channel, start=start, follow=False) as reader:
            await self._read(reader, reading, placed=not isinstance(start, str))
        reading.due = frozenset(told)
        return reading

    async def _read(self, reader: Reader, reading: Reading, *, placed: bool) -> None:
        """Notes all that `reader` gets; unless `placed`, what is there where it begins counts."""
        async for batch in reader.batches():
            if not placed and not reading.messages:
                self._work.place(reading)
            reading.messages += delivered(batch)
            reading.marks.append((len(reading.messages), reader.watermark))
        reading.marks.append((len(reading.messages), reader.watermark))
        if not placed and not reading.messages:
            self._work.place(reading)

    async def _at_a_tick(self, process: Process, vchannel: str, step: Step) -> None:
        tick = await self.take_tick(process, pchannel_of(vchannel))
        if tick is None:
            return
        first = tick + step.which % _AHEAD_MS * TICKS_PER_MS
        only = Only(from_tick=first, until_tick=first + _SPAN_MS * TICKS_PER_MS)
        reading = self._work.history.reading(process.name, vchannel, complete=False)
        reading.after = first - 1
        try:
            async with self._work.cluster.client(process) as client:
                async with client.reader(vchannel, only=only, start="earliest") as reader:
                    await self._read(reader, reading, placed=False)
                    self._ended_at(reader, only.until_tick, vchannel)
        except WalError as error:
            self._gave_up(error, vchannel)

    async def _catch_up(self, process: Process, vchannel: str, start: str | ResumeToken) -> None:
        try:
            async with self._work.cluster.client(process) as client:
                await self.to_the_end(client, vchannel, process.name, start)
        except WalError as error:
            self._gave_up(error, vchannel)

    async def _from_id(self, process: Process, asked: Attempt, *, after: bool) -> None:
        """Reads from the message of an append on, or from behind it, to the present end."""
        work, vchannel, place = self._work, asked.vchannel, asked.message_id
        if place is None:
            raise AssertionError(f"{asked} has no place")
        due = {
            each.payload
            for each in self._acknowledged(pchannel_of(vchannel))
            if each.vchannel == vchannel
            and each.message_id is not None
            and (each.message_id > place or (each is asked and not after))
        }
        reading = Reading(process.name, vchannel, complete=False)
        work.history.placed.append(reading)
        read = partial(StreamingClient.reader, channel=vchannel, start=place, after=after)
        try:
            async with work.cluster.client(process) as client:
                async with read(client, follow=False) as reader:
                    async for batch in reader.batches():
                        reading.messages += delivered(batch)
        except WalError as error:
            if work.cluster.cuts.beginning(pchannel_of(vchannel)) <= place.record[0]:
                work.note_failure(error, f"a read of {vchannel} from {place}", expected=())
            else:
                self._gave_up(error, vchannel)
            return
        got = [each.payload for each in reading.messages]
        work.unexpected += [
            f"a read of {vchannel} from {place} lacks {payload[:40]!r}"
            for payload in due.difference(got)
        ]
        alone = [each for each in reading.messages if not each.txn_id]
        # Else the log's order is not that of ticks, and who reads on from a token has both sides.
        if not work.cluster.shape.link_waits and alone:
            early = alone[0].message_id <= place if after else alone[0].message_id != place
            if early:
                work.unexpected.append(f"a read from {place} begins with {alone[0]}")

    def _told(self, vchannel: str, step: Step) -> Attempt | None:
        """An append whose caller was told where it is."""
        told = [
            each
            for each in self._acknowledged(pchannel_of(vchannel))
            if each.vchannel == vchannel and each.message_id is not None
        ]
        return told[step.which // 7 % len(told)] if told else None

    def _ended_at(self, reader: Reader, until_tick: int, vchannel: str) -> None:
        if reader.watermark != until_tick:
            self._work.unexpected.append(
                f"I14 a read of {vchannel} up to {until_tick} ended at {reader.watermark}"
            )

    def _gave_up(self, error: WalError, vchannel: str) -> None:
        """A read ends early for damage alone, or when the log was cut off where it was."""
        cluster = self._work.cluster
        cluster.trace.count(f"read ends with {error.code.name}")
        cut = any(each.pchannel == pchannel_of(vchannel) for each in cluster.cuts.made)
        expected = {ErrorCode.DATA_TRUNCATED} if cut else set()
        self._work.note_failure(error, f"a read of {vchannel}", expected)

    def _token(self, vchannel: str, step: Step) -> ResumeToken | None:
        """Where some reader of the channel stands: going on from there must leave no gap."""
        tokens = [
            tail.token for tail in self._work.tails if tail.channel == vchannel and tail.token
        ]
        if not tokens or step.force > _FROM_TOKEN:
            return None
        return tokens[step.which // 7 % len(tokens)]
