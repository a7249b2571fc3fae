"""The checks of `walplane verify`: a real log is clean, each planted violation is found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from google.protobuf.message import Message

from walplane.channel import cchannel_name
from walplane.message import codec
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.node.edge import Edge
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.testkit.faulty import Fault
from walplane.testkit.txns import begin, body, end, exclusive_entry
from walplane.testkit.wal_world import EARLIEST, V, World, entry
from walplane.wal.audit.log import LogAudit
from walplane.wal.ports import LogEntry
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind
from walplane.wal.wal import WAL

T = MessageType
P = "test_0"


def at(
    place: int,
    tick: int,
    kind: T = T.INSERT,
    *,
    count: int = 1,
    watermark: int | None = None,
    confirmed: int | None = None,
    producer: int | None = None,
    txn: int | None = None,
    owner: tuple[int, int] = (1, 0),
    vchannel: str = V,
) -> LogEntry:
    """The entry of record `place`."""
    envelope = log_pb2.Envelope(
        version=1, type=kind, vchannel=vchannel, first_tick=tick, count=count, term=owner[0]
    )
    envelope.watermark = tick - 1 if watermark is None else watermark
    if confirmed is not None:
        envelope.last_confirmed.CopyFrom(MessageID("memory", (confirmed,)).to_proto())
    if producer is not None:
        envelope.producer.producer_id, envelope.producer.number = b"p", producer
    if txn is not None:
        envelope.txn.kind, envelope.txn.txn_id = log_pb2.TXN_KIND_PART, txn
    sealed = codec.seal_entry(envelope, codec.encode_body(b"", [b"x"] * count))
    return LogEntry(sealed, MessageID("memory", (place,)), owner[1])


def barrier(place: int, tick: int, owner: tuple[int, int]) -> LogEntry:
    return at(place, tick, T.RECOVERY_BARRIER, owner=owner, vchannel="")


def sound() -> list[LogEntry]:
    """Two owners, entries out of tick order, a transaction, a producer."""
    late = (2, 0)
    return [
        barrier(1, 10, (1, 0)),
        at(2, 11, count=3, producer=0),
        at(3, 16, producer=1, watermark=13),
        at(4, 14, count=2, watermark=13, confirmed=2),
        at(5, 20, T.BEGIN_TXN, txn=0, watermark=16, confirmed=3),
        at(6, 21, txn=20, watermark=20, confirmed=4, producer=0),  # numbered for itself
        at(7, 22, watermark=21, confirmed=5),
        barrier(8, 40, late),
        at(9, 41, T.COMMIT_TXN, txn=20, owner=late, confirmed=5),
        at(10, 42, T.DROP_COLLECTION, owner=late, confirmed=9),
        at(11, 43, vchannel=f"{P}_2v0", owner=late, confirmed=10),
    ]


def audited(log: list[LogEntry]) -> LogAudit:
    audit = LogAudit(P)
    for item in log:
        audit.take(item)
    audit.finish()
    return audit


def test_a_sound_log_has_no_violation() -> None:
    audit = audited(sound())
    assert audit.violations == []
    assert (audit.entries, audit.messages) == (11, 14)
    assert (audit.first_tick, audit.last_tick, audit.open_transactions) == (10, 43, 0)


def test_a_log_may_begin_anywhere() -> None:
    for first in range(1, 11):
        assert audited(sound()[first:]).violations == [], first


@pytest.mark.parametrize(
    ("place", "wrong", "said"),
    [
        (2, at(1, 16, producer=1, watermark=13), "I5 test_0: INSERT memory:1:0:0"),
        (2, at(2, 16, producer=1, watermark=13), "I5 .* comes after INSERT memory:2:0:0"),
        (10, at(11, 43, vchannel=f"{P}_2v0", owner=(1, 5)), "is of an older owner"),
        (3, at(4, 16, watermark=13), "I3 test_0: .* shares ticks with INSERT memory:3:0:0"),
        (3, at(4, 15, count=3, watermark=13), "I3 test_0"),
        (2, at(3, 13, producer=1, watermark=10), "I3 .* shares ticks with INSERT memory:2:0:0"),
        (3, at(4, 13, watermark=12), "I7 test_0: .* comes after watermark 13"),
        (6, at(7, 22, watermark=19), "I7 test_0: .* 20 was told before"),
        (6, at(7, 22, watermark=22), "I7 test_0: .* carries watermark 22 itself"),
        (3, at(4, 14, count=2, watermark=13, confirmed=4), "I6 test_0: memory:4:0:0 of .* misses"),
        (2, at(3, 16, watermark=13, confirmed=7), "I6 test_0: LastConfirmed .* lies behind it"),
        (
            6,
            at(7, 22, watermark=21, confirmed=6),
            "I6 test_0: LastConfirmed of memory:7:.* misses",
        ),
        (7, barrier(8, 22, (2, 0)), "I9 test_0: barrier"),
        (8, at(9, 39, owner=(2, 0), watermark=38), "comes after watermark 40"),
        (2, at(3, 16, producer=0, watermark=13), "I13 test_0: .* came before"),
        (2, at(3, 16, producer=2, watermark=13), "I13 test_0: .* but 1 is missing before it"),
        (10, at(11, 43, txn=20, owner=(2, 0)), "I8 test_0: .* memory:9:0:0 ended"),
        (10, at(11, 43, txn=21, owner=(2, 0)), "I8 test_0: .* has no Begin here"),
        (5, at(6, 21, txn=20, watermark=20, vchannel=f"{P}_2v0"), "I8 test_0: .* begun on"),
        (10, at(11, 43, owner=(2, 0)), "order test_0: .* DROP_COLLECTION memory:10:0:0"),
    ],
)
def test_each_violation_is_found_and_named(place: int, wrong: LogEntry, said: str) -> None:
    log = sound()
    log[place] = wrong
    found = audited(log)
    assert found.found
    with pytest.raises(AssertionError, match=said):
        raise AssertionError("\n".join(found.violations))


def test_a_body_that_is_damaged_is_found() -> None:
    log = sound()
    log[1].entry.body_crc32c ^= 1
    (said,) = audited(log).violations
    assert "crc32c" in said


@pytest.mark.parametrize(
    ("kind", "vchannel", "ends"),
    [(T.MANUAL_FLUSH, V, True), (T.FLUSH_ALL, "", True), (T.MANUAL_FLUSH, f"{P}_2v0", False)],
)
def test_an_exclusive_message_ends_what_is_open_in_its_scope(
    kind: T, vchannel: str, ends: bool
) -> None:
    log = sound()
    log[6] = at(7, 22, kind, watermark=21, confirmed=5, vchannel=vchannel)
    said = audited(log).violations
    assert [each[:2] for each in said] == ["I8"] * ends
    assert all("memory:7:0:0 ended" in each for each in said)


def test_last_confirmed_stays_below_what_has_ended_above_the_entry() -> None:
    log = [
        barrier(1, 10, (1, 0)),
        at(2, 11, T.BEGIN_TXN, txn=0),
        at(3, 20, T.COMMIT_TXN, txn=11, watermark=11),
        at(4, 15, watermark=11, confirmed=2),
    ]
    assert audited(log).violations == []
    log[3] = at(4, 15, watermark=11, confirmed=3)
    (said,) = audited(log).violations
    assert said.startswith("I6") and "Begin memory:2:0:0 of transaction 11" in said


def test_a_transaction_that_stays_open_holds_last_confirmed_too() -> None:
    log = sound()[:7]
    log[6] = at(7, 22, watermark=21, confirmed=6)
    assert any("Begin memory:5:0:0 of transaction 20" in each for each in audited(log).violations)


def test_the_control_channel_outlives_what_is_dropped_on_it() -> None:
    control = cchannel_name(P)
    log = [
        at(1, 11, T.DROP_COLLECTION, vchannel=control),
        at(2, 12, T.CREATE_COLLECTION, vchannel=control),
    ]
    assert audited(log).violations == []


def test_memory_stays_what_it_is() -> None:
    audit = LogAudit(P)
    for number in range(3000):
        audit.take(at(number + 1, number + 10, watermark=number + 9))
    assert len(audit._window) < 5
    for number in range(3000):
        audit.take(at(number + 1, 10))
    assert audit.found >= 3000
    assert len(audit.violations) == 100


async def raw(wal: WAL, start: ScanStart = EARLIEST) -> list[LogEntry]:
    found: list[LogEntry] = []
    async with Edge(wal).scan(ScanRequest(start, follow=False, raw=True)) as scanner:
        while True:
            batch = await scanner.next()
            found += batch.entries
            if batch.end:
                return found


async def test_a_log_that_went_through_trouble_is_clean(world: World) -> None:
    wal = await world.open(1)
    faults = iter([Fault.NONE, Fault.FAIL_BEFORE, Fault.NONE, Fault.FAIL_AFTER])
    world.backend.faults = lambda _topic: next(faults, Fault.NONE)
    for first in (0, 8, 16):
        await asyncio.gather(*(wal.append(entry(b"x", number=first + n)) for n in range(8)))
        txn = await begin(wal, V)
        await asyncio.gather(*(body(wal, txn, b"body") for _ in range(4)))
        await end(wal, txn, T.COMMIT_TXN if first else T.ROLLBACK_TXN)
    await begin(wal, V)
    await wal.append(exclusive_entry(V))
    left = await begin(wal, V)
    await wal.close()
    after = await world.open(2)
    await body(after, left, b"later")
    log = await raw(after)
    audit = audited(log)
    assert audit.violations == []
    assert audit.open_transactions == 1
    types = {item.entry.envelope.type for item in log}
    assert {T.RECOVERY_BARRIER, T.TIME_TICK, T.BEGIN_TXN, T.INSERT} <= types
    barriers = [each for each in log if each.entry.envelope.type == T.RECOVERY_BARRIER]
    assert len(barriers) >= 3  # two owners, and at least one self-reopen
    middle = log[len(log) // 2].message_id
    resumed = await raw(after, ScanStart(StartKind.FROM_ID, message_id=middle))
    assert resumed[-1] == log[-1]
    assert resumed[0].message_id.record == middle.record


@pytest.mark.parametrize(
    "change",
    [
        lambda: ScanRequest(EARLIEST, follow=True, raw=True),
        lambda: ScanRequest(EARLIEST, V, follow=False, raw=True),
        lambda: ScanRequest(ScanStart(StartKind.LATEST), follow=False, raw=True),
    ],
)
async def test_a_raw_read_is_nothing_else(world: World, change: Callable[[], ScanRequest]) -> None:
    wal = await world.open(1)
    with pytest.raises(WalError) as caught:
        Edge(wal).scan(change())
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def segment_entry(place: int, tick: int, kind: T, header: Message) -> LogEntry:
    """An entry of record `place` with this header."""
    item = at(place, tick, kind)
    body = codec.encode_body(header.SerializeToString(), [b""])
    item.entry.CopyFrom(codec.seal_entry(item.entry.envelope, body))
    return item


def insert_into(place: int, tick: int, segment: int, partition: int = 0) -> LogEntry:
    """An Insert that names a segment."""
    item = at(place, tick)
    item.entry.envelope.segment_id, item.entry.envelope.partition_id = segment, partition
    return item


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (insert_into(9, 50, 12), ""),
        (insert_into(9, 50, 7), ""),  # made before the log begins
        (insert_into(9, 50, 11), "names segment 11, sealed by FLUSH"),
        (insert_into(9, 50, 13), "names segment 13, sealed by MANUAL_FLUSH"),
        (insert_into(9, 50, 12, 5), "names segment 12 of"),
        (insert_into(9, 50, 14), "names segment 14, which nothing created"),
    ],
)
def test_every_insert_names_a_segment_that_grows(last: LogEntry, said: str) -> None:
    made = [
        segment_entry(
            n, n + 10, T.CREATE_SEGMENT, headers_pb2.CreateSegmentHeader(segment_id=n + 10)
        )
        for n in (1, 3)
    ]
    log = [
        barrier(0, 10, (1, 0)),
        made[0],
        made[1],
        segment_entry(4, 14, T.FLUSH, headers_pb2.FlushHeader(segment_id=11)),
        at(5, 15, T.MANUAL_FLUSH),
        segment_entry(6, 16, T.CREATE_SEGMENT, headers_pb2.CreateSegmentHeader(segment_id=12)),
        last,
    ]
    violations = audited(log).violations
    assert len(violations) == bool(said), violations
    assert all(said in violation for violation in violations)
