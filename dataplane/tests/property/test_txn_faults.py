"""Any interleaving of transactions, their ends, exclusive messages, faults and takeovers.

What was committed is read whole, at its Commit, by every reader from every token; nothing else of a
transaction ever is; and each producer's answer tells which of the two it is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from walplane.backends.registry import open_backend
from walplane.message.ids import ResumeToken
from walplane.message.registry import MessageType
from walplane.message.txn_view import AnyBatch, ImmutableTxnMessage
from walplane.rpc.errors import Action, ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.runtime import Runtime
from walplane.testkit.faulty import Fault, FaultyBackend, no_faults
from walplane.testkit.outside import TestAuthority, TestNode, TestOracle
from walplane.testkit.txns import HOUR_MS, exclusive_entry, read_batches, txn_entry
from walplane.testkit.wal_world import create, entry
from walplane.ticks import TICKS_PER_MS
from walplane.wal.config import WALConfig
from walplane.wal.ports import AppendResult
from walplane.wal.wal import WAL

CH = "chaos_0"
VCHANNELS = (f"{CH}_1v0", f"{CH}_1v1")
SHORT_MS = 40
INSERT, DELETE = MessageType.INSERT, MessageType.DELETE
BEGIN, COMMIT, ROLLBACK = MessageType.BEGIN_TXN, MessageType.COMMIT_TXN, MessageType.ROLLBACK_TXN

ACTIONS = st.sampled_from(
    "begin begin body body body commit commit rollback plain plain whole mortal "
    "exclusive everything skip".split()
)


@dataclass(frozen=True)
class Plan:
    seed: int
    chance: float  # of a fault, per record
    takeovers: int
    checkpoint_s: float
    write_ahead_bytes: int
    actors: list[list[str]]


PLANS = st.builds(
    Plan,
    seed=st.integers(0, 1 << 30),
    chance=st.sampled_from([0.0, 0.03, 0.1]),
    takeovers=st.integers(0, 3),
    checkpoint_s=st.sampled_from([0.02, 10.0]),
    write_ahead_bytes=st.sampled_from([1, 500, 1 << 20]),
    actors=st.lists(st.lists(ACTIONS, min_size=1, max_size=20), min_size=1, max_size=4),
)


@dataclass
class World:
    """One log, a succession of owners, and what its producers were told."""

    plan: Plan
    backend: FaultyBackend
    random: random.Random
    oracle: TestOracle = field(default_factory=TestOracle)
    authority: TestAuthority = field(default_factory=TestAuthority)
    nodes: list[TestNode] = field(default_factory=list)
    wals: list[WAL] = field(default_factory=list)
    committed: dict[int, list[bytes]] = field(default_factory=dict)  # by Commit's tick
    plain: dict[int, bytes] = field(default_factory=dict)

    async def take_over(self) -> None:
        node = TestNode(self.backend, self.oracle, self.authority, Runtime.system())
        self.nodes.append(node)
        config = WALConfig(
            ack_timeout_s=0.05,
            barrier_timeout_s=0.1,
            idle_tick_s=0.01,
            silence_s=0.03,
            close_timeout_s=1.0,
            checkpoint_s=self.plan.checkpoint_s,
            write_ahead_bytes=self.plan.write_ahead_bytes,
            frames_in_flight=self.random.randint(1, 6),
            frame_bytes=self.random.choice([1, 600, 10_000]),
        )
        while True:
            term = (self.authority.terms.get(CH) or 0) + 1
            try:
                self.wals.append(await node.open(CH, term, config))
                await create(self.wals[-1], *VCHANNELS)
            except WalError:
                continue  # a fault hit the open: the next grant has the next term
            return

    def faults(self) -> Callable[[str], Fault]:
        kinds = [fault for fault in Fault if fault is not Fault.NONE]

        def plan(_topic: str) -> Fault:
            hit = self.random.random() < self.plan.chance
            return self.random.choice(kinds) if hit else Fault.NONE

        return plan

    async def send(self, entry: log_pb2.Entry) -> AppendResult:
        """Appends as a client does: again under the same number, until there is an answer."""
        while True:
            copy = log_pb2.Entry()
            copy.CopyFrom(entry)
            try:
                return await self.wals[-1].append(copy)
            except WalError as error:
                if error.action is Action.GIVE_UP:
                    raise
            await asyncio.sleep(0.003)

    async def close(self) -> None:
        for wal in self.wals:
            await wal.close()
        for node in self.nodes:
            await node.reserve.close()
        await self.backend.close()


@dataclass
class OpenTxn:
    txn_id: int
    vchannel: str
    mortal: bool
    contents: list[bytes] = field(default_factory=list)
    number: int = 0


class Actor:
    """One producer, with several transactions open at a time."""

    def __init__(self, world: World, name: int) -> None:
        self.world = world
        self.name = b"%d" % name
        self.vchannel = VCHANNELS[name % len(VCHANNELS)]
        self.number = 0
        self.made = 0
        self.open: list[OpenTxn] = []

    async def run(self, actions: list[str]) -> None:
        for action in actions:
            await getattr(self, action)()
            await asyncio.sleep(self.world.random.choice([0, 0, 0.002]))

    def content(self) -> bytes:
        self.made += 1
        return b"%s/%d" % (self.name, self.made)

    def numbered(self) -> tuple[bytes, int]:
        self.number += 1
        return self.name, self.number - 1

    async def plain(self) -> None:
        content = self.content()
        name, number = self.numbered()
        made = entry(content, number=number, vchannel=self.vchannel, producer=name)
        self.world.plain[(await self.world.send(made)).first_tick] = content

    async def whole(self) -> None:
        contents = [self.content(), self.content()]
        made = txn_entry(INSERT, self.vchannel, 0, *contents, whole=True, producer=self.numbered())
        result = await self.world.send(made)
        self.world.committed[result.first_tick + 1] = contents

    async def begin(self, keepalive_ms: int = HOUR_MS) -> None:
        made = txn_entry(BEGIN, self.vchannel, keepalive_ms=keepalive_ms, producer=self.numbered())
        txn_id = (await self.world.send(made)).first_tick
        self.open.append(OpenTxn(txn_id, self.vchannel, keepalive_ms < HOUR_MS))

    async def mortal(self) -> None:
        await self.begin(SHORT_MS)

    async def body(self) -> None:
        if self.open:
            txn = self.world.random.choice(self.open)
            content = self.content()
            if await self.part(txn, self.world.random.choice([INSERT, DELETE]), content):
                txn.contents.append(content)

    async def commit(self) -> None:
        if self.open:
            txn = self.world.random.choice(self.open)
            result = await self.part(txn, COMMIT)
            if result is not None:
                self.open.remove(txn)
                self.world.committed[result.first_tick] = txn.contents

    async def rollback(self) -> None:
        if self.open:
            txn = self.world.random.choice(self.open)
            if await self.part(txn, ROLLBACK):
                self.open.remove(txn)

    async def part(self, txn: OpenTxn, kind: MessageType, *contents: bytes) -> AppendResult | None:
        """Appends to a transaction; None when somebody else has ended it."""
        producer = (self.name, txn.number)
        made = txn_entry(kind, txn.vchannel, txn.txn_id, *contents, producer=producer)
        try:
            result = await self.world.send(made)
        except WalError as error:
            assert error.code is ErrorCode.TRANSACTION_EXPIRED, error
            assert txn.mortal or self.world_has_exclusive(), error
            self.open.remove(txn)
            return None
        txn.number += 1
        return result

    def world_has_exclusive(self) -> bool:
        wanted = {"exclusive", "everything"}
        return any(wanted & set(actions) for actions in self.world.plan.actors)

    async def exclusive(self) -> None:
        made = exclusive_entry(self.vchannel)
        made.envelope.producer.producer_id, made.envelope.producer.number = self.numbered()
        await self.world.send(made)

    async def everything(self) -> None:
        await self.world.send(exclusive_entry(""))

    async def skip(self) -> None:
        reserve = self.world.nodes[-1].reserve
        reserve.take((SHORT_MS + 5) * TICKS_PER_MS, 0)
        await asyncio.sleep(SHORT_MS / 1000)


def shape(batches: list[AnyBatch]) -> list[tuple[int, tuple[bytes, ...]]]:
    """(tick, payloads) of every transaction, and of every plain message of a producer."""
    return [
        (batch.last_tick, tuple(batch.payloads))
        for batch in batches
        if isinstance(batch, ImmutableTxnMessage) or batch.type is INSERT
    ]


async def check(world: World, wal: WAL) -> list[AnyBatch]:
    batches = await read_batches(wal)
    ticks = [batch.last_tick for batch in batches]
    assert ticks == sorted(set(ticks)), "each at a tick of its own, in order"
    expected: dict[int, tuple[bytes, ...]] = {t: (c,) for t, c in world.plain.items()}
    expected |= {tick: tuple(all_) for tick, all_ in world.committed.items() if all_}
    assert shape(batches) == sorted(expected.items()), "exactly what was acknowledged, whole"
    return batches


async def check_tokens(world: World, wal: WAL, batches: list[AnyBatch]) -> None:
    tokens: list[tuple[ResumeToken, int]] = []
    for place, batch in enumerate(batches, start=1):
        *inner, last = batch
        tokens.append((last.resume_token, place))
        tokens += [(message.resume_token, place - 1) for message in inner]
    for token, place in tokens:
        assert shape(await read_batches(wal, token)) == shape(batches[place:]), token


async def run(plan: Plan) -> None:
    backend = FaultyBackend(await open_backend("memory:"))
    world = World(plan, backend, random.Random(plan.seed))  # noqa: S311 - reproducible
    async with asyncio.timeout(60):
        await world.take_over()
        backend.faults = world.faults()
        async with asyncio.TaskGroup() as tasks:
            for name, actions in enumerate(plan.actors):
                tasks.create_task(Actor(world, name).run(actions))
            for _ in range(plan.takeovers):
                await asyncio.sleep(world.random.uniform(0.0, 0.05))
                await world.take_over()
        backend.faults = no_faults
        batches = await check(world, world.wals[-1])
        await world.take_over()
        again = await check(world, world.wals[-1])
        assert [b.message_id for b in again] == [b.message_id for b in batches], "one sequence"
        await check_tokens(world, world.wals[-1], batches)
        await world.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PLANS)
def test_transactions_are_read_whole_or_not_at_all(plan: Plan) -> None:
    asyncio.run(run(plan))
