"""What a client may not append is refused before the log is touched."""

from __future__ import annotations

import asyncio

import pytest

from walplane.backends.memory import MemoryBackend
from walplane.channel import cchannel_name
from walplane.message.builder import (
    BroadcastMutableMessage,
    MutableMessage,
    drop_collection,
    insert,
)
from walplane.message.registry import MessageType, spec_of
from walplane.node.checks import check_append, check_vchannel
from walplane.node.edge import Edge
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.wal_world import World, entry, payloads_of, read_all

PCHANNEL = "test_0"
VCHANNEL = "test_0_1v0"


class Known:
    pchannel = PCHANNEL
    max_entry_bytes = 1000

    def has_written(self, envelope: log_pb2.Envelope) -> bool:
        return False

    def has_vchannel(self, name: str) -> bool:
        return name == VCHANNEL


def refused(entry: log_pb2.Entry) -> WalError:
    with pytest.raises(WalError) as caught:
        check_append(entry, Known())
    return caught.value


def create(vchannel: str) -> log_pb2.Entry:
    header = headers_pb2.CreateCollectionHeader(collection_id=2)
    message = MutableMessage(MessageType.CREATE_COLLECTION, "", header)
    return BroadcastMutableMessage(message, [vchannel]).split(1, 1)[0].to_entry()


def test_a_sound_entry_passes() -> None:
    check_append(insert(VCHANNEL, b"payload").to_entry(), Known())


def test_a_vchannel_that_does_not_exist() -> None:
    error = refused(insert("test_0_2v0", b"payload").to_entry())
    assert error.code is ErrorCode.CHANNEL_NOT_EXIST
    assert "there is no VChannel test_0_2v0" in error.message


def test_create_collection_makes_its_vchannel_and_the_cchannel_always_exists() -> None:
    check_append(create("test_0_2v0"), Known())
    check_append(create(cchannel_name(PCHANNEL)), Known())


@pytest.mark.parametrize("name", ["test_1_1v0", "nonsense", "test_0", cchannel_name("test_1")])
def test_a_channel_of_another_place(name: str) -> None:
    error = refused(create(name))
    assert error.code is ErrorCode.INVALID_ARGUMENT
    assert repr(name) in error.message


def test_a_damaged_entry() -> None:
    entry = insert(VCHANNEL, b"payload").to_entry()
    entry.body = entry.body[:-1] + b"X"
    assert refused(entry).code is ErrorCode.INVALID_ARGUMENT


def test_an_oversized_entry() -> None:
    error = refused(insert(VCHANNEL, b"x" * 1000).to_entry())
    assert error.code is ErrorCode.INVALID_ARGUMENT
    assert "1000 bytes" in error.message
    assert VCHANNEL in error.message


def test_what_the_wal_makes_itself() -> None:
    entry = insert(VCHANNEL, b"payload").to_entry()
    entry.envelope.type = MessageType.TIME_TICK
    assert refused(entry).code is ErrorCode.INVALID_ARGUMENT


def test_a_dropped_vchannel_may_still_be_looked_at_only_when_asked_so() -> None:
    with pytest.raises(WalError) as caught:
        check_vchannel("test_0_2v0", Known())
    assert caught.value.code is ErrorCode.CHANNEL_NOT_EXIST
    check_vchannel("test_0_2v0", Known(), must_exist=False)


def in_txn(
    type_: MessageType, kind: log_pb2.TxnKind, txn_id: int = 0, keepalive_ms: int = 0
) -> log_pb2.Entry:
    header = spec_of(type_).header()
    entry = MutableMessage(type_, VCHANNEL, header).to_entry()
    entry.envelope.txn.kind = kind
    entry.envelope.txn.txn_id = txn_id
    entry.envelope.txn.keepalive_ms = keepalive_ms
    return entry


PART, WHOLE, NONE = log_pb2.TXN_KIND_PART, log_pb2.TXN_KIND_WHOLE, log_pb2.TXN_KIND_NONE


