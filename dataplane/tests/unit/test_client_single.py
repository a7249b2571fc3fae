"""Single appends: kinds that are kept, and the byte budget that each parcel gives back once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from walplane.client.batcher import Parcel, SendBatch, Waiting
from walplane.client.outgoing import Kinds
from walplane.client.results import Written
from walplane.message.builder import MutableMessage, insert
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.flow import ByteBudget
from walplane.rpc.v1 import headers_pb2, log_pb2

V = "wal_0_1v0"
PLAIN = insert(V, b"a", collection_id=1, partition_id=2, schema_version=3)
WRITTEN = Written(MessageID("memory", (7,)), 100, None)


def queued(parcels: Iterable[Parcel]) -> Waiting:
    waiting = Waiting()
    for parcel in parcels:
        waiting.add(parcel)
    return waiting


async def test_plain_messages_share_an_entry() -> None:
    kinds = Kinds()
    parcels = [kinds.parcel(replace(PLAIN, payloads=(b"%d" % i,))) for i in range(3)]
    assert len({id(parcel.kind) for parcel in parcels}) == 1
    assert queued(parcels).take(10, 1000) == parcels


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAIN, vchannel="wal_0_2v0"),
        replace(PLAIN, collection_id=9),
        replace(PLAIN, partition_id=9),
        replace(PLAIN, schema_version=9),
        replace(PLAIN, payload_format=log_pb2.PAYLOAD_FORMAT_ARROW_STREAM),
        replace(PLAIN, properties={"a": "b"}),
        replace(PLAIN, trace_parent="00-1-1-00"),
        replace(PLAIN, header=headers_pb2.InsertHeader(rows=4)),
        replace(PLAIN, type=MessageType.DELETE, header=headers_pb2.DeleteHeader()),
    ],
)
async def test_messages_that_differ_do_not(other: MutableMessage) -> None:
    kinds = Kinds()
    parcels = [kinds.parcel(PLAIN), kinds.parcel(other)]
    assert queued(parcels).take(10, 1000) == parcels[:1]


async def test_a_wrong_message_is_refused_although_one_like_it_was_seen() -> None:
    kinds = Kinds()
    kinds.parcel(PLAIN)
    for wrong in (
        replace(PLAIN, header=headers_pb2.DeleteHeader()),
        replace(PLAIN, payloads=()),
        replace(PLAIN, is_pchannel_level=True),
    ):
        with pytest.raises(WalError) as refused:
            kinds.parcel(wrong)
        assert refused.value.code is ErrorCode.INVALID_ARGUMENT


def taken(budget: ByteBudget) -> Parcel:
    parcel = Kinds().parcel(PLAIN)
    assert budget.try_acquire(parcel.size)
    parcel.budget = budget
    return parcel


async def test_every_end_of_a_parcel_gives_its_bytes_back_once() -> None:
    budget = ByteBudget(1000)
    answered, failed, dropped, cancelled = (taken(budget) for _ in range(4))
    cancelled.done.cancel()  # its caller is gone; the bytes are still on their way
    assert budget.used == 4 * answered.size
    SendBatch([answered, cancelled]).resolve(WRITTEN)
    SendBatch([failed]).fail(WalError(ErrorCode.ON_SHUTDOWN, "closed"))
    assert queued([dropped]).messages == 1
    dropped.give_up(WalError(ErrorCode.OUTCOME_UNKNOWN, "nobody waits"))
    assert budget.used == 0
    failed.fail(WalError(ErrorCode.ON_SHUTDOWN, "closed"))
    assert budget.used == 0
    assert answered.done.result() == WRITTEN
    assert isinstance(failed.done.exception(), WalError)
    assert dropped.done.cancelled()
