"""Each field of an entry's envelope is the client's to fill, or its owner's: then no client can.

What a client says in a field of the owner's is refused or written over before it is in the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from walplane.backends.memory import MemoryBackend
from walplane.message import codec
from walplane.message.registry import MessageType
from walplane.node.edge import Edge
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.wal_world import World, create_entry, entry, payloads_of, read_all

CHANNEL = "test_1"
VCHANNEL = "test_1_5v0"
FORGED = 10**6

CLIENTS = {
    *("version", "type", "vchannel", "collection_id", "partition_id", "schema_version", "count"),
    *("producer", "txn", "payload_format", "trace_parent", "properties"),
}
STAMPED = {"term", "first_tick", "watermark", "last_confirmed"}
REFUSED = {"broadcast", "replicate", "is_pchannel_level", "segment_id"}
"""Of an Insert in a cluster that copies no other."""


_VALUES: dict[int, object] = {
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_BYTES: b"forged",
    FieldDescriptor.TYPE_ENUM: 1,
    FieldDescriptor.TYPE_STRING: "memory",
}


def forge(message: Message, name: str) -> None:
    """Sets the field `name` to something, messages with all that is in them."""
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.message_type is not None:
        part = getattr(message, name)
        part = part.add() if field.is_repeated else part
        for inner in field.message_type.fields:
            forge(part, inner.name)
        return
    value: object = _VALUES.get(field.type, FORGED)
    if field.is_repeated:
        getattr(message, name).append(value)
    else:
        setattr(message, name, value)


def forged(name: str) -> log_pb2.Entry:
    made = entry(b"forged", vchannel=VCHANNEL)
    forge(made.envelope, name)
    assert made.envelope != entry(b"forged", vchannel=VCHANNEL).envelope
    return made


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(FaultyBackend(MemoryBackend()))
    yield world
    await world.close()


async def second_owner(world: World) -> Edge:
    """Serves a log that has entries and no LastConfirmed: its first owner saved no checkpoint."""
    await (await world.open(1, channel=CHANNEL)).append(create_entry(VCHANNEL))
    wal = await world.open(2, channel=CHANNEL)
    assert wal.acks.last_confirmed is None
    return Edge(wal)


def test_each_field_of_the_envelope_is_somebodys() -> None:
    fields = [field.name for field in log_pb2.Envelope.DESCRIPTOR.fields]
    assert sorted([*CLIENTS, *STAMPED, *REFUSED]) == sorted(fields)


@pytest.mark.parametrize("name", sorted(STAMPED))
async def test_what_the_owner_stamps_is_its_own(name: str, world: World) -> None:
    edge = await second_owner(world)
    result = await edge.start_append(edge.check(forged(name)))
    assert (result.term, result.last_confirmed) == (2, None)
    [written] = [item for item in await read_all(edge.wal) if payloads_of([item]) == [b"forged"]]
    envelope = written.entry.envelope
    assert (envelope.term, envelope.first_tick) == (2, result.first_tick)
    assert FORGED < envelope.watermark < result.first_tick
    assert not envelope.HasField("last_confirmed")


async def test_a_log_opens_again_whatever_a_client_said_was_confirmed(world: World) -> None:
    edge = await second_owner(world)
    await edge.start_append(edge.check(forged("last_confirmed")))
    third = await world.open(3, channel=CHANNEL)
    await third.close()  # saves a checkpoint
    fourth = await world.open(4, channel=CHANNEL)
    assert b"forged" in payloads_of(await read_all(fourth))


@pytest.mark.parametrize("name", sorted(REFUSED))
async def test_what_is_not_a_clients_is_refused(name: str, world: World) -> None:
    edge = await second_owner(world)
    with pytest.raises(WalError) as caught:
        await edge.start_append(edge.check(forged(name)))
    assert caught.value.code in {ErrorCode.INVALID_ARGUMENT, ErrorCode.REPLICATE_VIOLATION}
    assert b"forged" not in payloads_of(await read_all(edge.wal))


@pytest.mark.parametrize("field", ["opener", "epoch"])
async def test_only_named_producers_have_openers_and_epochs(field: str, world: World) -> None:
    edge = await second_owner(world)
    made = entry(b"forged", number=0, vchannel=VCHANNEL)
    forge(made.envelope.producer, field)
    with pytest.raises(WalError, match="unnamed producer"):
        edge.check(made)


async def test_a_client_does_not_say_that_a_transaction_expired(world: World) -> None:
    edge = await second_owner(world)
    begin = part(MessageType.BEGIN_TXN)
    begin.envelope.txn.keepalive_ms = 60_000
    begun = await edge.start_append(edge.check(begin))
    expired = headers_pb2.RollbackTxnHeader(expired=True).SerializeToString()
    with pytest.raises(WalError, match="its log's owner decides"):
        end = part(MessageType.ROLLBACK_TXN, begun.first_tick, expired)
        await edge.start_append(edge.check(end))
    await edge.start_append(edge.check(part(MessageType.ROLLBACK_TXN, begun.first_tick)))


def part(kind: MessageType, txn_id: int = 0, header: bytes = b"") -> log_pb2.Entry:
    envelope = log_pb2.Envelope(version=1, type=kind, vchannel=VCHANNEL, count=1)
    envelope.txn.kind, envelope.txn.txn_id = log_pb2.TXN_KIND_PART, txn_id
    return codec.seal_entry(envelope, codec.encode_body(header, [b""]))
