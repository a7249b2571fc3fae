"""Appends under callers' idempotency keys: once, over crashes and owners, within bounds."""

from __future__ import annotations

import asyncio

import pytest

from walplane.message.codec import encode_body, seal_entry
from walplane.message.ids import MessageID
from walplane.message.registry import IDEMPOTENCY_KEY, MessageType, check_client_entry
from walplane.node.checks import check_append
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.testkit.faulty import Fault
from walplane.testkit.wal_world import CH, V, World, entry, payloads_of, read_all
from walplane.ticks import TICKS_PER_MS
from walplane.wal.config import WALConfig
from walplane.wal.interceptors.base import AppendOp, append_op
from walplane.wal.interceptors.keyed import KeyedAppends
from walplane.wal.ports import AppendResult, LogEntry
from walplane.wal.recovery.keyed import KeyedResults


@pytest.fixture
def world_url(each_url: str) -> str:
    return each_url


def keyed(key: str, *payloads: bytes, vchannel: str = V) -> log_pb2.Entry:
    return entry(*payloads, vchannel=vchannel, properties={IDEMPOTENCY_KEY: key})


def written(key: str, tick: int, payload: bytes = b"x") -> LogEntry:
    item = keyed(key, payload)
    item.envelope.first_tick = tick
    return LogEntry(item, MessageID("memory", (tick // TICKS_PER_MS,)), 1)


async def test_a_repeat_gets_the_first_result_also_beside_batches_of_producers(
    world: World,
) -> None:
    wal = await world.open(1)
    first = await wal.append(keyed("k", b"a", b"b"))
    await wal.append(entry(b"0", number=0))
    assert await wal.append(keyed("k", b"a", b"b")) == first
    await wal.append(entry(b"1", number=1))
    assert payloads_of(await read_all(wal)) == [b"a", b"b", b"0", b"1"]


async def test_the_next_owners_know_the_keys_with_and_without_a_checkpoint(world: World) -> None:
    wal = await world.open(1)
    first = await wal.append(keyed("saved", b"a"))
    await wal.checkpoint()
    second = await wal.append(keyed("in the tail", b"b"))
    for term in (2, 3):
        successor = await world.open(term)
        assert await successor.append(keyed("saved", b"a")) == first
        assert await successor.append(keyed("in the tail", b"b")) == second
        await successor.checkpoint()
        assert payloads_of(await read_all(successor)) == [b"a", b"b"]


async def test_another_message_under_the_same_key_is_refused(world: World) -> None:
    wal = await world.open(1)
    await wal.append(keyed("k", b"a"))
    others = [keyed("k", b"other"), keyed("k", b"a"), keyed("k", b"a")]
    others[1].envelope.type = MessageType.DELETE
    others[2].envelope.partition_id = 7
    for other in others:
        with pytest.raises(WalError, match="another message") as error:
            await wal.append(other)
        assert error.value.code is ErrorCode.INVALID_ARGUMENT
    assert payloads_of(await read_all(wal)) == [b"a"]


async def test_a_key_counts_within_its_vchannel(world: World) -> None:
    wal = await world.open(1)
    await wal.append(keyed("k", b"a"))
    await wal.append(keyed("k", b"b", vchannel=f"{CH}_1v1"))
    assert payloads_of(await read_all(wal)) == [b"a", b"b"]


async def test_a_repeat_after_the_collection_was_dropped_gets_the_first_result(
    world: World,
) -> None:
    wal = await world.open(1)
    first = await wal.append(keyed("k", b"a"))
    envelope = log_pb2.Envelope(
        version=1, type=MessageType.DROP_COLLECTION, vchannel=V, collection_id=1, count=1
    )
    body = encode_body(headers_pb2.CollectionHeader().SerializeToString(), [b""])
    await wal.append(seal_entry(envelope, body))
    again = keyed("k", b"a")
    check_append(again, wal)
    assert await wal.append(again) == first
    with pytest.raises(WalError, match="there is no VChannel"):
        check_append(keyed("new", b"a"), wal)


@pytest.mark.parametrize("fault", [f for f in Fault if f is not Fault.NONE])
async def test_repeats_in_flight_share_one_outcome_through_a_self_reopen(
    world: World, fault: Fault
) -> None:
    config = WALConfig(ack_timeout_s=0.2, idle_tick_s=0.02)
    wal = await world.open(1, config)
    left = [1]

    def once(topic: str) -> Fault:
        return fault if topic == CH and left and left.pop() else Fault.NONE

    world.backend.faults = once
    async with asyncio.timeout(10):
        results = await asyncio.gather(*(wal.append(keyed("k", b"a")) for _ in range(20)))
    assert wal.open_number >= 1
    assert len({result.first_tick for result in results}) == 1
    assert payloads_of(await read_all(wal)) == [b"a"]


async def test_a_repeat_goes_ahead_when_the_first_failed() -> None:
    results = KeyedResults(10, 1 << 20, 1000)
    appends = KeyedAppends(results)
    gate, sent = asyncio.Event(), []

    async def forward(op: AppendOp) -> AppendResult:
        sent.append(op)
        number = len(sent)
        await gate.wait()
        if number == 1:
            raise WalError(ErrorCode.RESOURCE_ACQUIRED, "not now")
        item = LogEntry(op.entry, MessageID("memory", (number,)), 1)
        results.observe(item)
        return AppendResult(item.message_id, 0, 1, None, 0, 1)

    calls = [
        asyncio.create_task(appends.append(append_op(keyed("k", b"a")), forward)) for _ in range(4)
    ]
    await asyncio.sleep(0)
    assert len(sent) == 1
    gate.set()
    first, *rest = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(first, WalError)
    assert [r.message_id.record for r in rest if isinstance(r, AppendResult)] == [(2,)] * 3
    assert len(sent) == 2


def test_results_are_bounded_in_number_bytes_and_age() -> None:
    few = KeyedResults(3, 1 << 20, 10_000)
    for number in range(5):
        few.observe(written(str(number), number * TICKS_PER_MS))
    assert [few.find((V, str(n)), keyed(str(n), b"x")) is None for n in range(5)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    small = KeyedResults(1000, 2000, 10_000)
    for number in range(50):
        small.observe(written("k" * 200 + str(number), number * TICKS_PER_MS))
        assert small.held_bytes <= 2000
    young = KeyedResults(1000, 1 << 20, 10)
    young.observe(written("old", 0))
    young.observe(LogEntry(entry(b"plain"), MessageID("memory", (1,)), 1))
    assert len(young) == 1
    late = LogEntry(entry(b"plain"), MessageID("memory", (2,)), 1)
    late.entry.envelope.first_tick = 11 * TICKS_PER_MS
    young.observe(late)
    assert len(young) == 0
    assert young.held_bytes == 0


def test_a_barrier_ages_nothing_since_its_own_writer_does_not_observe_it() -> None:
    results = KeyedResults(10, 1 << 20, 1000)
    results.observe(written("a", 1))
    barrier = written("", 5000 * TICKS_PER_MS)
    barrier.entry.envelope.properties.clear()
    barrier.entry.envelope.type = MessageType.RECOVERY_BARRIER
    results.observe(barrier)
    assert (V, "a") in results


def test_a_snapshot_restores_and_observing_twice_changes_nothing() -> None:
    keys = KeyedResults(5000, 1 << 24, 10_000)
    items = [written(str(number), number * TICKS_PER_MS) for number in range(2500)]
    for item in items:
        keys.observe(item)
    parts = keys.save()
    assert len(parts) > 1
    restored = KeyedResults(5000, 1 << 24, 10_000)
    restored.load(parts)
    for item in items[2000:]:
        restored.observe(item)
    assert restored.save() == parts
    assert restored.held_bytes == keys.held_bytes
    assert restored.find((V, "7"), keyed("7", b"x")) == keys.find((V, "7"), keyed("7", b"x"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"type": MessageType.MANUAL_FLUSH}, "only Inserts and Deletes"),
        ({"properties": {IDEMPOTENCY_KEY: ""}}, "1 to 256"),
        ({"properties": {IDEMPOTENCY_KEY: "k" * 257}}, "1 to 256"),
        ({"txn": log_pb2.TxnContext(txn_id=1, kind=log_pb2.TXN_KIND_PART)}, "in a transaction"),
        ({"producer": log_pb2.ProducerBatch(producer_id=b"p")}, "send one of the two"),
    ],
)
def test_a_key_where_there_can_be_none_is_refused(change: dict[str, object], why: str) -> None:
    envelope = keyed("k", b"a").envelope
    assert check_client_entry(envelope).type is MessageType.INSERT
    changed = log_pb2.Envelope(**change)  # type: ignore[arg-type]
    envelope.MergeFrom(changed)
    with pytest.raises(WalError, match=why):
        check_client_entry(envelope)
