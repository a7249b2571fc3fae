"""Random histories of one log: faults of the backend, takeovers, retries; then what must hold."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from walplane.backends.registry import open_backend
from walplane.message import codec
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.rpc.errors import Action, ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.runtime import Runtime
from walplane.testkit.faulty import Fault, FaultyBackend, no_faults
from walplane.testkit.outside import TestAuthority, TestNode, TestOracle
from walplane.testkit.wal_world import create, without_creations
from walplane.wal.config import WALConfig
from walplane.wal.ports import LogEntry
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind
from walplane.wal.wal import WAL

CH = "chaos_0"
EARLIEST = ScanStart(StartKind.EARLIEST)
VCHANNELS = tuple(f"{CH}_1v{producer}" for producer in range(3))
SEEDS = range(24)
_OUT_OF_TURN = {ErrorCode.INVALID_REQUEST_SEQ, ErrorCode.OUTCOME_UNKNOWN}


def batch(producer: int, number: int) -> log_pb2.Entry:
    envelope = log_pb2.Envelope(
        version=1, type=MessageType.INSERT, vchannel=f"{CH}_1v{producer}", count=2
    )
    envelope.producer.producer_id = b"%d" % producer
    envelope.producer.number = number
    payloads = [b"%d/%d/%d" % (producer, number, i) for i in range(2)]
    return codec.seal_entry(envelope, codec.encode_body(b"", payloads))


class Chaos:
    """One log, a succession of owners, producers that never give up."""

    def __init__(self, seed: int, backend: FaultyBackend) -> None:
        self.random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.backend = backend
        self.oracle = TestOracle()
        self.authority = TestAuthority()
        self.nodes: list[TestNode] = []
        self.wals: list[WAL] = []
        self.acked: dict[tuple[int, int], MessageID] = {}
        self.config = WALConfig(
            ack_timeout_s=0.05,
            barrier_timeout_s=0.1,
            frames_in_flight=self.random.randint(1, 6),
            frame_bytes=self.random.choice([1, 600, 10_000]),
            write_ahead_bytes=self.random.choice([50, 1000, 1 << 20]),
            idle_tick_s=0.01,
            silence_s=0.03,
            checkpoint_s=self.random.choice([0.02, 10.0]),
            close_timeout_s=1.0,
        )

    async def take_over(self) -> None:
        node = TestNode(self.backend, self.oracle, self.authority, Runtime.system())
        self.nodes.append(node)
        while True:
            term = (self.authority.terms.get(CH) or 0) + 1
            try:
                self.wals.append(await node.open(CH, term, self.config))
                await create(self.wals[-1], *VCHANNELS)
            except WalError:
                continue  # a fault hit the open: the next grant has the next term
            return

    def plan_faults(self, chance: float) -> Callable[[str], Fault]:
        faults = [fault for fault in Fault if fault is not Fault.NONE]

        def plan(_topic: str) -> Fault:
            return self.random.choice(faults) if self.random.random() < chance else Fault.NONE

        return plan

    async def produce(self, producer: int, count: int) -> None:
        window = asyncio.Semaphore(4)

        async def one(number: int) -> None:
            try:
                while True:
                    # Now and then a client still talks to an owner of old.
                    old = self.random.random() < 0.2
                    wal = self.random.choice(self.wals) if old else self.wals[-1]
                    try:
                        result = await wal.append(batch(producer, number))
                    except WalError as error:
                        assert old or self.may_retry(error, producer, number), error
                        await asyncio.sleep(0.005)
                        continue
                    self.acked[producer, number] = result.message_id
                    return
            finally:
                window.release()

        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                await window.acquire()
                tasks.create_task(one(number))

    def may_retry(self, error: WalError, producer: int, number: int) -> bool:
        """A refusal is in order, or due to these batches racing: an earlier one is not there."""
        overtaken = any((producer, earlier) not in self.acked for earlier in range(number))
        return error.action is not Action.GIVE_UP or (error.code in _OUT_OF_TURN and overtaken)

    async def disturb(self) -> None:
        for _ in range(self.random.randint(1, 4)):
            await asyncio.sleep(self.random.uniform(0.0, 0.1))
            await self.take_over()

    async def close(self) -> None:
        for wal in self.wals:
            await wal.close()
        for node in self.nodes:
            await node.reserve.close()
        await self.backend.close()


async def read(wal: WAL, start: ScanStart) -> list[LogEntry]:
    items: list[LogEntry] = []
    async with wal.scan(ScanRequest(start, follow=False)) as scanner:
        while True:
            found = await scanner.next()
            items.extend(without_creations(found.entries))
            assert all(item.last_tick <= found.watermark for item in found.entries)
            if found.end:
                return items


def check(chaos: Chaos, items: list[LogEntry]) -> None:
    ticks = [tick for item in items for tick in range(item.first_tick, item.last_tick + 1)]
    assert ticks == sorted(set(ticks)), "ticks strictly grow in delivered order"
    seen: dict[str, list[int]] = {}
    for item in items:
        envelope = item.entry.envelope
        seen.setdefault(envelope.vchannel, []).append(envelope.producer.number)
        acked = chaos.acked[int(envelope.producer.producer_id), envelope.producer.number]
        assert acked == item.message_id, "an acknowledged id reads back its message"
    for numbers in seen.values():
        assert numbers == list(range(len(numbers))), "every batch once, in the producer's order"
    assert sum(map(len, seen.values())) == len(chaos.acked), "nothing acknowledged is lost"


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_the_log_is_one_sequence_of_what_was_acknowledged(seed: int) -> None:
    chaos = Chaos(seed, FaultyBackend(await open_backend("memory:")))
    async with asyncio.timeout(60):
        await chaos.take_over()
        chaos.backend.faults = chaos.plan_faults(chance=0.03)
        async with asyncio.TaskGroup() as tasks:
            for producer in range(3):
                tasks.create_task(chaos.produce(producer, 40))
            tasks.create_task(chaos.disturb())
        chaos.backend.faults = no_faults
        items = await read(chaos.wals[-1], EARLIEST)
        check(chaos, items)
        await chaos.take_over()
        again = await read(chaos.wals[-1], EARLIEST)
        assert [i.message_id for i in again] == [i.message_id for i in items], "one sequence"
        place = chaos.random.randrange(len(items))
        token = ScanStart(StartKind.TOKEN, token=items[place].token())
        rest = await read(chaos.wals[-1], token)
        assert [i.message_id for i in rest] == [i.message_id for i in items[place + 1 :]]
        await chaos.close()
