"""Named producers in a log: opened, taken over, told where they are, over crashes and owners."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walplane.message import codec
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType, check_client_entry
from walplane.node.checks import check_append
from walplane.rpc.errors import Action, ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.testkit.faulty import Fault
from walplane.testkit.txns import refused
from walplane.testkit.wal_world import (
    CH,
    VCHANNELS,
    V,
    World,
    create,
    create_entry,
    drop_entry,
    entry,
    payloads_of,
    read_all,
)
from walplane.ticks import TICKS_PER_MS
from walplane.wal.config import WALConfig
from walplane.wal.interceptors.base import append_op
from walplane.wal.interceptors.named import _entry as open_entry
from walplane.wal.metalog import MetaState
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.named import Standing
from walplane.wal.recovery.state import RecoveryState
from walplane.wal.wal import WAL

FENCED, BUSY = ErrorCode.PRODUCER_FENCED, ErrorCode.RESOURCE_ACQUIRED


@pytest.fixture
def world_url(each_url: str) -> str:
    return each_url


async def opened(wal: WAL, opener: bytes, name: str = "n", vchannel: str = V) -> Standing:
    """As a client opens it: asks first."""
    known = await wal.opens.open(vchannel, name, b"", 0)
    return await wal.opens.open(vchannel, name, opener, known.epoch)


def batch(
    epoch: int, number: int, *payloads: bytes, name: str = "n", vchannel: str = V
) -> log_pb2.Entry:
    made = entry(*(payloads or (b"%d" % number,)), vchannel=vchannel)
    made.envelope.producer.CopyFrom(log_pb2.ProducerBatch(name=name, epoch=epoch, number=number))
    return made


async def next_owner(world: World, wal: WAL, how: str, config: WALConfig | None = None) -> WAL:
    if how == "here":
        return wal
    if how == "from a snapshot":
        await wal.checkpoint()
    return await world.open(wal.term + 1, config)


WHERE = pytest.mark.parametrize("how", ["here", "from a snapshot", "by replay"])


@WHERE
async def test_whoever_opens_is_told_what_is_written_and_keeps_out_the_one_before(
    world: World, how: str
) -> None:
    wal = await world.open(1)
    old = await opened(wal, b"first")
    assert (old.opener, old.next_number) == (b"first", 0)
    await wal.append(batch(old.epoch, 0, b"a", b"b", b"c"))
    await wal.append(batch(old.epoch, 3, b"d"))
    wal = await next_owner(world, wal, how)
    new = await opened(wal, b"second")
    assert (new.opener, new.next_number) == (b"second", 4)
    assert new.epoch > old.epoch
    assert await refused(wal.append(batch(old.epoch, 4))) is FENCED
    assert await refused(wal.append(batch(old.epoch, 3, b"d"))) is FENCED
    await wal.append(batch(new.epoch, 4, b"e"))
    wal = await next_owner(world, wal, how)
    assert await wal.opens.open(V, "n", b"", 0) == new._replace(next_number=5)
    assert payloads_of(await read_all(wal)) == [b"a", b"b", b"c", b"d", b"e"]


@WHERE
async def test_an_open_that_is_asked_for_again_is_one_open(world: World, how: str) -> None:
    wal = await world.open(1)
    results = await asyncio.gather(*(wal.opens.open(V, "n", b"me", 0) for _ in range(5)))
    [standing] = set(results)
    wal = await next_owner(world, wal, how)
    assert await wal.opens.open(V, "n", b"me", 0) == standing, "its answer was lost"


@WHERE
async def test_repeats_and_gaps_are_those_of_messages(world: World, how: str) -> None:
    wal = await world.open(1)
    epoch = (await opened(wal, b"me")).epoch
    first = await wal.append(batch(epoch, 0, b"a", b"b"))
    second = await wal.append(batch(epoch, 2, b"c"))
    wal = await next_owner(world, wal, how)
    assert await wal.append(batch(epoch, 0, b"a", b"b")) == first
    assert await wal.append(batch(epoch, 2, b"c")) == second
    assert await refused(wal.append(batch(epoch, 2, b"other"))) is ErrorCode.INVALID_ARGUMENT
    assert await refused(wal.append(batch(epoch, 4))) is ErrorCode.INVALID_REQUEST_SEQ
    assert await refused(wal.append(batch(epoch, 1))) is ErrorCode.OUTCOME_UNKNOWN
    await wal.append(batch(epoch, 3, b"d"))
    assert payloads_of(await read_all(wal)) == [b"a", b"b", b"c", b"d"]


async def test_what_was_in_flight_when_another_opens_is_written_before_or_never(
    world: World,
) -> None:
    wal = await world.open(1)
    epoch = (await opened(wal, b"first")).epoch
    acknowledge = asyncio.Event()
    world.backend.before_ack = acknowledge.wait
    before = [asyncio.create_task(wal.append(batch(epoch, number))) for number in range(3)]
    await asyncio.sleep(0)
    opening = asyncio.create_task(wal.opens.open(V, "n", b"second", epoch))
    await asyncio.sleep(0)
    assert await refused(wal.append(batch(epoch, 3))) is BUSY, "it is being decided"
    assert await refused(wal.opens.open(V, "n", b"third", epoch)) is BUSY
    acknowledge.set()
    standing = await opening
    assert (standing.opener, standing.next_number) == (b"second", 3)
    await asyncio.gather(*before)
    assert await refused(wal.append(batch(epoch, 3))) is FENCED
    assert await refused(wal.opens.open(V, "n", b"late", epoch)) is BUSY, "of an older epoch"
    assert (await opened(wal, b"third")).epoch > standing.epoch


@pytest.mark.parametrize("fault", [f for f in Fault if f is not Fault.NONE])
async def test_an_open_survives_a_self_reopen_among_its_batches(world: World, fault: Fault) -> None:
    wal = await world.open(1, WALConfig(ack_timeout_s=0.2, idle_tick_s=0.02))
    epoch = (await opened(wal, b"first")).epoch
    left = [1]

    def once(topic: str) -> Fault:
        return fault if topic == CH and left and left.pop() else Fault.NONE

    world.backend.faults = once
    async with asyncio.timeout(10):
        appends = [wal.start_append(append_op(batch(epoch, number))) for number in range(3)]
        await asyncio.sleep(0)
        standing = await wal.opens.open(V, "n", b"second", epoch)
        await asyncio.gather(*appends)
    assert (standing.opener, standing.next_number) == (b"second", 3)
    await wal.append(batch(standing.epoch, 3))
    assert payloads_of(await read_all(wal)) == [b"0", b"1", b"2", b"3"]


async def test_names_count_for_themselves_on_each_vchannel(world: World) -> None:
    wal = await world.open(1)
    epoch = (await opened(wal, b"me")).epoch
    await opened(wal, b"me", "other")
    await opened(wal, b"me", vchannel=VCHANNELS[1])
    await wal.append(batch(epoch, 0))
    assert (await opened(wal, b"you", "other")).next_number == 0
    assert (await opened(wal, b"you", vchannel=VCHANNELS[1])).next_number == 0
    await wal.append(batch(epoch, 1))


async def test_readers_see_nothing_of_an_open_and_go_on_behind_it(world: World) -> None:
    wal = await world.open(1)
    written = await wal.append(batch((await opened(wal, b"me")).epoch, 0, b"a"))
    await opened(wal, b"you")
    items = await read_all(wal)
    assert [(item.first_tick, item.entry.envelope.type) for item in items] == [
        (written.first_tick, MessageType.INSERT)
    ]


async def test_a_new_name_is_refused_when_there_are_too_many_and_none_is_forgotten(
    world: World,
) -> None:
    few = WALConfig(named_producers=2, named_producer_age_s=1.0, producer_bytes=1, idle_tick_s=0.02)
    wal = await world.open(1, few)
    for name in ("a", "b"):
        epoch = (await opened(wal, b"me", name)).epoch
        await wal.append(batch(epoch, 0, name=name))
    with pytest.raises(WalError, match="as many named producers") as error:
        await opened(wal, b"me", "c")
    assert error.value.action is Action.GIVE_UP
    assert (await opened(wal, b"you", "a")).next_number == 1
    reserve = world.opened[-1][0].reserve
    for _ in range(20):  # tick time goes on by 1.2 s
        while reserve.take(60 * TICKS_PER_MS, 0) is None:
            await reserve.ready(60 * TICKS_PER_MS, 0)
    await wal.append(entry(b"later"))
    await opened(wal, b"me", "c")
    again = await opened(wal, b"me", "b")
    assert again.next_number == 0, "forgotten: nobody used it for long"
    assert again.epoch > epoch


@WHERE
async def test_names_on_dropped_vchannels_take_no_room_and_their_repeats_are_answered(
    world: World, how: str
) -> None:
    few = WALConfig(named_producers=2, idle_tick_s=0.02)
    wal = await world.open(1, few)
    gone = ["test_0_7v0", "test_0_8v0"]
    await create(wal, *gone)
    epochs = [(await opened(wal, b"me", vchannel=vchannel)).epoch for vchannel in gone]
    batches = [batch(epoch, 0, vchannel=on) for epoch, on in zip(epochs, gone, strict=True)]
    first = [await wal.append(each) for each in map(again, batches)]
    for vchannel in gone:
        await wal.append(drop_entry(vchannel))
    wal = await next_owner(world, wal, how, few)
    for name in ("a", "b"):
        await opened(wal, b"me", name)
    with pytest.raises(WalError, match="as many named producers"):
        await opened(wal, b"me", "c")
    for each in batches:
        check_append(each, wal)
    assert [await wal.append(each) for each in batches] == first


@given(st.data())
def test_a_replay_over_a_snapshot_keeps_the_same_names_of_dropped_vchannels(
    data: st.DataObject,
) -> None:
    """The oldest go, by tick: drops of different VChannels lie in the log in any order."""
    names = [f"test_0_{number}v0" for number in range(1, 6)]
    made = [create_entry(name) for name in names]
    for tick, name in enumerate(data.draw(st.permutations(names)), len(made) + 1):
        made += [open_entry(("n", name), b"me"), batch(tick, 0, vchannel=name)]
    log = [logged(one, tick) for tick, one in enumerate(made, 1)]
    ends = list(enumerate(map(drop_entry, data.draw(st.permutations(names))), len(log) + 1))
    log += [logged(one, tick) for tick, one in data.draw(st.permutations(ends))]
    few = WALConfig(named_producers=data.draw(st.integers(1, 6)))
    whole, again = RecoveryState(few), RecoveryState(few)
    cut = data.draw(st.integers(0, len(log)))
    for item in log[:cut]:
        whole.observe(item)
    again.load(MetaState(whole.snapshot(log_pb2.WALCheckpoint())))
    for item in log[cut:]:
        whole.observe(item)
    for item in log[data.draw(st.integers(0, cut)) :]:
        again.observe(item)
    assert sorted(again.named.save()) == sorted(whole.named.save())
    assert len(whole.named) == min(few.named_producers, len(names))
    assert whole.named.has_room(0, 0)


def again(one: log_pb2.Entry) -> log_pb2.Entry:
    copy = log_pb2.Entry()
    copy.CopyFrom(one)
    return copy


def logged(one: log_pb2.Entry, tick: int) -> LogEntry:
    one.envelope.first_tick = tick
    return LogEntry(one, MessageID("memory", (tick,)), 0)


async def test_a_drop_that_comes_to_the_cchannel_ends_no_name_there(world: World) -> None:
    wal = await world.open(1, WALConfig(named_producers=1, idle_tick_s=0.02))
    await opened(wal, b"me", vchannel=f"{CH}_vcchan")
    told = drop_entry(V)
    told.envelope.vchannel = f"{CH}_vcchan"
    await wal.append(told)
    with pytest.raises(WalError, match="as many named producers"):
        await opened(wal, b"me")


async def test_what_nobody_opened_is_refused(world: World) -> None:
    wal = await world.open(1)
    assert await refused(wal.append(batch(1, 0))) is FENCED
    epoch = (await opened(wal, b"me")).epoch
    assert await refused(wal.append(batch(epoch + 1, 0))) is FENCED
    assert await refused(wal.opens.open(V, "", b"me", 0)) is ErrorCode.INVALID_ARGUMENT
    assert await refused(wal.opens.open(V, "x" * 257, b"me", 0)) is ErrorCode.INVALID_ARGUMENT
    assert await refused(wal.opens.open(V, "n", b"x" * 65, 0)) is ErrorCode.INVALID_ARGUMENT


def _with(**changes: object) -> log_pb2.Envelope:
    made = batch(1, 0).envelope
    made.MergeFrom(log_pb2.Envelope(**changes))  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize(
    "envelope",
    [
        _with(producer=log_pb2.ProducerBatch(opener=b"me")),
        _with(producer=log_pb2.ProducerBatch(producer_id=b"id")),
        _with(producer=log_pb2.ProducerBatch(name="x" * 300)),
        _with(txn=log_pb2.TxnContext(txn_id=7, kind=log_pb2.TXN_KIND_PART)),
        _with(type=MessageType.MANUAL_FLUSH),
        _with(type=MessageType.TIME_TICK),
    ],
    ids=["an open", "an id", "a long name", "a body", "a flush", "a TimeTick"],
)
def test_what_a_client_may_not_say_of_a_named_producer(envelope: log_pb2.Envelope) -> None:
    with pytest.raises(WalError) as error:
        check_client_entry(envelope)
    assert error.value.code is ErrorCode.INVALID_ARGUMENT


async def test_a_whole_transaction_takes_the_numbers_of_its_messages(world: World) -> None:
    wal = await world.open(1)
    whole = batch((await opened(wal, b"me")).epoch, 0, b"a", b"b")
    whole.envelope.txn.kind = log_pb2.TXN_KIND_WHOLE
    check_client_entry(whole.envelope)
    await wal.append(whole)
    assert (await opened(wal, b"you")).next_number == 2
    assert codec.decode_body((await read_all(wal))[0].entry.body)[1] == [b"a", b"b"]
