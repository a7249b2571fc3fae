"""Any order of appends, transactions, changes of collections, faults and takeovers.

Every log keeps the order rules, as a second implementation reads them; whoever replays it, from any
checkpoint on, knows what its owner knew.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from google.protobuf.message import Message
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from walplane.backends.interface import Record
from walplane.backends.memory import MemoryBackend
from walplane.message import codec
from walplane.message.registry import MessageType, spec_of
from walplane.rpc.errors import Action, ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.testkit.faulty import Fault, FaultyBackend, no_faults
from walplane.testkit.log_checks import check_log
from walplane.testkit.log_view import LogView
from walplane.testkit.txns import begin, end, exclusive_entry, txn_entry
from walplane.testkit.wal_world import CH, World, create_entry, entry
from walplane.wal.config import WALConfig
from walplane.wal.ports import LogEntry
from walplane.wal.shard.config import ShardConfig
from walplane.wal.shard.table import ShardTable
from walplane.wal.wal import WAL

T = MessageType
NAMES = (f"{CH}_10v0", f"{CH}_11v0")
PARTITIONS = (0, 5, 6)
EXPECTED = {
    ErrorCode.INVALID_ARGUMENT,
    ErrorCode.SCHEMA_VERSION_MISMATCH,
    ErrorCode.TRANSACTION_EXPIRED,
}
"""What breaks a rule gets one of these; a transaction may be ended by an exclusive message."""

STEPS = st.lists(
    st.sampled_from(
        "insert insert insert insert burst burst delete txn txn flush flush-all create create "
        "drop add remove alter truncate checkpoint pause".split()
    ),
    min_size=5,
    max_size=60,
)


@dataclass(frozen=True)
class Plan:
    seed: int
    chance: float  # of a fault, per record
    takeovers: int
    rows: int
    lifetime_s: float
    kept: int
    steps: list[str]


PLANS = st.builds(
    Plan,
    seed=st.integers(0, 1 << 30),
    chance=st.sampled_from([0.0, 0.05, 0.15]),
    takeovers=st.integers(0, 2),
    rows=st.sampled_from([1, 3, 1000]),
    lifetime_s=st.sampled_from([0.01, 60.0]),
    # Both names may be dropped: a log that has forgotten one would take it for new.
    kept=st.sampled_from([len(NAMES), 4, 1000]),
    steps=STEPS,
)


class Chaos:
    """One log, a succession of owners, and a user who breaks rules now and then."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.memory = MemoryBackend()
        self.world = World(FaultyBackend(self.memory))
        self.draw = random.Random(plan.seed)  # noqa: S311 - reproducible
        self.versions = dict.fromkeys(NAMES, 1)

    @property
    def wal(self) -> WAL:
        return self.world.opened[-1][1]

    async def take_over(self) -> None:
        config = WALConfig(
            ack_timeout_s=0.05,
            barrier_timeout_s=0.1,
            idle_tick_s=0.005,
            close_timeout_s=1.0,
            frames_in_flight=self.draw.choice([1, 4]),
            frame_bytes=self.draw.choice([1, 600]),
            shard=ShardConfig(
                segment_rows=self.plan.rows,
                segment_lifetime_s=self.plan.lifetime_s,
                kept_segments=self.plan.kept,
            ),
        )
        while True:
            try:
                await self.world.open((self.world.authority.terms.get(CH) or 0) + 1, config)
            except WalError:
                continue  # a fault hit the open
            return

    def faults(self, _topic: str) -> Fault:
        kinds = [fault for fault in Fault if fault is not Fault.NONE]
        hit = self.draw.random() < self.plan.chance
        return self.draw.choice(kinds) if hit else Fault.NONE

    async def send(self, made: log_pb2.Entry) -> None:
        try:
            await self.wal.append(made)
        except WalError as error:
            gone = error.action is not Action.GIVE_UP or error.code is ErrorCode.OUTCOME_UNKNOWN
            assert gone or error.code in EXPECTED, error

    async def do(self, step: str) -> None:
        name = self.draw.choice(NAMES)
        partition = self.draw.choice(PARTITIONS)
        match step:
            case "insert" | "burst":
                count = 6 if step == "burst" else 1
                await asyncio.gather(*(self.send(self.data(name, partition)) for _ in range(count)))
            case "delete":
                await self.send(self.data(name, partition, T.DELETE))
            case "txn":
                await self.txn(name, partition)
            case "flush" | "flush-all":
                await self.send(exclusive_entry(name if step == "flush" else ""))
            case "create":
                await self.send(create_entry(name, partitions=[5], schema_version=1))
            case "alter":
                self.versions[name] += self.draw.choice([0, 1])
                version = self.versions[name] if self.draw.random() < 0.7 else 0
                altered = headers_pb2.AlterCollectionHeader(new_schema_version=version)
                await self.send(ddl(T.ALTER_COLLECTION, name, altered))
            case "add" | "remove":
                kind = T.CREATE_PARTITION if step == "add" else T.DROP_PARTITION
                number = 6 if step == "add" else self.draw.choice([5, 6])
                header = headers_pb2.PartitionHeader(partition_id=number)
                await self.send(ddl(kind, name, header))
            case "drop" | "truncate":
                kind = T.DROP_COLLECTION if step == "drop" else T.TRUNCATE_COLLECTION
                if step == "truncate" or self.draw.random() < 0.2:
                    await self.send(ddl(kind, name, headers_pb2.CollectionHeader()))
            case "checkpoint":
                try:
                    await self.wal.checkpoint()
                except WalError:
                    pass  # a fault hit it
            case _:
                await asyncio.sleep(0.01)

    def data(self, name: str, partition: int, kind: MessageType = T.INSERT) -> log_pb2.Entry:
        made = entry(b"x" * self.draw.randint(0, 50), vchannel=name)
        made.envelope.type = kind
        made.envelope.partition_id = partition
        made.envelope.schema_version = self.draw.choice([0, 1, self.versions[name]])
        return made

    async def txn(self, name: str, partition: int) -> None:
        """One that goes on while others append, and another user may end."""
        try:
            txn = await begin(self.wal, name)
            for _ in range(self.draw.randint(1, 3)):
                made = txn_entry(T.INSERT, name, txn, b"t")
                made.envelope.partition_id = partition
                await self.wal.append(made)
                await asyncio.sleep(self.draw.choice([0, 0.005]))
            kind = self.draw.choice([T.COMMIT_TXN, T.COMMIT_TXN, T.ROLLBACK_TXN])
            if self.draw.random() < 0.9:
                await end(self.wal, txn, kind, name)
        except WalError as error:
            gone = error.action is not Action.GIVE_UP or error.code is ErrorCode.OUTCOME_UNKNOWN
            state = error.code is ErrorCode.INVALID_TRANSACTION_STATE
            assert gone or state or error.code in EXPECTED, error

    async def user(self, steps: list[str]) -> None:
        for step in steps:
            await self.do(step)


