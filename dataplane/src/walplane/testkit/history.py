"""What clients did and what readers saw, and the checkers of that. Layer: testkit.

Contract: a `History` is recorded while faults happen and judged afterwards. Every appended payload
is unique, so that it names its append. A checker returns the violations it found, each with the
number of its invariant; an empty list is a verdict only as far as readings are complete.

    I1 no acknowledged append is lost, and it is where its acknowledgement says
    I2 no refused append is visible, and nothing that nobody appended
    I3 ticks strictly grow in delivered order; those of a transaction are all its Commit's
    I4 all readings of a channel are parts of one sequence
    I5 MessageIDs grow with log order, but for transactions, which come at their Commit
    I8 transactions are read whole, in one piece, or not at all
    I13 nothing is delivered twice, though clients retry; a producer's order is kept
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from walplane.message.ids import MessageID, RecordID
from walplane.rpc.errors import ErrorCode

DEFINITE = frozenset(
    {ErrorCode.INVALID_ARGUMENT, ErrorCode.CHANNEL_NOT_EXIST, ErrorCode.RESOURCE_ACQUIRED}
)
"""What an append is refused with before anything of it left; all else leaves it unknown."""


class Outcome(enum.Enum):
    """What the caller of an append was told; an append in flight at the end is unknown."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Attempt:
    """One append, in the order in which its client began it.

    Attributes:
        client: whose; one's own appends keep their order.
        vchannel: where to.
        payload: unique.
        outcome: what its caller was told, and when that was an acknowledgement:
        message_id: where it is; None in a transaction.
        time_tick: its tick.
        last_confirmed: from where on all behind it is read.
        tag: a property that went with it, and with no other.
    """

    client: str
    vchannel: str
    payload: bytes
    outcome: Outcome = Outcome.UNKNOWN
    message_id: MessageID | None = None
    time_tick: int = 0
    last_confirmed: MessageID | None = None
    tag: str = ""

    def is_at(self, message_id: MessageID, time_tick: int) -> bool:
        """Whether that is where it was acknowledged; in a transaction only the tick is told."""
        return time_tick == self.time_tick and self.message_id in (None, message_id)


@dataclass(slots=True)
class TxnAttempt:
    """A transaction; the outcome of each of its appends is that of the whole.

    Attributes:
        vchannel: where it is.
        attempts: its appends, in order.
    """

    vchannel: str
    attempts: list[Attempt] = field(default_factory=list)

    def settle(self, outcome: Outcome, time_tick: int = 0) -> None:
        """What its program was told; ticks are its Commit's."""
        for attempt in self.attempts:
            attempt.outcome, attempt.time_tick = outcome, time_tick


class Delivered(NamedTuple):
    """One message as a reader got it."""

    vchannel: str
    payload: bytes
    message_id: MessageID
    time_tick: int
    txn_id: int = 0


@dataclass(slots=True)
class Reading:
    """What one reader of one VChannel got, in order.

    Attributes:
        complete: from the earliest message to an end taken after the last acknowledgement.
        after: every message above this tick is due, from the first on; None = not known.
        marks: (messages it had, the reader's watermark then), as the program saw them.
        floor: what begins below this record may have been cut off before the reading began.
        due: payloads that were acknowledged before it began: one that reached the end has them.
    """

    reader: str
    vchannel: str
    complete: bool
    messages: list[Delivered] = field(default_factory=list)
    after: int | None = None
    marks: list[tuple[int, int]] = field(default_factory=list)
    floor: RecordID = ()
    due: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class ReadTick:
    """A tick taken to read at: whoever has everything up to it has all acknowledged before it.

    Attributes:
        pchannel: where it counts.
        tick: the tick.
        acknowledged: the appends that were acknowledged before it was asked for.
    """

    pchannel: str
    tick: int
    acknowledged: tuple[Attempt, ...]


@dataclass(slots=True)
class History:
    """Everything that happened, as seen from outside.

    Attributes:
        attempts: appends, in the order in which they began.
        readings: what readers got.
        placed: what those got that began at a place in the log: what lies before it is missing,
            whatever its tick.
        read_ticks: ticks taken to read at.
        txns: transactions.
    """

    attempts: list[Attempt] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    placed: list[Reading] = field(default_factory=list)
    read_ticks: list[ReadTick] = field(default_factory=list)
    txns: list[TxnAttempt] = field(default_factory=list)

    def begin(self, client: str, vchannel: str, payload: bytes) -> Attempt:
        """Records an append before it is sent; its outcome is filled in later."""
        attempt = Attempt(client, vchannel, payload)
        self.attempts.append(attempt)
        return attempt

    def reading(self, reader: str, vchannel: str, *, complete: bool) -> Reading:
        """Records a reader; its messages are appended as they come."""
        reading = Reading(reader, vchannel, complete)
        self.readings.append(reading)
        return reading

    @property
    def acknowledged(self) -> int:
        """Number of acknowledged appends."""
        return sum(attempt.outcome is Outcome.ACKNOWLEDGED for attempt in self.attempts)


