"""Transactions and exclusive entries as a log has them, by a second implementation. Layer: testkit.

Contract: rules §5 and §6 written down again, from entries in tick order alone. A
transaction ends by the first record that ends it; what comes after that changes nothing. Checkers:

    I6 a LastConfirmed does not pass the Begin of a transaction that ends above the entry's tick
    I8 nothing of a transaction lies behind what ended it, and the log does not end it too early
    I12 what an exclusive entry excludes was written before it left, or left after it was written
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from walplane.message import codec
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.ticks import TICKS_PER_MS

if TYPE_CHECKING:
    from walplane.testkit.log_view import Logged

_T = MessageType
_OF_VCHANNEL = frozenset(
    {
        _T.MANUAL_FLUSH,
        _T.CREATE_COLLECTION,
        _T.DROP_COLLECTION,
        _T.ALTER_COLLECTION,
        _T.TRUNCATE_COLLECTION,
        _T.CREATE_PARTITION,
        _T.DROP_PARTITION,
    }
)
_OF_PCHANNEL = frozenset({_T.FLUSH_ALL, _T.ALTER_REPLICATE_CONFIG, _T.ALTER_WAL})
_FREE = frozenset({_T.TIME_TICK, _T.RECOVERY_BARRIER, _T.FLUSH})  # what it writes under no lock
_FOR_EVER = 1 << 64


@dataclass
class LoggedTxn:
    """One transaction of several entries.

    Attributes:
        begin: its Begin.
        bodies: in tick order.
        end: what ended it; None while it is open.
        late: what lies behind its end.
    """

    begin: Logged
    bodies: list[Logged] = field(default_factory=list)
    end: Logged | None = None
    late: list[Logged] = field(default_factory=list)

    @property
    def committed(self) -> bool:
        """Whether it is read."""
        return self.end is not None and self.end.envelope.type == _T.COMMIT_TXN

    @property
    def end_tick(self) -> int:
        """Of what ended it; above all while it is open."""
        return _FOR_EVER if self.end is None else self.end.last_tick


def excluded_by(entry: Logged) -> str | None:
    """The VChannel that an entry excludes all else from, empty for all; None = it does not."""
    if entry.envelope.type in _OF_PCHANNEL:
        return ""
    return entry.envelope.vchannel if entry.envelope.type in _OF_VCHANNEL else None


def transactions(entries: Iterable[Logged]) -> dict[int, LoggedTxn]:
    """By id, of entries in tick order; what has no Begin there is left out."""
    found: dict[int, LoggedTxn] = {}
    still: dict[int, LoggedTxn] = {}
    for entry in entries:
        envelope = entry.envelope
        if envelope.txn.kind == log_pb2.TXN_KIND_PART:
            if envelope.type == _T.BEGIN_TXN:
                found[entry.first_tick] = still[entry.first_tick] = LoggedTxn(entry)
            elif envelope.txn.txn_id in found:
                _continue(found[envelope.txn.txn_id], entry, still)
        elif still and (scope := excluded_by(entry)) is not None:
            for txn_id, txn in list(still.items()):
                if scope in ("", txn.begin.envelope.vchannel):
                    txn.end = entry
                    del still[txn_id]
    return found


def _continue(txn: LoggedTxn, entry: Logged, still: dict[int, LoggedTxn]) -> None:
    if txn.end is not None:
        txn.late.append(entry)
    elif entry.envelope.type in (_T.COMMIT_TXN, _T.ROLLBACK_TXN):
        txn.end = entry
        del still[entry.envelope.txn.txn_id]
    else:
        txn.bodies.append(entry)


def check_transactions(pchannel: str, entries: Sequence[Logged]) -> Iterator[str]:
    """I8 and I6 of the transactions among `entries`, which come in tick order."""
    txns = transactions(entries)
    yield from _expired_too_early(pchannel, entries, txns)
    for txn_id, txn in txns.items():
        for late in txn.late[:1]:
            yield f"I8 {pchannel}: {late} of transaction {txn_id} lies behind its end {txn.end}"
    for entry in entries:
        if not entry.envelope.HasField("last_confirmed"):
            continue
        confirmed, tick = MessageID.from_proto(entry.envelope.last_confirmed), entry.last_tick
        for txn_id, txn in txns.items():
            if txn_id <= tick < txn.end_tick and txn.begin.message_id < confirmed:
                yield (
                    f"I6 {pchannel}: {confirmed} of {entry} misses the Begin of "
                    f"transaction {txn_id}, which is open then"
                )
                break


def _expired_too_early(
    pchannel: str, entries: Sequence[Logged], txns: Mapping[int, LoggedTxn]
) -> Iterator[str]:
    """I8: the log ends a transaction only when its keepalive has run out (rules §5).

    A new owner's barrier renews it. One of the same owner, which opened its log again, comes too
    late for a Rollback that waited meanwhile.
    """
    barriers: dict[int, int] = {}
    for entry in entries:
        if entry.envelope.type == _T.RECOVERY_BARRIER:
            barriers.setdefault(entry.envelope.term, entry.last_tick)
    for txn_id, txn in txns.items():
        end = txn.end
        if end is None or end.envelope.type != _T.ROLLBACK_TXN or not _by_the_log(end):
            continue
        heard = [txn_id, *(body.last_tick for body in txn.bodies)]
        heard += [tick for tick in barriers.values() if tick < end.first_tick]
        alive = max(heard) + txn.begin.envelope.txn.keepalive_ms * TICKS_PER_MS
        if end.first_tick <= alive:
            yield f"I8 {pchannel}: {end} ends transaction {txn_id}, which lives up to {alive}"


def _by_the_log(rollback: Logged) -> bool:
    header, _ = codec.decode_body(rollback.body)
    return headers_pb2.RollbackTxnHeader.FromString(header).expired


def check_exclusive(pchannel: str, entries: Sequence[Logged]) -> Iterator[str]:
    """I12 of `entries`, in log order."""
    by_scope: defaultdict[str, list[Logged]] = defaultdict(list)
    for entry in entries:
        if entry.envelope.type not in _FREE:
            by_scope[""].append(entry)
            by_scope[entry.envelope.vchannel].append(entry)
    for exclusive in entries:
        scope = excluded_by(exclusive)
        for other in by_scope[scope] if scope is not None else ():
            if other is not exclusive and not _apart(exclusive, other):
                yield f"I12 {pchannel}: {exclusive} did not have {scope or 'it'} alone: {other}"
                break


def _apart(exclusive: Logged, other: Logged) -> bool:
    """Whether one was acknowledged before the other one left, as its frame says."""
    first, second = sorted((exclusive, other), key=lambda entry: entry.message_id)
    if first.last_tick > second.first_tick:
        return False
    same_open = _open(first) == _open(second)
    return not same_open or first.frame < second.acked


def _open(entry: Logged) -> tuple[int, int]:
    return entry.envelope.term, entry.open_number