def ddl(kind: MessageType, name: str, header: Message) -> log_pb2.Entry:
    assert isinstance(header, spec_of(kind).header)
    envelope = log_pb2.Envelope(version=1, type=kind, vchannel=name, count=1)
    return codec.seal_entry(envelope, codec.encode_body(header.SerializeToString(), [b""]))


def entries_of(log: LogView) -> list[LogEntry]:
    return [
        LogEntry(
            log_pb2.Entry(envelope=each.envelope, body=each.body), each.message_id, each.open_number
        )
        for each in log.entries
    ]


def observed(kept: int, entries: list[LogEntry]) -> ShardTable:
    table = ShardTable(kept)
    for item in entries:
        table.observe(item)
    return table


def check_replays(plan: Plan, entries: list[LogEntry], whole: list[bytes]) -> None:
    """From snapshots of some moments, replayed from the beginning: earlier than ever needed."""
    draw = random.Random(plan.seed)  # noqa: S311 - reproducible
    for _ in range(8):
        cut = draw.randint(0, len(entries))
        table = ShardTable(plan.kept)
        table.load(observed(plan.kept, entries[:cut]).save())
        for item in entries:
            table.observe(item)
        assert sorted(table.save()) == whole, cut


async def run(plan: Plan) -> None:
    chaos = Chaos(plan)
    async with asyncio.timeout(60):
        await chaos.take_over()
        chaos.world.backend.faults = chaos.faults
        async with asyncio.TaskGroup() as tasks:
            for first in range(3):
                tasks.create_task(chaos.user(["create", *plan.steps[first::3]]))
            for _ in range(plan.takeovers):
                await asyncio.sleep(chaos.draw.uniform(0.0, 0.05))
                await chaos.take_over()
        chaos.world.backend.faults = no_faults
        await chaos.wal.append(exclusive_entry(""))
        live = sorted(chaos.wal.recovery.shards.save())
        topic = chaos.memory.topics[CH]
        records = [Record((n,), data) for n, data in enumerate(topic.records, topic.earliest)]
        log = LogView.of(CH, "memory", records)
        assert check_log(log) == []
        entries = entries_of(log)
        assert sorted(observed(plan.kept, entries).save()) == live
        check_replays(plan, entries, live)
        await chaos.take_over()
        assert sorted(chaos.wal.recovery.shards.save()) == live
        await chaos.world.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PLANS)
@example(  # a partition is dropped before it was ever there, then made
    Plan(198209, 0.0, 0, 1, 0.01, 2, "remove insert insert insert add insert".split())
)
def test_the_order_rules_hold_and_replay_finds_what_was(plan: Plan) -> None:
    asyncio.run(run(plan))
