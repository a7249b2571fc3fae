"""Checkers of a log itself, and of what readers got against it. Layer: testkit.

Contract: each returns the violations it found, with the number of the invariant; they need nothing
but records and a `History`, so that they judge simulated and real clusters alike.

    I1 no acknowledged append is lost, and it is where its acknowledgement says
    I2 no refused append is in the log, and nothing that nobody appended
    I3 ticks are unique in the log
    I4 every reading is a piece of the log, without a gap, from where it began
    I6 reading from an entry's LastConfirmed finds everything above its tick
    I7 nothing comes at or below a watermark that was told before
    I8, I12 of transactions and exclusive entries: see `log_txns`
    §2 of collections, partitions and segments: see `log_shards`
    I9 what lies behind a barrier lies above its tick, what lies before it below
    I10 a checkpoint covers what it says: replay from it finds the rest, and its snapshot the others
    I13 a producer's batch is in the log once
    I14 who reads up to a read tick has all that was acknowledged before the tick was asked for
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise, starmap

from walplane.backends.interface import Record
from walplane.message.codec import decode_body
from walplane.message.ids import MessageID, RecordID
from walplane.message.registry import MessageType
from walplane.message.txn import txn_of
from walplane.rpc.v1 import log_pb2
from walplane.testkit.history import Attempt, History, Outcome, Reading
from walplane.testkit.log_shards import check_shards
from walplane.testkit.log_txns import check_exclusive, check_transactions
from walplane.testkit.log_view import Logged, LoggedMessage, LogView, ValidFrames
from walplane.wal.audit.log import LogAudit


def check_log(log: LogView) -> list[str]:
    """I3, I6 to I9, I12, I13 and rules §2 of the entries themselves."""
    found = [*_ticks_unique(log), *_watermarks_hold(log), *_confirmed_reach(log)]
    found += check_transactions(log.pchannel, log.in_tick_order())
    found += check_exclusive(log.pchannel, log.entries)
    found += check_shards(log.pchannel, log.in_tick_order())
    return [*found, *_barriers_part(log), *_batches_once(log)]


def check_by_audit(log: LogView) -> list[str]:
    """What `walplane verify` says of the log."""
    audit = LogAudit(log.pchannel)
    for entry in log.sealed():
        audit.take(entry)
    audit.finish()
    return [f"verify: {violation}" for violation in audit.violations]


def check_attempts(log: LogView, attempts: Sequence[Attempt]) -> Iterator[str]:
    """I1 and I2: what clients were told, against the log."""
    there = {message.payload: message for message in log.messages()}
    tried = {attempt.payload: attempt for attempt in attempts}
    for attempt in attempts:
        message = there.get(attempt.payload)
        if attempt.outcome is Outcome.ACKNOWLEDGED:
            told = (attempt.message_id, attempt.time_tick)
            if message is None:
                yield f"I1 {log.pchannel} lacks {attempt.payload!r}, acknowledged as {told}"
            elif not attempt.is_at(message.message_id, message.time_tick):
                yield f"I1 {log.pchannel} has {message}, acknowledged as {told}"
            else:
                yield from _confirmed_as_told(log, attempt)
        elif attempt.outcome is Outcome.REFUSED and message is not None:
            yield f"I2 {log.pchannel} has {attempt.payload!r}, which was refused"
    for payload in there:
        if payload not in tried:
            yield f"I2 {log.pchannel} has {payload!r}, which nobody appended"
    yield from _tags_kept(log, tried)


def _confirmed_as_told(log: LogView, attempt: Attempt) -> Iterator[str]:
    """I6 of what a caller was told; a transaction's is its Commit's."""
    if attempt.message_id is None:
        return
    envelope = log.entry_at(attempt.message_id).envelope
    confirmed = None
    if envelope.HasField("last_confirmed"):
        confirmed = MessageID.from_proto(envelope.last_confirmed)
    if confirmed != attempt.last_confirmed:
        yield f"I6 {log.pchannel}: {attempt} was told another LastConfirmed than {confirmed}"


def _tags_kept(log: LogView, tried: Mapping[bytes, Attempt]) -> Iterator[str]:
    """I2 of properties: messages that share an entry have the same."""
    for entry in log.entries:
        if entry.envelope.type == MessageType.INSERT:
            tag = entry.envelope.properties.get("tag", "")
            _, payloads = decode_body(entry.body)
            for payload in payloads:
                if payload in tried and tried[payload].tag != tag:
                    yield f"I2 {log.pchannel}: {payload!r} lies under the tag {tag!r}"


def check_reading(
    reading: Reading, log: LogView, vchannel: str, acknowledged: Collection[bytes]
) -> Iterator[str]:
    """I4, I7 and I14 of one reading of `vchannel` (empty: of the whole PChannel).

    Args:
        reading: what a reader got.
        log: what was there to get.
        vchannel: the part of `log` that it read.
        acknowledged: payloads; what a caller gave up may be written after a complete reading.
    """
    got = list(starmap(LoggedMessage, reading.messages))
    whole = _left_for(reading, got, log, vchannel)
    start = _start_of(reading, got, whole)
    if whole[start : start + len(got)] != got:
        yield f"I4 {reading.reader} of {reading.vchannel}: {_difference(got, whole[start:])}"
        return
    due = acknowledged if reading.complete else reading.due
    behind = whole[start + len(got) :]
    for message in [each for each in behind if each.payload in due][:1]:
        yield f"I4 {reading.reader} of {reading.vchannel} ends before {message}"
    ticks = [message.time_tick for message in whole]
    for count, watermark in reading.marks:
        told = bisect_right(ticks, watermark) - start
        if told > count:
            missing = whole[start + count]
            yield (
                f"I7 {reading.reader} of {reading.vchannel} was told {watermark} after {count} "
                f"messages, before {missing}"
            )
            return


def check_read_ticks(history: History, pchannel: str) -> Iterator[str]:
    """I14: a read tick lies above all that was acknowledged before it was asked for."""
    for read in history.read_ticks:
        for attempt in read.acknowledged:
            if read.pchannel == pchannel and attempt.time_tick >= read.tick:
                yield f"I14 read tick {read.tick} of {pchannel} is not above {attempt}"


def check_checkpoints(log: LogView, topic: str, records: Sequence[Record]) -> Iterator[str]:
    """I10 of every snapshot that the meta topic still holds."""
    for parts in snapshots(topic, records):
        for data in parts.get("checkpoint", ()):
            checkpoint = log_pb2.WALCheckpoint.FromString(data)
            begin = None
            if checkpoint.HasField("last_confirmed"):
                begin = MessageID.from_proto(checkpoint.last_confirmed)
            for entry in log.entries:
                if entry.last_tick > checkpoint.time_tick and begin is not None:
                    if entry.message_id < begin:
                        yield f"I10 replay from {begin} misses {entry}"
            yield from _windows_complete(log, checkpoint.time_tick, _numbered(parts))


def _numbered(parts: dict[str, list[bytes]]) -> list[bytes]:
    names = ("producers", "broadcasts", "named_producers")
    return [part for name in names for part in parts.get(name, [])]


def _windows_complete(log: LogView, tick: int, parts: Sequence[bytes]) -> Iterator[str]:
    due: dict[tuple[bytes | str, str], tuple[int, int]] = {}
    forgotten = 0
    for part in parts:
        window = log_pb2.ProducerWindow.FromString(part)
        key = (window.name or window.producer_id, window.vchannel)
        due[key] = (window.epoch, window.next_number)
        forgotten = max(forgotten, window.forgotten_tick)
    for entry in log.entries:
        if txn_of(entry.envelope):
            continue  # numbered for themselves, and replayed from their Begin on
        if forgotten < entry.last_tick <= tick and entry.envelope.HasField("producer"):
            producer = entry.envelope.producer
            key = (producer.name or producer.producer_id, entry.envelope.vchannel)
            epoch, number = due.get(key, (0, 0))
            opens = bool(producer.opener)
            if entry.first_tick > epoch if opens else producer.number >= number:
                yield f"I10 the snapshot of checkpoint {tick} does not know {entry}"


def snapshots(topic: str, records: Sequence[Record]) -> Iterator[dict[str, list[bytes]]]:
    """The whole snapshots in a meta topic, by component, in their order."""
    parts: dict[str, list[bytes]] | None = None
    for _, content in ValidFrames(topic, records).valid():
        for meta in content.meta:
            if meta.HasField("barrier"):
                parts = None
            elif meta.HasField("snapshot_begin"):
                parts = {}
            elif meta.HasField("snapshot_part") and parts is not None:
                part = meta.snapshot_part
                parts.setdefault(part.component, []).append(part.data)
            elif meta.HasField("snapshot_end") and parts is not None:
                yield parts
                parts = None


def _ticks_unique(log: LogView) -> Iterator[str]:
    ordered = sorted(log.entries, key=lambda entry: entry.first_tick)
    for before, after in pairwise(ordered):
        if after.first_tick <= before.last_tick:
            yield f"I3 {log.pchannel}: {before} and {after} share ticks"


def _watermarks_hold(log: LogView) -> Iterator[str]:
    least: Logged | None = None
    for entry in reversed(log.entries):
        if least is not None and entry.envelope.watermark >= least.first_tick:
            yield (
                f"I7 {log.pchannel}: {entry} carries watermark {entry.envelope.watermark}, "
                f"but {least} comes after it"
            )
        if least is None or entry.first_tick < least.first_tick:
            least = entry


def _confirmed_reach(log: LogView) -> Iterator[str]:
    """Walks down the ticks, knowing the first place of all that lies above."""
    first: Logged | None = None
    for entry in sorted(log.entries, key=lambda entry: -entry.first_tick):
        envelope = entry.envelope
        if first is not None and envelope.HasField("last_confirmed"):
            confirmed = MessageID.from_proto(envelope.last_confirmed)
            if first.message_id < confirmed:
                yield f"I6 {log.pchannel}: {confirmed} of {entry} misses {first}"
        if first is None or entry.message_id < first.message_id:
            first = entry


def _barriers_part(log: LogView) -> Iterator[str]:
    highest, barrier = 0, None
    for entry in log.entries:
        if entry.is_barrier:
            if entry.first_tick <= highest:
                yield f"I9 {log.pchannel}: {entry} is a barrier below tick {highest}"
            barrier = entry
        elif barrier is not None and entry.first_tick <= barrier.first_tick:
            yield f"I9 {log.pchannel}: {entry} lies behind barrier {barrier}"
        highest = max(highest, entry.last_tick)


def _named_in_order(log: LogView) -> Iterator[str]:
    """Named producers number messages without gap; only the last that was opened writes."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for entry in log.entries:
        producer = entry.envelope.producer
        if not producer.name:
            continue
        key = (producer.name, entry.envelope.vchannel)
        epoch, due = found.get(key, (0, 0))
        if producer.opener:
            found[key] = (entry.first_tick, due)
        else:
            if (producer.epoch, producer.number) != (epoch, due):
                yield (
                    f"I13 {log.pchannel}: {entry} is message {producer.number} of epoch "
                    f"{producer.epoch} of {key}, when {due} of epoch {epoch} was due"
                )
            found[key] = (epoch, producer.number + entry.envelope.count)


