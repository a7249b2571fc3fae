"""What a node shows to Prometheus: each figure follows what happened, labels stay few."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from unittest.mock import AsyncMock

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from walplane.backends.registry import open_backend
from walplane.channel import cchannel_name
from walplane.node import NodeConfig, StreamingNode
from walplane.node.edge import Edge
from walplane.node.metrics import NodeCollector
from walplane.node.produce import ProduceStream
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import streaming_pb2
from walplane.runtime import Runtime
from walplane.testkit.faulty import Fault, FaultyBackend, no_faults
from walplane.testkit.outside import TestAuthority, TestOracle
from walplane.testkit.segments import BUDGET_BYTES, MemoryStore, at_once, segment_deps
from walplane.testkit.txns import begin, exclusive_entry
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import CH, EARLIEST, V, create, entry
from walplane.ticks import TICKS_PER_MS, TICKS_PER_S
from walplane.wal.config import WALConfig
from walplane.wal.interceptors.base import append_op
from walplane.wal.ports import StaleTerm
from walplane.wal.recovery.segments.storing import SegmentDeps
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind
from walplane.wal.shard.config import ShardConfig
from walplane.wal.status import QUARANTINED, SEGMENTS_WAIT

CONFIG = NodeConfig(wal=WALConfig(idle_tick_s=0.02, silence_s=3600, checkpoint_s=3600))
COUNTED = [f"appended_{what}_total" for what in ("frames", "entries", "messages", "bytes")]
_NOW_TICKS = 1_700_000_000_000 * TICKS_PER_MS


class Watched:
    """A node that holds one log, and its metrics."""

    def __init__(
        self,
        backend: FaultyBackend,
        ahead_s: int = 0,
        config: NodeConfig = CONFIG,
        segments: SegmentDeps | None = None,
    ) -> None:
        self.backend = backend
        self.clock = Runtime.system()
        self.oracle = TestOracle(_NOW_TICKS + ahead_s * TICKS_PER_S)
        self.authority = TestAuthority()
        runtime = Runtime(lambda: 1_700_000_000_000, self.clock.monotonic, self.clock.random)
        self.node = StreamingNode(
            *("n1", backend, self.oracle, self.authority, runtime, config),
            segments=segments,
        )
        self.base: dict[str, float] = {}
        self.registry = CollectorRegistry()
        self.registry.register(NodeCollector(self.node, runtime))

    async def assign(self, term: int) -> Edge:
        self.authority.terms[CH] = term
        await self.node.assign(CH, term)
        edge = self.node.edge(CH)
        await create(edge.wal, V)
        await edge.wal.append(entry(b"the first one of its segment"))
        self.base = {name: self.of_log(name) or 0 for name in COUNTED}
        return edge

    def since(self, name: str) -> float:
        """How much a counter of the log grew since the log was assigned."""
        return (self.of_log(name) or 0) - self.base[name]

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"walplane_{name}", labels)

    def of_log(self, name: str, **labels: str) -> float | None:
        return self.value(name, pchannel=CH, **labels)


@pytest.fixture
async def watched(request: pytest.FixtureRequest) -> AsyncIterator[Watched]:
    """Its parameter: how far the coordinator's clock is ahead of the node's, in seconds."""
    made = Watched(FaultyBackend(await open_backend("memory:")), getattr(request, "param", 0))
    yield made
    async with asyncio.timeout(30):
        await made.node.close()
        await made.backend.close()


async def test_appends_are_counted_with_their_latency(watched: Watched) -> None:
    edge = await watched.assign(1)
    await edge.wal.append(entry(b"one", b"two", number=0))
    await edge.wal.append(entry(b"three", number=1))
    assert watched.since("appended_entries_total") == 2
    assert watched.since("appended_messages_total") == 3
    assert watched.since("appended_frames_total") == 2
    assert watched.since("appended_bytes_total") > len("onetwothree")
    assert watched.value("append_seconds_count", type="data") == 3
    assert watched.value("append_seconds_bucket", type="data", le="10.0") == 3
    assert 0 < (watched.value("append_seconds_sum", type="data") or 0) < 10
    assert watched.value("append_seconds_count", type="txn") == 0


async def test_what_is_in_flight_has_an_age_and_holds_the_watermark(watched: Watched) -> None:
    edge = await watched.assign(1)
    assert watched.of_log("watermark_lag_seconds") == 0
    assert watched.of_log("oldest_append_seconds") == 0
    watched.backend.faults = lambda _topic: Fault.LOSE_ACK
    append = edge.start_append(append_op(entry(b"lost", number=0)))
    await until(lambda: (watched.of_log("oldest_append_seconds") or 0) > 0.01)
    assert (watched.of_log("pending_bytes") or 0) > 0
    lag = watched.of_log("watermark_lag_seconds")
    assert lag
    await until(lambda: (watched.of_log("watermark_lag_seconds") or 0) > lag)
    watched.backend.faults = no_faults
    edge.wal.distrust(WalError.from_proto(StaleTerm(CH, 1, 1).to_proto()))
    await append
    assert watched.of_log("self_reopens_total") == 1
    assert watched.of_log("oldest_append_seconds") == 0
    assert watched.of_log("watermark_lag_seconds") == 0
    assert watched.of_log("pending_bytes") == 0
    assert watched.value("append_seconds_count", type="data") == 2


@pytest.mark.parametrize("watched", [-3600, 3600], indirect=True)
async def test_how_far_readers_are_behind_does_not_depend_on_the_clock_of_the_day(
    watched: Watched,
) -> None:
    """A coordinator that is ahead of the node hides nothing, one that is behind adds nothing."""
    edge = await watched.assign(1)
    watched.backend.faults = lambda _topic: Fault.LOSE_ACK
    append = edge.start_append(append_op(entry(b"lost", number=0)))
    await until(lambda: (watched.of_log("watermark_lag_seconds") or 0) > 0.01)
    assert (watched.of_log("watermark_lag_seconds") or 0) < 3000
    watched.backend.faults = no_faults
    edge.wal.distrust(WalError.from_proto(StaleTerm(CH, 1, 1).to_proto()))
    await append


async def test_waiting_for_ticks_is_an_age_too(watched: Watched) -> None:
    edge = await watched.assign(1)
    watched.oracle.away = True
    left = watched.value("tick_reserve")
    assert left
    assert watched.node.reserve.take(int(left), 0)
    append = edge.start_append(append_op(entry(b"waits", number=0)))
    await until(lambda: (watched.of_log("oldest_append_seconds") or 0) > 0.01)
    watched.oracle.away = False
    await append
    assert watched.of_log("oldest_append_seconds") == 0


async def test_refusals_are_counted_by_code(watched: Watched) -> None:
    edge = await watched.assign(1)
    answers: list[streaming_pb2.ProduceResponse] = []

    async def write(response: streaming_pb2.ProduceResponse) -> None:
        answers.append(response)

    async def requests() -> AsyncIterator[streaming_pb2.ProduceRequest]:
        unknown = entry(b"of nobody known", number=5, vchannel=cchannel_name(CH))
        for refused in (entry(b"to nobody", vchannel=f"{CH}_7v0"), unknown):
            append = streaming_pb2.AppendRequest(request_id=1, entry=refused)
            yield streaming_pb2.ProduceRequest(append=append)

    budgets = watched.node.append_budgets(CH)
    await ProduceStream(edge, budgets, CONFIG, write).run(requests())
    assert sum(len(each.appends) for each in answers) == 2
    assert watched.of_log("append_errors_total", code="CHANNEL_NOT_EXIST") == 1
    assert watched.of_log("append_errors_total", code="OUTCOME_UNKNOWN") == 1


async def test_segments_are_measured_from_their_growth_to_the_store() -> None:
    store = MemoryStore()
    away = store.before = AsyncMock(side_effect=OSError("no route"))
    wal = CONFIG.wal.model_copy(update={"shard": ShardConfig(segment_rows=1)})
    config = CONFIG.model_copy(update={"wal": wal})
    backend = FaultyBackend(await open_backend("memory:"))
    watched = Watched(backend, config=config, segments=segment_deps(store))
    edge = await watched.assign(1)
    assert (watched.value("growing_bytes") or 0) > 0
    assert watched.value("growing_limit_bytes") == config.growth.high_bytes
    assert watched.value("segment_backlog_limit_bytes") == BUDGET_BYTES
    await edge.wal.append(entry(b"the first one of the next segment", number=0))
    await until(lambda: (watched.of_log("segment_objects_total", result="failed") or 0) > 1)
    assert away.await_count > 1
    assert (watched.value("segment_backlog_bytes") or 0) > 0
    assert (watched.of_log("segment_lag_seconds") or 0) > 0
    store.before = at_once
    await until(lambda: watched.of_log("segment_objects_total", result="stored") == 2)
    async with asyncio.timeout(30):
        await watched.node.close()
        await backend.close()


async def test_without_a_segment_store_nothing_is_said_to_wait_for_it(watched: Watched) -> None:
    await watched.assign(1)
    assert watched.value("segment_backlog_bytes") is None
    assert watched.of_log("segment_lag_seconds") is None


async def test_opens_and_losses_outlive_the_log_they_happened_to(watched: Watched) -> None:
    edge = await watched.assign(3)
    assert watched.value("open_seconds_count") == 1
    edge.wal.fence(StaleTerm(CH, 3, 4))
    await until(lambda: watched.of_log("channels_lost_total") == 1)
    with pytest.raises(StaleTerm):
        watched.authority.terms[CH] = 9
        await watched.node.assign(CH, 4)
    assert watched.of_log("opens_total", result="served") == 1
    assert watched.of_log("opens_total", result="fenced") == 1
    assert watched.of_log("serving") is None


async def test_readers_by_how_they_read(watched: Watched) -> None:
    edge = await watched.assign(1)
    await edge.wal.append(entry(b"one", number=0))
    async with (
        edge.wal.scan(ScanRequest(ScanStart(StartKind.LATEST))) as tailing,
        edge.wal.scan(ScanRequest(EARLIEST)),
    ):
        waiting = asyncio.create_task(tailing.next())
        await until(lambda: watched.of_log("readers", mode="tailing") == 1)
        assert watched.of_log("readers", mode="catching_up") == 1
        waiting.cancel()
    assert watched.of_log("readers", mode="catching_up") == 0
    assert watched.of_log("readers", mode="tailing") == 0


async def test_transactions_and_locks(watched: Watched) -> None:
    edge = await watched.assign(1)
    await edge.wal.append(exclusive_entry(V))
    await begin(edge.wal, V)
    assert watched.of_log("open_transactions") == 1
    await begin(edge.wal, V, keepalive_ms=1)
    watched.oracle._next += 10 * TICKS_PER_S
    await until(lambda: watched.of_log("transactions_expired_total") == 1)
    assert watched.of_log("open_transactions") == 1
    blocked = [edge.start_append(append_op(exclusive_entry(V))) for _ in range(2)]
    await asyncio.gather(*blocked)
    assert watched.value("lock_wait_seconds_count") == 1
    assert watched.of_log("open_transactions") == 0


async def test_a_checkpoint_ends_its_lag(watched: Watched) -> None:
    edge = await watched.assign(1)
    await edge.wal.append(entry(b"x" * 1000, number=0))
    assert (watched.of_log("checkpoint_lag_bytes") or 0) > 1000
    assert (watched.of_log("write_ahead_bytes") or 0) > 1000
    await watched.node.release(CH, 1)
    watched.authority.terms[CH] = 2
    await watched.node.assign(CH, 2)
    assert watched.of_log("checkpoint_lag_bytes") == 0
    assert watched.of_log("checkpoint_lag_seconds") == 0


async def test_before_the_first_checkpoint_the_lag_begins_with_the_log(watched: Watched) -> None:
    """It is no age since 1970, and another owner makes it no younger."""
    watched.authority.terms[CH] = 1
    await watched.node.assign(CH, 1)
    opened = watched.node.wal(CH).settled_tick()
    wal = (await watched.assign(1)).wal
    assert wal.recovery.checkpoint_tick == 0
    lag = watched.of_log("checkpoint_lag_seconds")
    assert lag == (wal.settled_tick() - opened) / TICKS_PER_S
    watched.node.stop(CH, StaleTerm(CH, 1, 2))  # as a kill: nothing is saved
    watched.oracle._next += 50 * TICKS_PER_S
    watched.authority.terms[CH] = 2
    await watched.node.assign(CH, 2)
    wal = watched.node.wal(CH, 2)
    await wal.append(entry(b"of the next owner"))
    assert wal.recovery.checkpoint_tick == 0
    created = wal.recovery.shards.vchannels[V].created_tick
    lag = watched.of_log("checkpoint_lag_seconds")
    assert lag == (wal.settled_tick() - created) / TICKS_PER_S
    assert lag >= 50


async def test_a_poisoned_log_is_held_up_and_takes_no_appends(watched: Watched) -> None:
    edge = await watched.assign(1)
    assert watched.of_log("serving") == 1
    assert watched.of_log("held_up", condition=QUARANTINED) is None
    edge.wal.recovery.poison = WalError(ErrorCode.UNRECOVERABLE, "an entry of another world")
    with pytest.raises(WalError):
        await edge.wal.append(entry(b"refused", number=0))
    assert watched.of_log("serving") == 0
    assert watched.of_log("held_up", condition=QUARANTINED) == 1


async def test_a_log_whose_segments_wait_is_held_up_and_serves(watched: Watched) -> None:
    edge = await watched.assign(1)
    edge.wal.recovery.segments.trouble = "s3://b: no answer"
    assert watched.of_log("serving") == 1
    assert watched.of_log("held_up", condition=SEGMENTS_WAIT) == 1
    edge.wal.recovery.segments.trouble = ""
    assert watched.of_log("held_up", condition=SEGMENTS_WAIT) is None


async def test_frames_that_do_not_count_are_counted(watched: Watched) -> None:
    edge = await watched.assign(1)
    faults = iter([Fault.FAIL_BEFORE])
    watched.backend.faults = lambda _topic: next(faults, Fault.NONE)
    appends = [edge.start_append(append_op(entry(b"%d" % n, number=n))) for n in range(2)]
    await asyncio.gather(*appends)
    assert watched.of_log("self_reopens_total") == 1
    assert watched.of_log("frames_dropped_total", why="orphaned") == 1
    assert watched.of_log("frames_dropped_total", why="void") == 0
    assert watched.since("appended_entries_total") == 2


async def test_no_label_has_more_values_than_a_node_has_logs(watched: Watched) -> None:
    edge = await watched.assign(1)
    await create(edge.wal, *(f"{CH}_{number}v0" for number in range(20)))
    for number in range(20):
        await edge.wal.append(entry(b"x", vchannel=f"{CH}_{number}v0", producer=b"%d" % number))
    text = generate_latest(watched.registry).decode()
    assert "v0" not in text
    names = {line.split("{")[0] for line in text.splitlines() if not line.startswith("#")}
    sizes: Callable[[str], int] = lambda name: text.count(f"\n{name}{{")  # noqa: E731
    assert max(map(sizes, names)) <= 3 * 15
