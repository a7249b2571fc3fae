"""The checker of broadcasts fires on what it is for."""

from __future__ import annotations

from walplane.backends.interface import Record
from walplane.channel import cchannel_name
from walplane.client import CollectionInfo
from walplane.message import codec
from walplane.message.registry import MessageType
from walplane.rpc.v1 import log_pb2
from walplane.testkit.broadcast_checks import ToldChanges, check_broadcasts, check_told
from walplane.testkit.log_view import LogView

V0, V1 = "c_0_7v0", "c_1_7v1"
CONTROL = cchannel_name("c_0")
CREATE, DROP = MessageType.CREATE_COLLECTION, MessageType.DROP_COLLECTION


def log(pchannel: str, *entries: tuple[MessageType, int, str]) -> LogView:
    """Entries of collection 7: (type, broadcast id, VChannel)."""
    records = []
    for number, (kind, ident, vchannel) in enumerate(entries):
        envelope = log_pb2.Envelope(
            version=1, type=kind, vchannel=vchannel, first_tick=number + 1, count=1
        )
        envelope.collection_id = 7
        envelope.broadcast.broadcast_id = ident
        envelope.broadcast.vchannels.extend([V0, V1])
        entry = codec.seal_entry(envelope, codec.encode_body(b"", [b""]))
        content = log_pb2.FrameContent(term=1, number=number)
        records.append(Record((number,), codec.encode_frame(content.SerializeToString(), [entry])))
    return LogView.of(pchannel, "sim", records)


def test_broadcasts_that_reached_all_once_are_sound() -> None:
    both = [log("c_0", (CREATE, 8, V0)), log("c_1", (CREATE, 8, V1))]
    assert list(check_broadcasts(both, [7])) == []
    gone = [log("c_0", (CREATE, 8, V0), (DROP, 9, V0)), log("c_1", (CREATE, 8, V1), (DROP, 9, V1))]
    assert list(check_broadcasts(gone, [])) == []


def test_each_fault_of_a_broadcast_is_found() -> None:
    whole = log("c_1", (CREATE, 8, V1))
    [missing] = check_broadcasts([log("c_0"), whole], [7])
    assert missing.startswith("I11 broadcast 8")
    [twice] = check_broadcasts([log("c_0", (CREATE, 8, V0), (CREATE, 8, V0)), whole], [7])
    assert twice.startswith("I11 broadcast 8")
    swapped = log("c_0", (DROP, 9, V0), (CREATE, 8, V0))
    other = log("c_1", (CREATE, 8, V1), (DROP, 9, V1))
    [order] = check_broadcasts([swapped, other], [])
    assert "not as promised" in order
    [catalog] = check_broadcasts([log("c_0", (CREATE, 8, V0)), whole], [])
    assert "the catalog has collections []" in catalog


def test_what_callers_were_told_of_changes_is_in_the_logs() -> None:
    made = CollectionInfo(
        "d0", 7, (V0, V1), created_tick=2, schema_version=1, default_partition_id=0
    )
    shards, control = (CREATE, 8, V0), (CREATE, 8, CONTROL)
    told = ToldChanges(made=[made])
    assert list(check_told([log("c_0", shards, control), log("c_1", (CREATE, 8, V1))], told)) == []
    [shard] = check_told([log("c_0", shards, control)], told)
    assert V1 in shard
    [tick] = check_told([log("c_0", control, shards), log("c_1", (CREATE, 8, V1))], told)
    assert tick.endswith("at [1]")


def test_a_drop_that_nobody_made_is_found() -> None:
    dropped = log("c_0", (CREATE, 8, V0), (DROP, 9, V0))
    for told in (ToldChanges(dropped=[7]), ToldChanges(gone=[7])):
        assert list(check_told([dropped], told)) == []
        [missing] = check_told([log("c_0", (CREATE, 8, V0))], told)
        assert "collection 7" in missing
