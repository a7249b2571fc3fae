"""Each checker of a log fires on the fault it is for."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from walplane.backends.interface import Record
from walplane.message import codec
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.rpc.v1 import log_pb2
from walplane.testkit import log_checks
from walplane.testkit.history import Attempt, Delivered, History, Outcome, Reading, ReadTick
from walplane.testkit.log_view import LogView

P0, V0 = "c_0", "c_0_1v0"


def entry(
    tick: int,
    *,
    watermark: int = 0,
    confirmed: int = 0,
    number: int | None = None,
    kind: MessageType = MessageType.INSERT,
) -> log_pb2.Entry:
    envelope = log_pb2.Envelope(
        version=1, type=kind, vchannel=V0, first_tick=tick, count=1, watermark=watermark
    )
    if kind is MessageType.INSERT:
        envelope.segment_id = 1  # made before this log begins
    if confirmed:
        envelope.last_confirmed.CopyFrom(MessageID("sim", (confirmed,)).to_proto())
    if number is not None:
        envelope.producer.producer_id, envelope.producer.number = b"p", number
    return codec.seal_entry(envelope, codec.encode_body(b"", [b"%d" % tick]))


def frame(term: int, number: int, *entries: log_pb2.Entry, open_number: int = 0) -> bytes:
    content = log_pb2.FrameContent(term=term, open_number=open_number, number=number)
    return codec.encode_frame(content.SerializeToString(), entries)


def view(frames: Iterable[bytes]) -> LogView:
    records = [Record((number,), data) for number, data in enumerate(frames, start=1)]
    return LogView.of(P0, "sim", records)


def ticks(log: LogView) -> list[int]:
    return [logged.first_tick for logged in log.entries]


def test_what_counts_is_the_gapless_first_copy_of_the_highest_open() -> None:
    log = view(
        [
            frame(1, 0, entry(1)),
            frame(1, 1, entry(2)),
            frame(1, 1, entry(2)),  # a second copy
            frame(1, 3, entry(4)),  # behind a gap
            frame(2, 0, entry(10)),
            frame(1, 2, entry(3)),  # void
            frame(2, 1, entry(11)),
        ]
    )
    assert ticks(log) == [1, 2, 10, 11]
    assert log.dropped == 3


def sound() -> list[bytes]:
    barrier = MessageType.RECOVERY_BARRIER
    return [
        frame(1, 0, entry(1, kind=barrier)),
        frame(1, 1, entry(5, watermark=1, confirmed=1, number=0)),
        frame(1, 2, entry(7, watermark=5, confirmed=2, number=1)),
        frame(2, 0, entry(20, watermark=19, kind=barrier)),
        frame(2, 1, entry(21, watermark=20, confirmed=3)),
    ]


def test_a_sound_log_has_no_violation() -> None:
    assert log_checks.check_log(view(sound())) == []


@pytest.mark.parametrize(
    ("place", "wrong", "invariant"),
    [
        (4, frame(2, 1, entry(7, confirmed=3)), "I3"),
        (4, frame(2, 1, entry(21, confirmed=5), entry(22)), "I6"),
        (2, frame(1, 2, entry(7, watermark=21, confirmed=2)), "I7"),
        (3, frame(2, 0, entry(6, kind=MessageType.RECOVERY_BARRIER)), "I9"),
        (4, frame(2, 1, entry(18)), "I9"),
        (4, frame(2, 1, entry(21, number=1)), "I13"),
    ],
)
def test_each_fault_of_a_log_is_found(place: int, wrong: bytes, invariant: str) -> None:
    frames = sound()
    frames[place] = wrong
    if invariant == "I6":  # 22 lies in record 5, before what 21 calls its LastConfirmed
        frames[place] = frame(2, 1, entry(21, confirmed=6), entry(22))
    found = log_checks.check_log(view(frames))
    assert invariant in {violation.partition(" ")[0] for violation in found}


def delivered(log: LogView) -> list[Delivered]:
    return [Delivered(*message) for message in log.messages(V0)]


def reading(log: LogView, after: int | None = 0) -> Reading:
    return Reading("r", V0, complete=True, messages=delivered(log), after=after)


def judged(log: LogView, made: Reading, given_up: bytes = b"") -> list[str]:
    acknowledged = {message.payload for message in log.messages()} - {given_up}
    return list(log_checks.check_reading(made, log, V0, acknowledged))


def test_readings_are_judged_against_the_log() -> None:
    log = view(sound())
    assert judged(log, reading(log)) == []
    gap, late, short, early = (reading(log) for _ in range(4))
    del gap.messages[1]
    assert judged(log, gap)[0].startswith("I4")
    late.after = 5  # began above 5, yet has it
    assert judged(log, late)[0].startswith("I4")
    last = short.messages.pop()
    assert judged(log, short)[0].startswith("I4")
    assert judged(log, short, given_up=last.payload) == [], "written when the reading was over"
    early.marks.append((1, 7))  # told 7 with one message
    assert judged(log, early)[0].startswith("I7")


def attempts(log: LogView) -> list[Attempt]:
    return [
        Attempt(
            *("c", V0, m.payload, Outcome.ACKNOWLEDGED, m.message_id, m.time_tick),
            last_confirmed=confirmed_of(log, m.message_id),
        )
        for m in log.messages()
    ]


def confirmed_of(log: LogView, message_id: MessageID) -> MessageID | None:
    envelope = log.entry_at(message_id).envelope
    if not envelope.HasField("last_confirmed"):
        return None
    return MessageID.from_proto(envelope.last_confirmed)


def test_attempts_are_judged_against_the_log() -> None:
    log = view(sound())
    tried = attempts(log)
    assert list(log_checks.check_attempts(log, tried)) == []
    lost = Attempt("c", V0, b"lost", Outcome.ACKNOWLEDGED, MessageID("sim", (9,)), 30)
    assert next(log_checks.check_attempts(log, [*tried, lost])).startswith("I1")
    tried[0].time_tick += 1
    assert next(log_checks.check_attempts(log, tried)).startswith("I1")
    tried[0].outcome = Outcome.REFUSED
    assert next(log_checks.check_attempts(log, tried)).startswith("I2")
    assert next(log_checks.check_attempts(log, tried[1:])).startswith("I2")


def test_what_a_caller_was_told_besides_is_judged_too() -> None:
    log = view(sound())
    wrong, tagged = attempts(log)[:2]
    wrong.last_confirmed = MessageID("sim", (9,))
    assert next(log_checks.check_attempts(log, [wrong, *attempts(log)[1:]])).startswith("I6")
    tagged.tag = "x"
    told = [attempts(log)[0], tagged, *attempts(log)[2:]]
    assert next(log_checks.check_attempts(log, told)).startswith("I2")


def test_a_read_tick_lies_above_what_was_acknowledged_before() -> None:
    log = view(sound())
    told = tuple(attempts(log))
    history = History(read_ticks=[ReadTick(P0, 22, told)])
    assert list(log_checks.check_read_ticks(history, P0)) == []
    history.read_ticks.append(ReadTick(P0, 21, told))
    assert next(log_checks.check_read_ticks(history, P0)).startswith("I14")


def meta(tick: int, begin: int, known: list[int]) -> list[Record]:
    checkpoint = log_pb2.WALCheckpoint(time_tick=tick)
    checkpoint.last_confirmed.CopyFrom(MessageID("sim", (begin,)).to_proto())
    window = log_pb2.ProducerWindow(producer_id=b"p", vchannel=V0, next_number=len(known))
    parts = {"producers": window.SerializeToString(), "checkpoint": checkpoint.SerializeToString()}
    records = [log_pb2.MetaRecord(snapshot_begin=log_pb2.MetaSnapshotBegin(snapshot_id=1))]
    for name, data in parts.items():
        part = log_pb2.MetaSnapshotPart(snapshot_id=1, component=name, data=data)
        records.append(log_pb2.MetaRecord(snapshot_part=part))
    records.append(log_pb2.MetaRecord(snapshot_end=log_pb2.MetaSnapshotEnd(snapshot_id=1, parts=2)))
    content = log_pb2.FrameContent(term=1, meta=records)
    return [Record((1,), codec.encode_frame(content.SerializeToString()))]


@pytest.mark.parametrize(
    ("records", "wrong"),
    [
        (meta(5, 3, [0]), False),
        (meta(5, 4, [0]), True),  # replay begins behind tick 7
        (meta(7, 4, [0]), True),  # the snapshot lacks batch 1
        (meta(7, 4, [0, 1]), False),
    ],
)
def test_a_checkpoint_covers_what_it_says(records: list[Record], wrong: bool) -> None:
    found = list(log_checks.check_checkpoints(view(sound()), "meta", records))
    assert bool(found) is wrong
    assert all(violation.startswith("I10") for violation in found)


def named(tick: int, number: int = 0, *, epoch: int = 0, count: int = 1) -> log_pb2.Entry:
    """A batch of a named producer; with no epoch, what opens it."""
    made = entry(tick, kind=MessageType.INSERT if epoch else MessageType.TIME_TICK)
    made.envelope.count = count
    made.envelope.producer.CopyFrom(
        log_pb2.ProducerBatch(
            name="n", number=number, epoch=epoch, opener=b"" if epoch else b"opener"
        )
    )
    return made


@pytest.mark.parametrize(
    ("entries", "wrong"),
    [
        ([named(1), named(2, 0, epoch=1, count=3), named(5), named(6, 3, epoch=5)], False),
        ([named(1), named(2, 0, epoch=1), named(3), named(4, 1, epoch=1)], True),
        ([named(1), named(2, 0, epoch=1, count=3), named(5, 1, epoch=1)], True),
        ([named(1), named(2, 0, epoch=1, count=3), named(5, 4, epoch=1)], True),
    ],
    ids=["sound", "of an older instance", "of messages that came before", "with a gap"],
)
def test_named_producers_are_one_sequence_of_the_last_that_was_opened(
    entries: list[log_pb2.Entry], wrong: bool
) -> None:
    log = view([frame(1, number, each) for number, each in enumerate(entries)])
    found = [line for line in log_checks.check_log(log) if line.startswith("I13")]
    assert bool(found) is wrong
    audited = [line for line in log_checks.check_by_audit(log) if "I13" in line]
    assert bool(audited) is wrong
