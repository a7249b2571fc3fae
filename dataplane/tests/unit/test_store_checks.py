"""Each checker of the segment store fires on the fault it is for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from walplane.backends.interface import Record
from walplane.backends.sequenced import FIRST
from walplane.channel import meta_topic
from walplane.message import codec
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.rpc.v1 import log_pb2
from walplane.testkit.history import Delivered, Reading
from walplane.testkit.log_checks import check_reading
from walplane.testkit.log_view import LogView
from walplane.testkit.sim.cuts import Cuts
from walplane.testkit.sim.disk import Disk, Topic
from walplane.testkit.sim.loop import SimLoop
from walplane.testkit.sim.network import Network
from walplane.testkit.store_checks import Expected, check_store

CH, V, SEGMENT = "c_0", "c_0_1v0", 7
FOLDER = f"{CH}/1/0/{V}/{SEGMENT}"
T = MessageType
NOTHING = Expected([], [], {})


def made(kind: MessageType, tick: int, payload: bytes = b"", txn: int = -1) -> log_pb2.Entry:
    envelope = log_pb2.Envelope(
        version=1, type=kind, vchannel=V, first_tick=tick, count=1, segment_id=SEGMENT
    )
    if txn >= 0:
        envelope.txn.kind, envelope.txn.txn_id = log_pb2.TXN_KIND_PART, txn
    return codec.seal_entry(envelope, codec.encode_body(b"", [payload]))


def view(*entries: log_pb2.Entry) -> LogView:
    """A record an entry, numbered from one on."""
    contents = [log_pb2.FrameContent(term=1, number=number) for number in range(len(entries))]
    records = [
        Record((number + 1,), codec.encode_frame(content.SerializeToString(), [entry]))
        for number, (content, entry) in enumerate(zip(contents, entries, strict=True))
    ]
    return LogView.of(CH, "sim", records)


LOG = view(
    made(T.INSERT, 1, b"a"),
    made(T.BEGIN_TXN, 2, txn=0),
    made(T.INSERT, 3, b"b", txn=2),
    made(T.BEGIN_TXN, 4, txn=0),
    made(T.INSERT, 5, b"never", txn=4),
    made(T.COMMIT_TXN, 6, txn=2),
    made(T.ROLLBACK_TXN, 7, txn=4),
)
A, B = (1, "sim:1:0:0", "a"), (6, "sim:3:0:0", "b")


def part(*rows: tuple[int, str, str]) -> bytes:
    about = {"vchannel": V, "segment_id": str(SEGMENT)}
    return json.dumps({"about": about, "rows": rows}).encode()


def parts(*contents: bytes) -> dict[str, bytes]:
    return {f"{FOLDER}/{number}.rows": data for number, data in enumerate(contents)}


def whole(objects: Mapping[str, bytes], *named: str) -> dict[str, bytes]:
    """And the list of `named`, or of all."""
    said = [
        {"path": path, "crc32c": codec.crc32c(objects.get(path, b""))}
        for path in named or sorted(objects)
    ]
    manifest = json.dumps({"segment_id": str(SEGMENT), "parts": said}).encode()
    return {**objects, f"{FOLDER}/segment.json": manifest}


def found(objects: Mapping[str, bytes], expected: Expected = NOTHING) -> list[str]:
    return list(check_store(LOG, objects, expected))


def saved(position: int = 0, through: int = 0) -> Sequence[bytes]:
    state = log_pb2.FlusherState(position=log_pb2.ResumeToken(time_tick=position))
    stream = log_pb2.StoredStream(vchannel=V, segment_id=SEGMENT, through_tick=through)
    return [state.SerializeToString(), log_pb2.FlusherState(streams=[stream]).SerializeToString()]


def test_rows_that_are_stored_once_are_all_that_is_asked() -> None:
    objects = whole(parts(part(A), part(B)))
    assert found(objects, Expected([(8, 2)], saved(6, 6), {V: 7})) == []


@pytest.mark.parametrize(
    ("objects", "what"),
    [
        (parts(part(A, (5, "sim:5:0:0", "never"))), "which nobody committed"),
        (parts(part(A, (6, "sim:9:0:0", "nothing"))), "which nobody committed"),
        (parts(part((2, "sim:1:0:0", "a"))), "has Row"),
        (parts(part((1, "sim:2:0:0", "a"))), "has Row"),
        (parts(part(A), part(A, B)), "has as well"),
        (whole(parts(part(A))), "is whole without b'b'"),
        (whole(parts(part(A), part(B)), f"{FOLDER}/0.rows"), "names"),
        ({**whole(parts(part(A, B))), **parts(part(B, A))}, "is not what"),
    ],
)
def test_what_is_stored_otherwise_is_found(objects: dict[str, bytes], what: str) -> None:
    assert any(what in violation for violation in found(objects))


def test_what_was_cut_off_before_it_was_stored_is_found() -> None:
    objects = parts(part(A), part(B))
    assert found(objects, Expected([(4, 2)], [], {})) == []
    (violation,) = found(objects, Expected([(4, 1)], [], {}))
    assert "b'b'" in violation and "before it was stored" in violation
    assert len(found({}, Expected([(4, 1)], [], {}))) == 2


@pytest.mark.parametrize(("position", "through"), [(6, 0), (0, 6)])
def test_a_position_above_what_is_stored_is_found(position: int, through: int) -> None:
    (violation,) = found(parts(part(A)), Expected([], saved(position, through), {}))
    assert violation.startswith("I10") and "b'b'" in violation
    assert found(parts(part(A)), Expected([], saved(1, 5), {})) == []


def test_what_was_flushed_and_is_in_no_whole_segment_is_found() -> None:
    assert len(found(parts(part(A, B)), Expected([], [], {V: 7}))) == 2
    assert len(found(parts(part(A, B)), Expected([], [], {V: 1}))) == 1


def test_what_was_deleted_too_early_is_found() -> None:
    path = f"{FOLDER}/0.rows"
    assert len(found({}, Expected([], [], {}, [(path, 100)]))) == 1, "it was not dropped"
    dropped = view(made(T.INSERT, 1, b"a"), made(T.DROP_COLLECTION, 8))
    nothing_there = Expected([(2, 0)], saved(8), {V: 8}, [(path, 8)])
    assert list(check_store(dropped, {}, nothing_there)) == []
    assert len(list(check_store(dropped, {}, nothing_there._replace(deleted=[(path, 7)])))) == 1


@pytest.mark.parametrize(
    ("confirmed", "stored", "cut", "violations"),
    [(5, 9, 5, 0), (9, 5, 5, 0), (5, 9, 6, 1), (9, 5, 6, 1), (5, None, 5, 1), (3, 3, 4, 2)],
)
def test_a_cut_above_what_is_saved_is_found(
    confirmed: int, stored: int | None, cut: int, violations: int
) -> None:
    loop = SimLoop(1)
    disk = Disk(Network(loop, 1), 0.01)
    checkpoint = log_pb2.WALCheckpoint(last_confirmed=MessageID("sim", (confirmed,)).to_proto())
    state = log_pb2.FlusherState(position=log_pb2.ResumeToken())
    if stored is not None:
        state.position.last_confirmed.CopyFrom(MessageID("sim", (stored,)).to_proto())
    components = {"segments": state, "checkpoint": checkpoint}
    records = [log_pb2.MetaRecord(snapshot_begin=log_pb2.MetaSnapshotBegin(snapshot_id=1))]
    records += [
        log_pb2.MetaRecord(
            snapshot_part=log_pb2.MetaSnapshotPart(
                snapshot_id=1, component=name, data=data.SerializeToString()
            )
        )
        for name, data in components.items()
    ]
    records.append(log_pb2.MetaRecord(snapshot_end=log_pb2.MetaSnapshotEnd(snapshot_id=1)))
    meta, data = Topic(meta_topic(CH)), Topic(CH)
    content = log_pb2.FrameContent(term=1, meta=records)
    meta.records.append(codec.encode_frame(content.SerializeToString(), []))
    meta.show(FIRST + 1)
    disk.topics = {meta.name: meta, CH: data}
    cuts = Cuts(disk, None)
    cuts.note(data, cut)
    assert len(cuts.violations) == violations
    loop.close()


def reading(floor: int, *messages: tuple[bytes, int, int]) -> Reading:
    """Of (payload, record, tick), by one who found the log cut off below `floor`."""
    got = [
        Delivered(V, payload, MessageID("sim", (record,)), tick, 2 if payload == b"b" else 0)
        for payload, record, tick in messages
    ]
    return Reading("r", V, True, got, after=0, floor=(floor,) if floor else ())


def test_a_reading_lacks_only_what_was_cut_off_before_it_began() -> None:
    everything = {b"a", b"b"}
    first, second = (b"a", 1, 1), (b"b", 3, 6)

    def judged(of: Reading) -> list[str]:
        return list(check_reading(of, LOG, V, everything))

    assert judged(reading(0, first, second)) == []
    assert judged(reading(2, second)) == []
    assert judged(reading(3)) == [], "the transaction's Begin was cut off, its row was not"
    assert judged(reading(2)) != []
    assert judged(reading(0, second)) != []
    assert judged(reading(3, first)) != [], "it began before the cut, and lacks what came then"