def check(history: History) -> list[str]:
    """All violations of the invariants above, the same in every run over the same history."""
    attempts = {attempt.payload: attempt for attempt in history.attempts}
    if len(attempts) != len(history.attempts):
        return ["the history is of no use: payloads are not unique"]
    found: list[str] = []
    for reading in [*history.readings, *history.placed]:
        found += _ticks_grow(reading)
        found += _ids_grow(reading)
        found += _once(reading)
        found += _only_appended(reading, attempts)
        found += _txns_whole(reading, history.txns)
        found += _producer_order(reading, history.attempts)
        if reading.complete:
            found += _nothing_lost(reading, history.attempts)
    found += _one_sequence(history.readings)
    return found


def _nothing_lost(reading: Reading, attempts: Iterable[Attempt]) -> Iterator[str]:
    delivered = {message.payload: message for message in reversed(reading.messages)}
    for attempt in attempts:
        if attempt.outcome is not Outcome.ACKNOWLEDGED or attempt.vchannel != reading.vchannel:
            continue
        message = delivered.get(attempt.payload)
        told = f"acknowledged as {attempt.message_id} tick {attempt.time_tick}"
        if message is None:
            yield f"I1 {_name(reading)} lacks {_quote(attempt.payload)}, {told}"
        elif not attempt.is_at(message.message_id, message.time_tick):
            place = f"{message.message_id} tick {message.time_tick}"
            yield f"I1 {_name(reading)} has {_quote(attempt.payload)} at {place}, {told}"


def _only_appended(reading: Reading, attempts: dict[bytes, Attempt]) -> Iterator[str]:
    for message in reading.messages:
        attempt = attempts.get(message.payload)
        if attempt is None:
            yield f"I2 {_name(reading)} has {_quote(message.payload)}, which nobody appended"
        elif attempt.outcome is Outcome.REFUSED:
            yield f"I2 {_name(reading)} has {_quote(message.payload)}, which was refused"
        elif message.vchannel != reading.vchannel or attempt.vchannel != reading.vchannel:
            yield f"I2 {_name(reading)} has {_quote(message.payload)} of {attempt.vchannel}"


def _ticks_grow(reading: Reading) -> Iterator[str]:
    for before, after in pairwise(reading.messages):
        together = before.txn_id and before.txn_id == after.txn_id
        if after.time_tick < before.time_tick + (not together):
            yield (
                f"I3 {_name(reading)}: tick {after.time_tick} of {after.message_id} "
                f"comes after tick {before.time_tick} of {before.message_id}"
            )


def _ids_grow(reading: Reading) -> Iterator[str]:
    by_itself = [message for message in reading.messages if not message.txn_id]
    for before, after in pairwise(by_itself):
        if after.message_id <= before.message_id:
            yield f"I5 {_name(reading)}: {after.message_id} comes after {before.message_id}"


def _txns_whole(reading: Reading, txns: Iterable[TxnAttempt]) -> Iterator[str]:
    """All of a transaction or nothing, in one piece and at one tick."""
    place = {message.payload: number for number, message in enumerate(reading.messages)}
    for txn in txns:
        got = [place[each.payload] for each in txn.attempts if each.payload in place]
        if not got:
            continue
        piece = reading.messages[got[0] : got[0] + len(txn.attempts)]
        if [each.payload for each in piece] != [each.payload for each in txn.attempts]:
            first = _quote(txn.attempts[0].payload)
            yield f"I8 {_name(reading)} has a part of the transaction that begins with {first}"
        elif len({(each.txn_id, each.time_tick) for each in piece}) > 1 or not piece[0].txn_id:
            yield f"I8 {_name(reading)} has a transaction at several ticks: {piece}"


def _once(reading: Reading) -> Iterator[str]:
    seen: dict[bytes, Delivered] = {}
    for message in reading.messages:
        first = seen.setdefault(message.payload, message)
        if first is not message:
            yield (
                f"I13 {_name(reading)} has {_quote(message.payload)} twice: "
                f"{first.message_id} and {message.message_id}"
            )


def _producer_order(reading: Reading, attempts: Sequence[Attempt]) -> Iterator[str]:
    """A producer's messages come in the order in which it began their appends."""
    place = {attempt.payload: number for number, attempt in enumerate(attempts)}
    last: dict[str, int] = defaultdict(lambda: -1)
    for message in reading.messages:
        number = place.get(message.payload)
        if number is None:
            continue
        client = attempts[number].client
        if number < last[client]:
            yield f"I13 {_name(reading)} has {_quote(message.payload)} of {client} out of order"
        last[client] = max(last[client], number)


def _one_sequence(readings: Sequence[Reading]) -> Iterator[str]:
    """Each reading of a channel is a slice of its longest one."""
    longest: dict[str, Reading] = {}
    for reading in readings:
        known = longest.setdefault(reading.vchannel, reading)
        if len(reading.messages) > len(known.messages):
            longest[reading.vchannel] = reading
    for reading in readings:
        whole = longest[reading.vchannel]
        if reading is whole or not reading.messages:
            continue
        first = next(
            (i for i, m in enumerate(whole.messages) if m == reading.messages[0]),
            len(whole.messages),
        )
        if whole.messages[first : first + len(reading.messages)] != reading.messages:
            yield f"I4 {_name(reading)} is no part of what {whole.reader} read"


def _name(reading: Reading) -> str:
    return f"{reading.reader} of {reading.vchannel}"


def _quote(payload: bytes) -> str:
    return repr(payload[:40])
