"""Messages from their builders, over the entry, to the views a reader gets."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest

from walplane.message import codec
from walplane.message.builder import (
    BroadcastMutableMessage,
    MutableMessage,
    broadcast,
    create_collection,
    delete,
    drop_collection,
    insert,
)
from walplane.message.ids import MessageID, ResumeToken
from walplane.message.registry import MessageType
from walplane.message.view import Batch
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2

VCHANNEL = "by-dev_0_7v0"
CCHANNEL = "by-dev_0_vcchan"
POSITION = MessageID("pulsar", (12, 34), 2)
CONFIRMED = MessageID("pulsar", (12, 30))


def written(message: MutableMessage, first_tick: int = 100) -> log_pb2.Entry:
    """The entry of `message` as it lies in the log."""
    entry = message.to_entry()
    entry.envelope.first_tick = first_tick
    entry.envelope.term = 3
    entry.envelope.last_confirmed.CopyFrom(CONFIRMED.to_proto())
    return entry


def refusal(message: MutableMessage | BroadcastMutableMessage) -> str:
    with pytest.raises(WalError) as caught:
        if isinstance(message, BroadcastMutableMessage):
            message.split(1, 1)
        else:
            message.to_entry()
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    return caught.value.message


def flush_all() -> BroadcastMutableMessage:
    return broadcast(MessageType.FLUSH_ALL, headers_pb2.FlushAllHeader(), ["by-dev_0", "by-dev_1"])


@pytest.mark.parametrize("build", [insert, delete])
def test_a_header_that_says_nothing_is_none_and_is_read_as_an_empty_one(
    build: Callable[..., MutableMessage],
) -> None:
    plain = build(VCHANNEL, b"one")
    assert plain.header is None
    header = build(VCHANNEL, b"one", rows=1).header
    assert header is not None
    header.Clear()
    assert plain.to_entry() == replace(plain, header=header).to_entry()
    assert Batch(written(plain), POSITION, open_number=1).header == header


def test_a_message_can_go_to_another_process_and_be_copied() -> None:
    for message in (insert(VCHANNEL, b"one"), insert(VCHANNEL, b"one", rows=2).with_key("k")):
        assert pickle.loads(pickle.dumps(message)) == message  # noqa: S301 - our own
        assert copy.deepcopy(message) == message


def test_an_insert_as_it_is_sent() -> None:
    message = insert(
        VCHANNEL,
        b"one",
        b"",
        collection_id=7,
        partition_id=8,
        schema_version=2,
        rows=30,
        payload_format=log_pb2.PAYLOAD_FORMAT_ARROW_STREAM,
        properties={"farbe": "grün"},
    )
    entry = message.to_entry()
    assert entry.envelope == log_pb2.Envelope(
        version=1,
        type=2,
        vchannel=VCHANNEL,
        collection_id=7,
        partition_id=8,
        schema_version=2,
        count=2,
        payload_format=log_pb2.PAYLOAD_FORMAT_ARROW_STREAM,
        properties={"farbe": "grün"},
    )
    codec.check_entry(entry)
    header, payloads = codec.decode_body(entry.body)
    assert headers_pb2.InsertHeader.FromString(header).rows == 30
    assert payloads == [b"one", b""]


def test_a_delete_as_it_is_sent() -> None:
    entry = delete(VCHANNEL, b"key", collection_id=7, partition_id=8, rows=5).to_entry()
    assert (entry.envelope.type, entry.envelope.partition_id) == (3, 8)
    header, payloads = codec.decode_body(entry.body)
    assert headers_pb2.DeleteHeader.FromString(header).rows == 5
    assert payloads == [b"key"]


def test_a_header_of_another_type_is_refused() -> None:
    message = MutableMessage(MessageType.INSERT, VCHANNEL, headers_pb2.DeleteHeader())
    assert refusal(message) == "INSERT takes a InsertHeader, not a DeleteHeader"


def test_a_message_without_payloads_is_refused() -> None:
    assert "an entry of 0 messages of INSERT: put 1" in refusal(insert(VCHANNEL))


def test_a_message_that_the_wal_makes_itself_is_refused() -> None:
    message = MutableMessage(MessageType.TIME_TICK, VCHANNEL, headers_pb2.TimeTickHeader())
    assert "made by the WAL itself" in refusal(message)


def test_reserved_properties_are_refused() -> None:
    assert "'_xk' is reserved" in refusal(insert(VCHANNEL, b"", properties={"_xk": "1"}))


def test_a_broadcast_that_was_not_split_is_refused() -> None:
    header = headers_pb2.CollectionHeader(collection_id=7)
    message = MutableMessage(MessageType.DROP_COLLECTION, VCHANNEL, header)
    assert "ask the coordinator" in refusal(message)


def test_a_repeat_after_a_restart_has_the_same_checksum() -> None:
    def entry(config: dict[str, str]) -> log_pb2.Entry:
        header = headers_pb2.AlterWALHeader(target_backend="kafka://b", config=config)
        return broadcast(MessageType.ALTER_WAL, header, ["by-dev_0"]).split(1, 1)[0].to_entry()

    config = {f"key{number}": str(number) for number in range(50)}
    backwards = dict(reversed(config.items()))
    assert entry(config).body_crc32c == entry(backwards).body_crc32c


def test_create_collection_goes_to_its_vchannels_and_the_cchannel() -> None:
    header = headers_pb2.CreateCollectionHeader(
        db_name="sales",
        collection_id=7,
        collection_name="orders",
        vchannels=[VCHANNEL, "by-dev_1_7v1"],
        schema_version=1,
    )
    parts = create_collection(header, CCHANNEL).split(broadcast_id=5, coord_term=9)
    assert [part.vchannel for part in parts] == [VCHANNEL, "by-dev_1_7v1", CCHANNEL]
    for part in parts:
        entry = part.to_entry()
        envelope = entry.envelope
        assert (envelope.type, envelope.collection_id, envelope.schema_version) == (5, 7, 1)
        assert codec.decode_body(entry.body) == (header.SerializeToString(), [b""])
        assert envelope.broadcast == log_pb2.BroadcastHeader(
            broadcast_id=5,
            vchannels=[VCHANNEL, "by-dev_1_7v1", CCHANNEL],
            resource_keys=[
                log_pb2.ResourceKey(domain=log_pb2.RESOURCE_DOMAIN_CLUSTER, shared=True),
                log_pb2.ResourceKey(
                    domain=log_pb2.RESOURCE_DOMAIN_DB_NAME, key="sales", shared=True
                ),
                log_pb2.ResourceKey(
                    domain=log_pb2.RESOURCE_DOMAIN_COLLECTION_NAME, key="sales/orders"
                ),
            ],
            coord_term=9,
        )


def test_drop_collection_goes_to_its_vchannels_and_the_cchannel() -> None:
    header = headers_pb2.CollectionHeader(collection_id=7, collection_name="orders")
    parts = drop_collection(header, [VCHANNEL], CCHANNEL).split(5, 9)
    assert [part.vchannel for part in parts] == [VCHANNEL, CCHANNEL]
    assert [part.to_entry().envelope.type for part in parts] == [6, 6]
    assert parts[0].collection_id == 7


def test_a_broadcast_takes_collection_and_partition_from_its_header() -> None:
    header = headers_pb2.PartitionHeader(collection_id=7, partition_id=8)
    made = broadcast(MessageType.DROP_PARTITION, header, [CCHANNEL], payload=b"why")
    (part,) = made.split(1, 1)
    envelope = part.to_entry().envelope
    assert (envelope.collection_id, envelope.partition_id) == (7, 8)
    assert part.payloads == (b"why",)


def test_what_is_for_every_pchannel_names_no_vchannel() -> None:
    parts = flush_all().split(1, 1)
    assert len(parts) == 2
    for part in parts:
        envelope = part.to_entry().envelope
        assert (envelope.vchannel, envelope.is_pchannel_level) == ("", True)
        assert envelope.broadcast.ack_sync_up
        assert list(envelope.broadcast.vchannels) == ["by-dev_0", "by-dev_1"]


def test_what_replication_must_skip_says_so_itself() -> None:
    snapshot = headers_pb2.SnapshotHeader(collection_id=7, snapshot_name="monday")
    (part,) = broadcast(MessageType.CREATE_SNAPSHOT, snapshot, [CCHANNEL]).split(1, 1)
    assert dict(part.to_entry().envelope.properties) == {"_ur": "1"}
    assert not part.properties
    assert not flush_all().split(1, 1)[0].to_entry().envelope.properties


@pytest.mark.parametrize("targets", [[], [CCHANNEL, CCHANNEL]])
def test_a_broadcast_names_each_target_once(targets: list[str]) -> None:
    header = headers_pb2.RoleHeader(role_name="reader")
    made = broadcast(MessageType.ALTER_ROLE, header, targets)
    assert "name each target channel once" in refusal(made)


def test_data_is_not_broadcast() -> None:
    made = broadcast(MessageType.INSERT, headers_pb2.InsertHeader(), [VCHANNEL])
    assert refusal(made) == "INSERT goes to one VChannel: append it there"


def test_a_message_as_a_reader_sees_it() -> None:
    message = insert(VCHANNEL, b"a", b"b", b"c", rows=3, properties={"k": "v"})
    batch = Batch(written(message), POSITION, open_number=4)
    assert (len(batch), batch.first_tick, batch.last_tick) == (3, 100, 102)
    assert batch.payloads == [b"a", b"b", b"c"]
    last = list(batch)[-1]
    assert last.payload == b"c"
    assert str(last.message_id) == "pulsar:12:34:2:2"
    assert last.time_tick == 102
    assert last.last_confirmed_message_id == CONFIRMED
    assert last.resume_token == ResumeToken(CONFIRMED, 102, 3, 4, "by-dev_0")
    assert (last.type, last.vchannel, last.term) == (MessageType.INSERT, VCHANNEL, 3)
    assert last.properties == {"k": "v"}
    assert last.header == headers_pb2.InsertHeader(rows=3)


def test_before_anything_is_confirmed_a_token_starts_at_the_earliest() -> None:
    entry = written(insert(VCHANNEL, b"a"))
    entry.envelope.ClearField("last_confirmed")
    (message,) = Batch(entry, POSITION, open_number=1)
    assert message.last_confirmed_message_id is None
    assert str(message.resume_token) == "earliest@100.3.1@by-dev_0"


@pytest.mark.parametrize(
    ("tick", "left"), [(0, "abc"), (99, "abc"), (100, "bc"), (101, "c"), (102, ""), (900, "")]
)
def test_what_of_a_batch_lies_above_a_tick(tick: int, left: str) -> None:
    batch = Batch(written(insert(VCHANNEL, b"a", b"b", b"c")), POSITION, 1).after(tick)
    assert [message.payload.decode() for message in batch] == list(left)
    assert len(batch) == len(left)
    assert [message.time_tick for message in batch] == list(range(103 - len(left), 103))
    assert all(m.message_id.message_index == m.time_tick - 100 for m in batch)


def test_nothing_is_decoded_before_it_is_asked_for() -> None:
    entry = written(insert(VCHANNEL, b"a"))
    entry.body = b"garbage"
    batch = Batch(entry, POSITION, 1)
    assert (len(batch), batch.type, batch.last_tick) == (1, MessageType.INSERT, 100)
    with pytest.raises(WalError, match="pulsar:12:34:2:0 is damaged") as caught:
        list(batch)
    assert caught.value.code is ErrorCode.UNRECOVERABLE


@pytest.mark.parametrize("count", [1, 3])
def test_more_or_fewer_messages_than_ticks_are_never_delivered(count: int) -> None:
    entry = written(insert(VCHANNEL, b"a", b"b"))
    entry.envelope.count = count
    batch = Batch(entry, POSITION, 1)
    with pytest.raises(WalError, match=f"holds 2 messages, but says {count}") as caught:
        list(batch)
    assert caught.value.code is ErrorCode.UNRECOVERABLE


@pytest.mark.parametrize("count", [1, 3])
def test_more_or_fewer_messages_than_ticks_are_refused_when_they_are_sent(count: int) -> None:
    entry = insert(VCHANNEL, b"a", b"b").to_entry()
    entry.envelope.count = count
    with pytest.raises(WalError, match=f"says {count} messages, but holds 2 sizes") as caught:
        codec.check_entry(entry)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def test_sizes_that_do_not_add_up_are_refused_when_they_are_sent() -> None:
    body = log_pb2.EntryBody(sizes=[1, 3], payloads=b"abc").SerializeToString()
    entry = codec.seal_entry(log_pb2.Envelope(type=2, vchannel=VCHANNEL, count=2), body)
    with pytest.raises(WalError, match="4 bytes over 3 bytes of payload"):
        codec.check_entry(entry)
    with pytest.raises(WalError, match="sizes do not match"):
        codec.decode_body(body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x1a\x01a\x12\x01\x01", id="payloads before sizes"),
        pytest.param(b"\x12\x01\x01\x1a\x02a", id="payloads cut short"),
        pytest.param(b"\x12\x01\x01\x1a\x01ab", id="bytes behind the payloads"),
        pytest.param(b"\x12\x05\x01", id="sizes cut short"),
        pytest.param(b"\x12\x01\x80\x1a\x01a", id="half a size"),
        pytest.param(b"\x12\x01\x01\x1a", id="no length"),
        pytest.param(b"\x22\x01a", id="an unknown field"),
        pytest.param(b"\x1a\xff\xff\xff\xff\xff\xff", id="an endless length"),
    ],
)
def test_a_body_that_no_reader_could_take_apart_is_refused(body: bytes) -> None:
    entry = codec.seal_entry(log_pb2.Envelope(type=2, vchannel=VCHANNEL, count=1), body)
    with pytest.raises(WalError, match="fields in order") as sent:
        codec.check_entry(entry)
    assert sent.value.code is ErrorCode.INVALID_ARGUMENT
    with pytest.raises(WalError, match="body is damaged") as read:
        codec.decode_body(body)
    assert read.value.code is ErrorCode.UNRECOVERABLE
