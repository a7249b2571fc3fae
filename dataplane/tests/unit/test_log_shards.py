"""Each checker of the order rules fires on the fault it is for."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from google.protobuf.message import Message

from walplane.backends.interface import Record
from walplane.message import codec
from walplane.message.registry import MessageType
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.testkit.log_shards import check_shards
from walplane.testkit.log_view import LogView

V0, V1 = "c_0_1v0", "c_0_1v1"
T = MessageType
H = headers_pb2


def made(
    kind: MessageType,
    tick: int,
    header: Message | None = None,
    *,
    vchannel: str = V0,
    segment: int = 0,
    partition: int = 0,
    txn: int = -1,
) -> log_pb2.Entry:
    envelope = log_pb2.Envelope(
        version=1,
        type=kind,
        vchannel=vchannel,
        first_tick=tick,
        count=1,
        segment_id=segment,
        partition_id=partition,
    )
    if txn >= 0:
        envelope.txn.kind, envelope.txn.txn_id = log_pb2.TXN_KIND_PART, txn
    data = b"" if header is None else header.SerializeToString()
    return codec.seal_entry(envelope, codec.encode_body(data, [b"x"]))


def barrier() -> log_pb2.Entry:
    return made(T.RECOVERY_BARRIER, 1, vchannel="")


def collection(tick: int = 2) -> log_pb2.Entry:
    return made(T.CREATE_COLLECTION, tick, H.CreateCollectionHeader(partition_ids=[5]))


def segment(tick: int, partition: int = 0) -> log_pb2.Entry:
    header = H.CreateSegmentHeader(segment_id=tick)
    return made(T.CREATE_SEGMENT, tick, header, partition=partition)


def flush(tick: int, of: int, rows: int) -> log_pb2.Entry:
    return made(T.FLUSH, tick, H.FlushHeader(segment_id=of, rows=rows))


def insert(tick: int, of: int, partition: int = 0, txn: int = -1) -> log_pb2.Entry:
    return made(T.INSERT, tick, segment=of, partition=partition, txn=txn)


def found(entries: Iterable[log_pb2.Entry]) -> list[str]:
    records = []
    for number, entry in enumerate([barrier(), *entries]):
        content = log_pb2.FrameContent(term=1, number=number)
        records.append(Record((number,), codec.encode_frame(content.SerializeToString(), [entry])))
    return check_shards("c_0", LogView.of("c_0", "sim", records).in_tick_order())


def test_a_log_that_keeps_the_rules() -> None:
    drop = made(T.DROP_PARTITION, 20, H.PartitionHeader(partition_id=6))
    log = [
        collection(),
        segment(3),
        insert(4, 3),
        made(T.BEGIN_TXN, 5, txn=0),
        insert(6, 3, txn=5),
        insert(7, 3),
        made(T.COMMIT_TXN, 8, txn=5),
        flush(9, 3, 3),
        made(T.BEGIN_TXN, 10, txn=0),
        segment(11),
        insert(12, 11, txn=10),
        made(T.MANUAL_FLUSH, 13),
        made(T.CREATE_PARTITION, 14, H.PartitionHeader(partition_id=6)),
        segment(15, 6),
        insert(16, 15, 6),
        segment(17, 5),
        insert(18, 17, 5),
        drop,
        insert(21, 17, 5),
        made(T.DROP_COLLECTION, 22),
        made(T.DROP_COLLECTION, 23),
        made(T.DROP_COLLECTION, 24, vchannel=V1),  # made before this log begins
    ]
    assert found(log) == []


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ([collection(), insert(4, 3)], "which nothing created"),
        ([collection(), insert(4, 0)], "which nothing created"),
        ([collection(), insert(4, 3), segment(3)], "lies before CREATE_SEGMENT"),
        ([collection(), segment(3), insert(4, 3, 5)], "of another partition"),
        ([collection(), segment(3), flush(5, 3, 0), insert(6, 3)], "behind FLUSH"),
        ([collection(), segment(3), insert(4, 3), flush(5, 3, 2)], "says 2 rows, but there are 1"),
        ([collection(), segment(3), made(T.MANUAL_FLUSH, 4), flush(5, 3, 0)], "MANUAL_FLUSH sim"),
        ([collection(), segment(3), made(T.MANUAL_FLUSH, 4), insert(6, 3)], "behind MANUAL_FLUSH"),
        (
            [collection(), segment(3), made(T.TRUNCATE_COLLECTION, 4), insert(6, 3)],
            "behind TRUNCATE_COLLECTION",
        ),
        (
            [
                collection(),
                segment(3, 5),
                made(T.DROP_PARTITION, 4, H.PartitionHeader(partition_id=5)),
                insert(6, 3, 5),
            ],
            "behind DROP_PARTITION",
        ),
        (
            [collection(), segment(3), made(T.FLUSH_ALL, 4, vchannel=""), insert(6, 3)],
            "behind FLUSH_ALL",
        ),
        (
            [
                collection(),
                segment(3),
                made(T.ALTER_COLLECTION, 4, H.AlterCollectionHeader(new_schema_version=2)),
                insert(6, 3),
            ],
            "behind ALTER_COLLECTION",
        ),
        (
            [
                collection(),
                made(T.BEGIN_TXN, 3, txn=0),
                segment(4),
                insert(5, 4, txn=3),
                flush(6, 4, 0),
                made(T.COMMIT_TXN, 7, txn=3),
            ],
            "behind FLUSH",
        ),
        ([made(T.DELETE, 2), collection(3)], "DELETE sim:1:0:0"),
        ([collection(), made(T.DROP_COLLECTION, 3), made(T.DELETE, 4)], "lies behind DROP"),
        ([collection(), made(T.DELETE, 3, partition=6)], "partition 6, which is not there"),
        (
            [
                collection(),
                made(T.DROP_PARTITION, 3, H.PartitionHeader(partition_id=5)),
                made(T.DELETE, 4, partition=5),
            ],
            "partition 5, which is not there",
        ),
    ],
)
def test_each_broken_rule_is_found(entries: list[log_pb2.Entry], what: str) -> None:
    violations = found(entries)
    assert any(what in violation for violation in violations), violations
    assert all(violation.startswith("§2 c_0: ") for violation in violations)
