"""What the simulation must notice when it is switched off. Layer: testkit.

Contract: a checker that never fired proves nothing. Each mutation patches one safeguard out of the
code for as long as its context lasts, and says within how many seeds it must be caught.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import google_crc32c

from walplane.backends.interface import EARLIEST, BackendSession
from walplane.coord.broadcast import Broadcasts
from walplane.coord.oracle import Oracle
from walplane.message import codec
from walplane.message.codec import decode_frame
from walplane.message.ids import MessageID, RecordID
from walplane.message.registry import MessageType
from walplane.rpc.errors import WalError
from walplane.rpc.flow import ByteBudget
from walplane.rpc.v1 import log_pb2
from walplane.rpc.v1.coordmeta_pb2 import BROADCAST_STATE_PENDING, CatalogDelta
from walplane.testkit.sim.backend import Broker
from walplane.testkit.sim.disk import Disk, OnDurable, Topic
from walplane.testkit.sim.judge import Verdict, simulate_plan
from walplane.testkit.sim.loop import SimulationError
from walplane.testkit.sim.scenario import plan_of
from walplane.wal import opener
from walplane.wal.frames import FrameFilter, FrameSender, OpenKey
from walplane.wal.interceptors.base import AppendOp, Forward
from walplane.wal.interceptors.idempotency import IdempotencyInterceptor
from walplane.wal.interceptors.lock import LockInterceptor
from walplane.wal.limits import RecordLimits
from walplane.wal.metalog import MetaLog, MetaState, _StateReader
from walplane.wal.opener import Observe, OpenedLog, _Replay
from walplane.wal.ownership import Begin, Ownership
from walplane.wal.ports import AppendResult, LogEntry
from walplane.wal.recovery.named import NamedProducers
from walplane.wal.recovery.state import RecoveryState
from walplane.wal.scan import scanner
from walplane.wal.scan.buffer import WriteAheadBuffer
from walplane.wal.scan.reorder import ReorderBuffer
from walplane.wal.shard.manager import ShardManager
from walplane.wal.shard.policies import GrowingSegment
from walplane.wal.shard.segments import Segment
from walplane.wal.timetick.acks import AckManager, TickRange
from walplane.wal.txn.table import TxnTable
from walplane.wal.wal import WAL

_distrust = WAL.distrust
_persist = Broadcasts._persist
_snapshot = RecoveryState.snapshot


class Mutation(NamedTuple):
    """One safeguard.

    Attributes:
        name: of the safeguard that is off.
        off: switches it off while its context lasts.
        within: seeds, from 0 on, of which one must show it.
        needs_store: whether seeds without a segment store, which cannot show it, are passed over.
    """

    name: str
    off: Callable[[], AbstractContextManager[None]]
    within: int
    needs_store: bool = False


class Caught(NamedTuple):
    """What came of one mutation: `verdict` is that of the seed that caught it, if one did."""

    mutation: Mutation
    seeds: int
    verdict: Verdict | None


def hunt(mutation: Mutation, free: Callable[[], None]) -> Caught:
    """Runs seeds with a safeguard off until one shows it, at most as many as are allowed."""
    with mutation.off():
        for seed in range(mutation.within):
            plan = plan_of(seed)
            if mutation.needs_store and plan.shape.store is None:
                continue
            verdict = simulate_plan(plan)
            if verdict.violations:
                _fits(mutation, verdict)
                return Caught(mutation, seed + 1, verdict)
            if seed % 8 == 7:
                free()
    return Caught(mutation, mutation.within, None)


def _fits(mutation: Mutation, verdict: Verdict) -> None:
    """What is called otherwise by now crashes at once, and shows nothing of the safeguard."""
    crashes = [text for text in verdict.violations if "TypeError" in text]
    if crashes:
        raise SimulationError(f"{mutation.name!r} does not fit the code any more: {crashes[0]}")


def patched(target: object, name: str, instead: object) -> Callable[[], Any]:
    """Puts `instead` in the place of an attribute while a context lasts."""

    @contextmanager
    def off() -> Iterator[None]:
        with mock.patch.object(target, name, instead):
            yield

    return off


# --- the replacements ----------------------------------------------------------------------------


def _fences_nobody(_broker: Broker, _topic: object, _writer: object) -> bool:
    return False


async def _asks_nobody(_authority: object, _opening: object) -> None:
    return None


async def _take_own_tick(self: Ownership, begin: Begin, observe: Observe) -> OpenedLog:
    reserve = self._deps.reserve

    async def own_tick() -> int:
        while (tick := reserve.take(1, 0)) is None:
            await reserve.ready(1, 0)
        return tick

    return await self._open(begin, observe, own_tick, reopen=False)


def _admit_any_number(_frames: FrameFilter, _content: log_pb2.FrameContent) -> bool:
    return True


def _carry_on(_wal: WAL, _reason: object) -> None:
    return None


def _heed_no_barrier(_reader: _StateReader, _barrier: object) -> None:
    return None


async def _open_without_barrier(
    cls: type[MetaLog],
    session: BackendSession,
    topic: str,
    *,
    term: int,
    open_number: int,
    barrier_id: bytes,
    limits: RecordLimits,
    own_barriers: Collection[bytes] = (),
    ack_timeout_s: float = 10.0,
    progress: object = None,
) -> tuple[MetaLog, MetaState]:
    """Takes the topic and reads what is there, but leaves no mark and looks for nobody's."""
    await session.ensure_topic(topic)
    writer = await session.open_writer(topic, term, open_number)
    reader = _StateReader(topic, term, set(own_barriers))
    frames = FrameFilter(topic)
    last = await session.last_record_id(topic)
    if last is not None:
        scanner = await session.open_scanner(topic, EARLIEST)
        position: RecordID = ()
        while position < last:
            for record in await scanner.read():
                position = record.record_id
                content = decode_frame(record.data, topic)
                for meta in content.meta if frames.admit(content) else ():
                    reader.take(meta)
    sender = FrameSender(topic, writer, OpenKey(term, open_number))
    barrier = log_pb2.MetaBarrier(term=term, open_number=open_number, barrier_id=barrier_id)
    return MetaLog(session, topic, sender, barrier, ack_timeout_s, limits), reader.state


