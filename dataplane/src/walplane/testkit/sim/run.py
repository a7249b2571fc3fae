"""Carries one plan out. Layer: testkit.

Contract: faults and work first; then everything heals, and what must be well within a bound (I15)
is waited for: every PChannel assigned, a probe acknowledged on every VChannel, every reader past a
tick taken after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from walplane.assignment.states import ChannelState
from walplane.channel import pchannel_of
from walplane.client import StreamingClient
from walplane.message.builder import insert
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.history import History
from walplane.testkit.sim.budgets import Budgets
from walplane.testkit.sim.changes import Changes
from walplane.testkit.sim.cluster import SimCluster
from walplane.testkit.sim.faults import FAULTS, Stage
from walplane.testkit.sim.lodger import Lodger
from walplane.testkit.sim.loop import SimLoop
from walplane.testkit.sim.process import Process
from walplane.testkit.sim.reads import Reads
from walplane.testkit.sim.scenario import Plan
from walplane.testkit.sim.store_faults import STORE_FAULTS
from walplane.testkit.sim.storing import Flushes
from walplane.testkit.sim.workload import Tail, User, Work, pchannel_read

_BOOT_S = 60.0
_WORK_S = 120.0
RECOVERY_S = 60.0
_PROBE_S = 30.0
_FORGOTTEN_MS = 5000
"""A transaction of a shorter keepalive is over some time before the end."""


class Run:
    """One plan, in the world's own context.

    Attributes:
        late: what did not come about in time.
        work: what users did and got.
        budgets: looks at memory.
        changes: of the catalog.
        flushes: what must be in the segment store in the end.
    """

    def __init__(
        self, plan: Plan, loop: SimLoop, tell: Callable[[str], None] | None = None
    ) -> None:
        """Starts the cluster; `tell` hears of every step."""
        self.plan = plan
        self._tell = tell or (lambda _: None)
        self.late: list[str] = []
        self.history = History()
        self.cluster = SimCluster(loop, plan.shape, plan.seed)
        self.work = Work(self.cluster, self.history)
        self.budgets = Budgets(self.cluster)
        self.changes = Changes(self.work)
        self.flushes = Flushes(self.work)
        self._loop = loop
        self._users: list[User] = []
        self._reads = Reads(self.work)

    async def play(self) -> None:
        """From the first start to the last read."""
        if not await self._within(_BOOT_S, self._boot(), "the cluster did not start"):
            return
        self._start_users()
        done = asyncio.gather(self._take_steps(), *(user.done for user in self._users))
        await self._within(_WORK_S, done, "the work was not done")
        self.cluster.heal()
        await self._within(RECOVERY_S, self._recover(), "not all is well after the faults")

    async def _boot(self) -> None:
        process = self.cluster.process("setup")
        self.work.vchannels = await process.start(self._create(process))

    async def _create(self, process: Process) -> list[str]:
        """Makes the collection, or finds that an attempt without an answer has made it."""
        while True:
            for attempt in ("create", "describe"):
                try:
                    async with self.cluster.client(process) as client:
                        if attempt == "create":
                            made = await client.create_collection("c", shards=self.plan.shards)
                        else:
                            made = await client.describe_collection("c")
                        return list(made.vchannels)
                except WalError:
                    await asyncio.sleep(0.1)

    def _start_users(self) -> None:
        tails: list[list[Tail]] = [[] for _ in self.plan.users]
        for number, (user, shard, start) in enumerate(self.plan.tails):
            vchannel = self.work.vchannels[max(shard, 0)]
            channel = pchannel_of(vchannel) if shard < 0 else vchannel
            reading = self.history.reading(f"tail-{number}", channel, complete=False)
            reading.after = 0 if start == "earliest" else None
            tails[user].append(Tail(reading, channel, start))
        for number, appends in enumerate(self.plan.users):
            seed = self.cluster.random.getrandbits(64)
            kind = Lodger if self.plan.lodging else User
            self._users.append(kind(self.work, f"u{number}", appends, tails[number], seed))
            self.work.tails += tails[number]

    async def _take_steps(self) -> None:
        stage = Stage(self.cluster, self._users)
        began = self._loop.time()
        for step in self.plan.steps:
            await asyncio.sleep(max(began + step.at - self._loop.time(), 0))
            self._tell(f"{self._loop.time():9.4f} scenario  {step}")
            self.cluster.trace.count(step.what)
            if (fault := FAULTS.get(step.what) or STORE_FAULTS.get(step.what)) is not None:
                self.work.operations += 1
                fault[1](stage, step.which, step.force)
            elif step.what == "change":
                self.changes.start(step)
            else:
                self._reads.start(step)

    async def _recover(self) -> None:
        await _until(self._all_assigned)
        await _until(self.changes.over)
        for user in self._users:
            while not await self._probed(user):  # a kill was still due
                pass
        process = self.cluster.process("final")
        await process.start(self._read_all(process))
        await self._reads.all_done()
        await _until(self._transactions_over)
        await _until(self._tails_arrived)
        if self.cluster.store is not None:
            await process.start(self._flush_all(process))
            await _until(self.flushes.stored)

    def _all_assigned(self) -> bool:
        channels = map(self.cluster.leases.channel, self.cluster.pchannels)
        return all(channel.state is ChannelState.ASSIGNED for channel in channels)

    async def _probed(self, user: User) -> bool:
        """Whether its client still works, whatever it went through; False if it was killed."""
        await _until(lambda: user.connected)
        process = user.process
        probing = process.start(user.probe(_PROBE_S), "probe")
        await _until(lambda: probing.done() or not process.alive)
        if probing.done():
            probing.result()
        return probing.done()

    def _transactions_over(self) -> bool:
        """Whether nothing is open any more that nobody keeps alive."""
        return not any(
            txn.keepalive_ms <= _FORGOTTEN_MS
            for node in self.cluster.nodes.values()
            for wal in node.wals
            if wal.state == "serving"
            for txn in wal.recovery.txns.open.values()
        )

    async def _read_all(self, process: Process) -> None:
        async with self.cluster.client(process) as client:
            for vchannel in self.work.vchannels:
                payload = f"probe/{vchannel}".encode()
                attempt = self.history.begin("final", vchannel, payload)
                message = insert(vchannel, payload)
                self.work.settle(attempt, await client.append(message, timeout=RECOVERY_S))
            for vchannel in self.work.vchannels:
                await self._reads.take_tick(process, pchannel_of(vchannel))
            for vchannel in self.work.vchannels:
                await self._read_whole(client, vchannel)

    async def _read_whole(self, client: StreamingClient, vchannel: str) -> None:
        while True:
            try:
                name = f"whole {vchannel}"
                reading = await self._reads.to_the_end(client, vchannel, name, "earliest")
            except WalError as error:
                if error.code is not ErrorCode.DATA_TRUNCATED:
                    raise
                self.cluster.trace.count("reader overtaken")
            else:
                reading.complete = True
                return

    async def _flush_all(self, process: Process) -> None:
        async with self.cluster.client(process) as client:
            await self.flushes.flush(client)

    def _tails_arrived(self) -> bool:
        due = {read.pchannel: read.tick for read in self.history.read_ticks}
        return all(
            tail.watermark >= due.get(pchannel_read(tail.channel), 0) for tail in self.work.tails
        )

    async def _within(self, seconds: float, work: Awaitable[object], what: str) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await work
        except TimeoutError:
            self.late.append(f"I15 {what} within {seconds:g} s: {self._standing()}")
            return False
        except WalError as error:
            self.late.append(f"I15 {what}: {error}")
            return False
        return True

    def _standing(self) -> str:
        leases = self.cluster.leases
        channels = [str(leases.channel(pchannel)) for pchannel in self.cluster.pchannels]
        users = [f"user {n} is not done" for n, u in enumerate(self._users) if not u.done.done()]
        behind = [f"{t.reading.reader} is at {t.watermark}" for t in self.work.tails]
        return "; ".join([*channels, *users, *behind])


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - virtual time costs nothing
        await asyncio.sleep(0.25)
