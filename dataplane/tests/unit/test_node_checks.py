"""What a client may not append is refused before the log is touched."""

from __future__ import annotations

import pytest

from walplane.channel import cchannel_name
from walplane.message.builder import BroadcastMutableMessage, MutableMessage, insert
from walplane.message.registry import MessageType
from walplane.node.checks import check_append, check_vchannel
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2

PCHANNEL = "test_0"
VCHANNEL = "test_0_1v0"


class Known:
    pchannel = PCHANNEL
    max_entry_bytes = 1000

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


@pytest.mark.parametrize("kind", ["begin", "body"])
def test_a_transaction_is_refused_rather_than_written_without_its_meaning(kind: str) -> None:
    entry = insert(VCHANNEL, b"payload").to_entry()
    if kind == "begin":
        header = headers_pb2.BeginTxnHeader()
        entry = MutableMessage(MessageType.BEGIN_TXN, VCHANNEL, header).to_entry()
    else:
        entry.envelope.txn.txn_id = 7
    error = refused(entry)
    assert error.code is ErrorCode.INVALID_ARGUMENT
    assert "transactions" in error.message


def test_a_replicated_entry_is_refused_here() -> None:
    entry = insert(VCHANNEL, b"payload").to_entry()
    entry.envelope.replicate.cluster_id = "elsewhere"
    assert refused(entry).code is ErrorCode.REPLICATE_VIOLATION
