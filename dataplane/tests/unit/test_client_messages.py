"""From messages to entries, and from entries' answers back to the messages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from walplane.client.batcher import SendBatch, Waiting
from walplane.client.outgoing import Packed, pack
from walplane.client.results import AppendResults, PartialAppendError, Written
from walplane.message.builder import MutableMessage, insert
from walplane.message.codec import decode_body
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2

V0, V1 = "test_0_1v0", "test_0_1v1"


def shape(packed: Packed) -> list[tuple[str, list[bytes]]]:
    return [(vchannel, list(parcel.payloads)) for vchannel, parcel in packed.parcels]


def written(record: int, first_tick: int) -> Written:
    return Written(MessageID("memory", (record,)), first_tick, None)


async def test_equal_neighbours_share_a_parcel_and_order_is_kept() -> None:
    packed = pack([insert(V0, b"%d" % i) for i in range(5)], 100, 1000)
    assert shape(packed) == [(V0, [b"0", b"1", b"2", b"3", b"4"])]
    assert packed.slots == [0, 1, 2, 3, 4]


async def test_parcels_are_cut_by_count_and_by_bytes_but_never_a_message() -> None:
    messages = [insert(V0, b"aa"), insert(V0, b"bb", b"cc", b"dd"), insert(V0, b"ee")]
    assert [p for _, p in shape(pack(messages, 3, 1000))] == [
        [b"aa"],
        [b"bb", b"cc", b"dd"],
        [b"ee"],
    ]
    assert [p for _, p in shape(pack(messages, 100, 4))] == [
        [b"aa"],
        [b"bb", b"cc", b"dd"],
        [b"ee"],
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"partition_id": 5},
        {"schema_version": 5},
        {"collection_id": 5},
        {"properties": {"key": "value"}},
        {"trace_parent": "00-1"},
        {"payload_format": log_pb2.PAYLOAD_FORMAT_ARROW_STREAM},
        {"header": headers_pb2.InsertHeader(rows=5)},
        {"type": MessageType.DELETE, "header": headers_pb2.DeleteHeader()},
    ],
)
async def test_what_differs_in_more_than_the_payload_does_not_share(
    other: dict[str, object],
) -> None:
    plain = insert(V0, b"1")
    different = replace(plain, **other)  # type: ignore[arg-type]
    packed = pack([plain, different, plain], 100, 1000)
    assert len(packed.parcels) == 3
    waiting = Waiting()
    for _, parcel in packed.parcels:
        waiting.add(parcel)
    taken = [len(waiting.take(100, 1000)) for _ in range(3)]
    assert taken == [1, 1, 1]


async def test_equal_headers_that_count_rows_do_not_share() -> None:
    rows = [insert(V0, b"batch", rows=5), insert(V0, b"batch", rows=5)]
    assert len(pack(rows, 100, 1000).parcels) == 2


async def test_parcels_of_several_calls_share_an_entry() -> None:
    waiting = Waiting()
    for number in range(3):
        [(_, parcel)] = pack([insert(V0, b"%d" % number)], 9, 99).parcels
        waiting.add(parcel)
    parcels = waiting.take(100, 1000)
    batch = SendBatch(parcels)
    entry = log_pb2.Entry()
    batch.producer_id, batch.number = b"p", 8
    batch.fill(entry)
    assert decode_body(entry.body)[1] == [b"0", b"1", b"2"]
    assert (entry.envelope.count, entry.envelope.producer.number) == (3, 8)
    batch.resolve(written(4, 100))
    assert parcels[2].done.result() == Written(MessageID("memory", (4,), 0, 2), 102, None)


async def test_a_batch_may_be_sent_again_after_the_log_has_stamped_it() -> None:
    [(_, parcel)] = pack([insert(V0, b"payload")], 9, 99).parcels
    batch = SendBatch([parcel])
    first, second = log_pb2.Entry(), log_pb2.Entry()
    batch.fill(first)
    first.envelope.term = 9
    batch.fill(second)
    assert second.envelope.term == 0


async def test_results_are_those_of_the_messages_over_channels_and_parcels() -> None:
    messages = [insert(V0, b"a", b"b"), insert(V1, b"c"), insert(V0, b"d"), insert(V1, b"e")]
    packed = pack(messages, 2, 1000)
    assert shape(packed) == [(V0, [b"a", b"b"]), (V1, [b"c", b"e"]), (V0, [b"d"])]
    parts = [(written(1, 10), 2), (written(2, 20), 2), (written(3, 30), 1)]
    results = AppendResults(parts, packed.slots, packed.counts)
    assert [(r.message_id.record, r.time_tick, r.message_count) for r in results] == [
        ((1,), 10, 2),
        ((2,), 20, 1),
        ((3,), 30, 1),
        ((2,), 21, 1),
    ]
    assert results[-1].message_id.message_index == 1
    assert results[1:3] == [results[1], results[2]]
    assert len(results) == 4
    with pytest.raises(IndexError):
        results[4]


async def test_a_partial_failure_tells_each_message_its_own() -> None:
    packed = pack([insert(V0, b"a"), insert(V1, b"b"), insert(V0, b"c")], 9, 1000)
    unknown = WalError(ErrorCode.CHANNEL_NOT_EXIST, "there is no VChannel")
    error = PartialAppendError([(unknown, 2), (written(2, 20), 1)], packed.slots, packed.counts)
    assert error.code is ErrorCode.CHANNEL_NOT_EXIST
    assert error.message == "2 of 3 messages failed, the first: there is no VChannel"
    assert error.first == 0
    assert error.outcomes[0] is error.outcomes[2] is unknown
    assert error.outcomes[1] == written(2, 20).result(0, 1)


async def test_what_no_client_may_append_is_refused_before_anything_is_sent() -> None:
    tick = MutableMessage(MessageType.TIME_TICK, V0, headers_pb2.TimeTickHeader())
    with pytest.raises(WalError) as caught:
        pack([insert(V0, b"fine"), tick], 9, 99)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