def _batches_once(log: LogView) -> Iterator[str]:
    yield from _named_in_order(log)
    seen: dict[tuple[bytes, int, str, int], Logged] = {}
    for entry in log.entries:
        envelope = entry.envelope
        if envelope.HasField("producer") and not envelope.producer.name:
            producer, txn = envelope.producer, txn_of(envelope)
            key = (producer.producer_id, producer.number, envelope.vchannel, txn)
            first = seen.setdefault(key, entry)
            if first is not entry:
                yield f"I13 {log.pchannel}: {entry} repeats {first}"


def _left_for(
    reading: Reading, got: Sequence[LoggedMessage], log: LogView, vchannel: str
) -> Sequence[LoggedMessage]:
    """What was there to read: all but what was cut off before the reading began."""
    whole = log.messages(vchannel)
    if not reading.floor:
        return whole
    begins = log.begins()

    def begin(message: LoggedMessage) -> RecordID:
        return begins.get(message.txn_id, message.message_id.record)

    first = min([reading.floor, *map(begin, got)])
    return [message for message in whole if begin(message) >= first]


def _start_of(
    reading: Reading, got: Sequence[LoggedMessage], whole: Sequence[LoggedMessage]
) -> int:
    """Where in the log a reading began: by the tick it is after, else by its first message."""
    after = reading.after
    if after is None:
        after = got[0].time_tick - 1 if got else (whole[-1].time_tick if whole else 0)
    return bisect_right([message.time_tick for message in whole], after)


def _difference(got: Sequence[LoggedMessage], due: Sequence[LoggedMessage]) -> str:
    for number, message in enumerate(got):
        if number >= len(due):
            return f"message {number} is {message}, and nothing was due"
        if message != due[number]:
            return f"message {number} is {message}, and {due[number]} was due"
    return "no difference"