@contextmanager
def _without_meta_barrier() -> Iterator[None]:
    with (
        mock.patch.object(_StateReader, "_check", _heed_no_barrier),
        mock.patch.object(MetaLog, "open", classmethod(_open_without_barrier)),
    ):
        yield


def _write_unsynced(self: Disk, topic: Topic, data: bytes, on_durable: OnDurable) -> None:
    sequence = topic.end
    topic.records.append(data)
    topic.show(sequence + 1)
    on_durable((sequence,))
    crashes = self.crashes

    def synced() -> None:
        if crashes == self.crashes:
            topic.synced = max(topic.synced, sequence + 1)

    self._network.world(self.sync_s, synced)


def _confirm_at_once(self: AckManager) -> None:
    while self._written:
        self._confirmed = self._written.popleft()[0]


async def _replay_nothing(
    self: _Replay, record_id: tuple[int, ...], content: log_pb2.FrameContent
) -> bool:
    barriers = [e for e in content.entries if e.envelope.type == MessageType.RECOVERY_BARRIER]
    return any(self._is_ours(entry) for entry in barriers)


async def _append_again(
    _link: IdempotencyInterceptor, op: AppendOp, forward: Forward
) -> AppendResult:
    return await forward(op)


def _let_in(_named: NamedProducers, _key: object, _epoch: int) -> None:
    return None


def _pass_unsettled(self: AckManager, ticks: TickRange) -> None:
    ticks.settled = True
    if ticks in self._open:
        self._open.remove(ticks)
    self.watermark = max(self.watermark, ticks.last)
    if ticks.log_entry is not None:
        self._on_confirmed(ticks.log_entry)
    self._advance_confirmed()


def _forget_mark(_oracle: Oracle, _delta: object) -> Coroutine[Any, Any, None]:
    async def nothing() -> None:
        _oracle._state.apply(_delta.SerializeToString())  # type: ignore[attr-defined]

    return nothing()


def _tell_readers_unknown(self: WAL, reason: WalError) -> None:
    if self.state == "closing":
        self._end(reason)
    else:
        _distrust(self, reason)


def _open_only(table: TxnTable, _watermark: int) -> MessageID | None:
    return next((txn.begin for txn in table.open.values()), None)


def _no_floor(_table: TxnTable, _watermark: int) -> None:
    return None


