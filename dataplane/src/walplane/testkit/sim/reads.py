"""Reads beside those of the users: to the present end, and read ticks. Layer: testkit."""

from __future__ import annotations

import asyncio
from functools import partial

from walplane.channel import carrier_of, pchannel_of
from walplane.client import StreamingClient
from walplane.message.ids import ResumeToken
from walplane.node.remote_oracle import RemoteOracle
from walplane.rpc.errors import WalError
from walplane.testkit.history import Outcome, Reading, ReadTick
from walplane.testkit.sim.errands import Errands
from walplane.testkit.sim.grpc_client import SimChannel
from walplane.testkit.sim.node import COORD
from walplane.testkit.sim.process import Process
from walplane.testkit.sim.scenario import Step
from walplane.testkit.sim.workload import Work, delivered


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
            self._begin(process, self.take_tick(process, pchannel_of(vchannel)))
        else:
            start = self._token(vchannel, step) or "earliest"
            self._begin(process, self._catch_up(process, vchannel, start))

    async def all_done(self) -> None:
        """Waits for what is under way."""
        if self._under_way:
            await asyncio.wait(set(self._under_way))

    async def take_tick(self, process: Process, pchannel: str) -> None:
        """Asks the oracle for a tick to read at, and notes what was acknowledged before."""
        work, cluster = self._work, self._work.cluster
        told = tuple(
            attempt
            for attempt in work.history.attempts
            if attempt.outcome is Outcome.ACKNOWLEDGED and carrier_of(attempt.vchannel) == pchannel
        )
        term = cluster.leases.channel(pchannel).term
        oracle = RemoteOracle(COORD, connect=partial(SimChannel, cluster.network, process))
        try:
            tick = await oracle.fresh(pchannel, term)
        except WalError:
            return  # the coordinator is away, or the term moved on
        work.history.read_ticks.append(ReadTick(pchannel, tick, told))

    async def to_the_end(
        self, client: StreamingClient, channel: str, name: str, start: str | ResumeToken
    ) -> Reading:
        """Reads to the present end, once."""
        reading = self._work.history.reading(name, channel, complete=False)
        reading.after = 0 if isinstance(start, str) else start.time_tick
        async with client.reader(channel, start=start, follow=False) as reader:
            async for batch in reader.batches():
                if isinstance(start, str) and not reading.messages:
                    self._work.place(reading)
                reading.messages += delivered(batch)
                reading.marks.append((len(reading.messages), reader.watermark))
        if isinstance(start, str) and not reading.messages:
            self._work.place(reading)
        return reading

    async def _catch_up(self, process: Process, vchannel: str, start: str | ResumeToken) -> None:
        try:
            async with self._work.cluster.client(process) as client:
                await self.to_the_end(client, vchannel, process.name, start)
        except WalError:
            self._work.cluster.trace.count("read gave up")

    def _token(self, vchannel: str, step: Step) -> ResumeToken | None:
        """Where some reader of the channel stands: going on from there must leave no gap."""
        tokens = [
            tail.token for tail in self._work.tails if tail.channel == vchannel and tail.token
        ]
        if not tokens or step.force > 0.7:
            return None
        return tokens[step.which // 7 % len(tokens)]