@pytest.mark.parametrize(
    "entry",
    [
        in_txn(MessageType.BEGIN_TXN, PART, keepalive_ms=1),
        in_txn(MessageType.INSERT, PART, 7),
        in_txn(MessageType.DELETE, WHOLE),
        in_txn(MessageType.COMMIT_TXN, PART, 7),
        in_txn(MessageType.ROLLBACK_TXN, PART, 7),
    ],
)
def test_the_parts_of_a_transaction_are_taken(entry: log_pb2.Entry) -> None:
    check_append(entry, Known())


@pytest.mark.parametrize(
    "entry",
    [
        MutableMessage(MessageType.BEGIN_TXN, VCHANNEL, headers_pb2.BeginTxnHeader()).to_entry(),
        in_txn(MessageType.BEGIN_TXN, PART),
        in_txn(MessageType.BEGIN_TXN, PART, keepalive_ms=1 << 40),
        in_txn(MessageType.BEGIN_TXN, PART, 7, keepalive_ms=1),
        in_txn(MessageType.COMMIT_TXN, PART),
        in_txn(MessageType.COMMIT_TXN, WHOLE, 7),
        in_txn(MessageType.INSERT, PART),
        in_txn(MessageType.INSERT, WHOLE, 7),
        in_txn(MessageType.INSERT, NONE, 7),
        in_txn(MessageType.MANUAL_FLUSH, PART, 7),
    ],
)
def test_what_is_no_part_of_a_transaction_is_refused(entry: log_pb2.Entry) -> None:
    assert refused(entry).code is ErrorCode.INVALID_ARGUMENT


async def test_a_repeat_of_what_is_written_gets_the_first_result_though_the_vchannel_is_gone() -> (
    None
):
    world = World(FaultyBackend(MemoryBackend()))
    edge = Edge(await world.open(1))
    header = headers_pb2.CollectionHeader(collection_id=1)
    made = [create(VCHANNEL), entry(b"row", number=0, vchannel=VCHANNEL)]
    made += [drop_collection(header, [VCHANNEL], "test_0_vcchan").split(2, 1)[0].to_entry()]
    for place, one in enumerate(made):
        if place != 1:
            one.envelope.producer.producer_id = b"broadcast/%d" % place
            one.envelope.producer.number = 0

    def again(one: log_pb2.Entry) -> log_pb2.Entry:
        copy = log_pb2.Entry()
        copy.CopyFrom(one)
        return copy

    first = [await edge.wal.append(again(one)) for one in made]
    assert not edge.wal.has_vchannel(VCHANNEL)
    for one, result in zip(made, first, strict=True):
        edge.check(one)
        assert await edge.wal.append(again(one)) == result
    with pytest.raises(WalError) as caught:
        edge.check(entry(b"new", number=1, vchannel=VCHANNEL))
    assert caught.value.code is ErrorCode.CHANNEL_NOT_EXIST
    await world.close()


async def test_what_waited_for_the_end_of_its_vchannel_is_not_written() -> None:
    vchannel = "test_0_2v0"
    world = World(FaultyBackend(MemoryBackend()))
    wal = await world.open(1)
    await wal.append(create(vchannel))
    acknowledge = asyncio.Event()
    world.backend.before_ack = acknowledge.wait
    header = headers_pb2.CollectionHeader(collection_id=2)
    [drop, _] = drop_collection(header, [vchannel], "test_0_vcchan").split(2, 1)
    dropping = asyncio.create_task(wal.append(drop.to_entry()))
    await asyncio.sleep(0)
    late = asyncio.create_task(wal.append(entry(b"late", vchannel=vchannel)))
    await asyncio.sleep(0)
    acknowledge.set()
    await dropping
    with pytest.raises(WalError) as caught:
        await late
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert b"late" not in payloads_of(await read_all(wal))
    await world.close()