def _end_none(_table: TxnTable, _log_entry: object, _vchannel: object) -> None:
    return None


def _keep_all(self: WriteAheadBuffer, log_entry: LogEntry) -> None:
    self._entries.append(log_entry)
    self._ticks.append(log_entry.last_tick)


def _room_for_all(_budget: ByteBudget, _size: int) -> bool:
    return True


async def _begin_in_memory(self: Broadcasts, delta: CatalogDelta) -> None:
    if delta.tasks[0].state == BROADCAST_STATE_PENDING:
        self._catalog.apply(delta.SerializeToString())
    else:
        await _persist(self, delta)


def _claim_more(self: RecoveryState, checkpoint: log_pb2.WALCheckpoint) -> dict[str, list[bytes]]:
    checkpoint.time_tick += 1000
    return _snapshot(self, checkpoint)


class _AnySum(int):
    """A checksum that is always right."""

    def __eq__(self, _other: object) -> bool:
        return True

    def __ne__(self, _other: object) -> bool:
        return False

    __hash__ = int.__hash__


def _sum_of_anything(data: bytes) -> int:
    return _AnySum(google_crc32c.value(data))


async def _share_everything(_link: LockInterceptor, op: AppendOp, forward: Forward) -> AppendResult:
    return await forward(op)


def _seal_nothing(_shards: ShardManager, _seal: object) -> None:
    return None


def _flush_at_once(self: ShardManager, growing: GrowingSegment) -> Segment | None:
    return self._table.segment(growing.vchannel, growing.segment_id)


MUTATIONS = (
    Mutation("fencing in the backend", patched(Broker, "fences", _fences_nobody), 100),
    Mutation("re-read of the term at open", patched(opener, "_confirm_term", _asks_nobody), 100),
    Mutation("fresh tick at open", patched(Ownership, "take", _take_own_tick), 100),
    Mutation("frame numbers", patched(FrameFilter, "_admit_number", _admit_any_number), 100),
    Mutation("self-reopen after an unknown outcome", patched(WAL, "distrust", _carry_on), 100),
    Mutation("meta barrier", _without_meta_barrier, 100),
    Mutation("fsync", patched(Disk, "write", _write_unsynced), 100),
    Mutation(
        "LastConfirmed's condition (a)",
        patched(AckManager, "_advance_confirmed", _confirm_at_once),
        100,
    ),
    Mutation("LastConfirmed's condition (b)", patched(TxnTable, "floor_at", _no_floor), 100),
    Mutation("barrier replay", patched(_Replay, "_take", _replay_nothing), 100),
    Mutation("dedup", patched(IdempotencyInterceptor, "append", _append_again), 100),
    Mutation("fence of named producers", patched(NamedProducers, "check_epoch", _let_in), 100),
    Mutation("watermark below the unsettled", patched(AckManager, "settle", _pass_unsettled), 100),
    Mutation(
        "mended: track record 1",
        patched(WAL, "distrust", _tell_readers_unknown),
        100,
    ),
    Mutation("exclusive ends transactions", patched(TxnTable, "_end_all", _end_none), 100),
    Mutation(
        "checkpoint below the unsettled", patched(RecoveryState, "snapshot", _claim_more), 100
    ),
    Mutation("a change is PENDING first", patched(Broadcasts, "_persist", _begin_in_memory), 100),
    Mutation("budget of kept entries", patched(WriteAheadBuffer, "add", _keep_all), 100),
    Mutation("budget of appends", patched(ByteBudget, "_fits", _room_for_all), 100),
    Mutation("checksums", patched(codec, "crc32c", _sum_of_anything), 400),
    Mutation("locks", patched(LockInterceptor, "append", _share_everything), 100),
    Mutation(
        "mended: track record 4",
        patched(ReorderBuffer, "past_start", property(lambda _: True)),
        100,
    ),
    Mutation("mended: track record 5", patched(TxnTable, "floor_at", _open_only), 100),
    Mutation("mended: track record 22", patched(scanner, "_reached", lambda _, tick: tick), 100),
    Mutation("seal by exclusive messages", patched(ShardManager, "_sealed", _seal_nothing), 100),
    Mutation("a Flush waits", patched(ShardManager, "_settled", _flush_at_once), 100),
    Mutation("oracle's mark", patched(Oracle, "_persist", _forget_mark), 100),
)
