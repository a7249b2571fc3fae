"""A replay over a snapshot gives the live table, though records lie in another order than ticks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from walplane.message import codec
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.testkit.wal_world import create_entry
from walplane.wal.ports import LogEntry
from walplane.wal.shard.table import ShardTable

T = MessageType
NAMES = [f"test_0_{number}v0" for number in range(1, 8)]


def drop(vchannel: str) -> log_pb2.Entry:
    header = headers_pb2.CollectionHeader().SerializeToString()
    envelope = log_pb2.Envelope(version=1, type=T.DROP_COLLECTION, vchannel=vchannel, count=1)
    return codec.seal_entry(envelope, codec.encode_body(header, [b""]))


def create_segment(vchannel: str, segment_id: int) -> log_pb2.Entry:
    header = headers_pb2.CreateSegmentHeader(segment_id=segment_id).SerializeToString()
    envelope = log_pb2.Envelope(version=1, type=T.CREATE_SEGMENT, vchannel=vchannel, count=1)
    return codec.seal_entry(envelope, codec.encode_body(header, [b""]))


def flush(vchannel: str) -> log_pb2.Entry:
    envelope = log_pb2.Envelope(version=1, type=T.MANUAL_FLUSH, vchannel=vchannel, count=1)
    return codec.seal_entry(envelope, codec.encode_body(b"", [b""]))


@st.composite
def logs(draw: st.DrawFn) -> list[LogEntry]:
    """Everything is made in order; what was flushed and dropped lies in any."""
    made = [create_entry(name) for name in NAMES]
    made += [create_segment(name, len(NAMES) + n) for n, name in enumerate(NAMES, 1)]
    ticked = list(enumerate(made, 1))
    for end in (flush, drop):
        first = len(ticked) + 1
        ends = [end(name) for name in draw(st.permutations(NAMES))]
        ticked += draw(st.permutations(list(enumerate(ends, first))))
    log = []
    for number, (tick, entry) in enumerate(ticked, 1):
        entry.envelope.first_tick = tick
        log.append(LogEntry(entry, MessageID("memory", (number,)), 0))
    return log


def saved(table: ShardTable) -> list[bytes]:
    return sorted(table.save())


@given(logs(), st.integers(1, 8), st.data())
def test_a_replay_over_a_snapshot_remembers_the_same(
    log: list[LogEntry], kept: int, data: st.DataObject
) -> None:
    whole, again = ShardTable(kept), ShardTable(kept)
    cut = data.draw(st.integers(0, len(log)))
    for log_entry in log[:cut]:
        whole.observe(log_entry)
    again.load(whole.save())
    for log_entry in log[cut:]:
        whole.observe(log_entry)
    for log_entry in log[data.draw(st.integers(0, cut)) :]:
        again.observe(log_entry)
    assert saved(again) == saved(whole)
    assert len(whole.dropped) == min(kept, len(NAMES))
