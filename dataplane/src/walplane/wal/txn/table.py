"""The transactions of one PChannel as its log tells them: those open, and how the latest ended.

Contract: pure; fed with every entry in log order, at startup from LastConfirmed on and live. An
open transaction ends by a record and by nothing else (rules §5). Open ones are never saved:
LastConfirmed does not pass the oldest Begin, so replay meets all of them whole; what ended is saved
with the checkpoint. Observing an entry twice changes nothing. Layer: wal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from walplane.message import codec
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType, Scope
from walplane.message.txn import exclusive_scope, is_part
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.ticks import TICKS_PER_MS
from walplane.wal.latest import Latest
from walplane.wal.ports import AppendResult, LogEntry
from walplane.wal.recovery.results import KeptResults, result_from_proto
from walplane.wal.recovery.windows import ProducerWindows, WindowLimits

_ENDING = 256
_PRODUCERS = 16  # of one transaction: a client has one, and another after each refusal
_PART_ENDS = 500  # of about 100 bytes


@dataclass(slots=True)
class OpenTxn:
    """A transaction that no record ended yet.

    Attributes:
        txn_id: tick of its Begin.
        vchannel: where it is.
        keepalive_ms: how long it lives without a body, in milliseconds of tick time.
        begin: position of its Begin.
        renewed: tick up to which it was heard of.
        windows: its producers' batches.
    """

    txn_id: int
    vchannel: str
    keepalive_ms: int
    begin: MessageID
    renewed: int
    windows: ProducerWindows

    def expired(self, tick: int) -> bool:
        """Whether its keepalive has run out at `tick`."""
        return tick > self.renewed + self.keepalive_ms * TICKS_PER_MS


class EndedTxn(NamedTuple):
    """What became of a transaction; `result` is what its Commit or Rollback answers."""

    end: log_pb2.TxnEnd
    tick: int
    result: AppendResult | None


class TxnTable:
    """Open transactions in the order of their Begins, and the latest that ended.

    Attributes:
        open: by transaction id.
        forgotten_tick: what ended up to here may be known no more.
    """

    component = "transactions"

    def __init__(self, results: int, limits: WindowLimits) -> None:
        """Empty; remembers `results` ends; `limits` bound the batches of all that are open."""
        self.open: dict[int, OpenTxn] = {}
        self.forgotten_tick = 0
        self._ended: dict[int, EndedTxn] = {}
        self._ends: Latest[int] = Latest(results)
        self._ending: list[tuple[int, MessageID]] = []  # (tick of the end, Begin)
        self._ending_most = _ENDING  # twice what the latest look left: so all looks cost no more
        self._limits = limits._replace(producers=_PRODUCERS)
        self._kept = KeptResults(limits.max_bytes, limits.age_ms)

    @property
    def held_bytes(self) -> int:
        """What the batches of open transactions take in memory, about."""
        return self._kept.used

    def floor_at(self, watermark: int) -> MessageID | None:
        """The record of the oldest Begin open at `watermark`: LastConfirmed must not pass it.

        What ended above the watermark, which never falls, is open there: an end that was written
        may wait for lower ticks.
        """
        oldest = next(iter(self.open.values())).begin if self.open else None
        if self._ending:
            self._forget_ended(watermark)
            begins = [begin for _, begin in self._ending]
            oldest = min(begins if oldest is None else [oldest, *begins], default=None)
        return None if oldest is None else MessageID(oldest.backend, oldest.record)

    def ended(self, txn_id: int) -> EndedTxn | None:
        """How `txn_id` ended, if it did and is remembered."""
        return self._ended.get(txn_id)

    def spans(self, tick: int) -> bool:
        """Whether some transaction may begin at or below `tick` and end above it."""
        if tick < self.forgotten_tick:
            return True
        if min(self.open, default=tick + 1) <= tick:
            return True
        for (end_tick, _), txn_id in reversed(self._ends):
            if end_tick <= tick:
                return False
            if txn_id <= tick:
                return True
        return False

    def renew(self, tick: int) -> None:
        """A new owner has come: everything open was heard of at `tick`, all below is settled."""
        self._ending.clear()
        for txn in self.open.values():
            txn.renewed = max(txn.renewed, tick)

    def observe(self, log_entry: LogEntry) -> None:
        """Learns of a written entry, in log order."""
        envelope = log_entry.entry.envelope
        if is_part(envelope):
            self._observe_part(log_entry, envelope)
        elif self.open and (scope := exclusive_scope(envelope.type)) is not Scope.NONE:
            self._end_all(log_entry, None if scope is Scope.PCHANNEL else envelope.vchannel)
        elif envelope.type == MessageType.RECOVERY_BARRIER:
            self.renew(log_entry.last_tick)

    def save(self) -> list[bytes]:
        """The component's snapshot."""
        parts = [log_pb2.EndedTxns(forgotten_tick=self.forgotten_tick)]
        for txn_id, ended in self._ended.items():
            if len(parts[-1].txns) == _PART_ENDS:
                parts.append(log_pb2.EndedTxns(forgotten_tick=self.forgotten_tick))
            proto = parts[-1].txns.add(txn_id=txn_id, end=ended.end, time_tick=ended.tick)
            if ended.result is not None:
                ended.result.write_to(proto.result)
        return [part.SerializeToString() for part in parts]

    def load(self, parts: Iterable[bytes]) -> None:
        """Takes over what `save` made."""
        for part in parts:
            saved = log_pb2.EndedTxns.FromString(part)
            self.forgotten_tick = max(self.forgotten_tick, saved.forgotten_tick)
            for proto in saved.txns:
                result = result_from_proto(proto.result) if proto.HasField("result") else None
                self._remember(proto.txn_id, EndedTxn(proto.end, proto.time_tick, result))

    def _observe_part(self, log_entry: LogEntry, envelope: log_pb2.Envelope) -> None:
        if envelope.type == MessageType.BEGIN_TXN:
            self._begin(log_entry, envelope)
            return
        txn = self.open.get(envelope.txn.txn_id)
        if txn is None:
            return  # ended before, or it began below where the replay did
        if envelope.type == MessageType.COMMIT_TXN:
            self._end(txn, log_entry, log_pb2.TXN_END_COMMITTED)
        elif envelope.type == MessageType.ROLLBACK_TXN:
            self._end(txn, log_entry, _kind_of_rollback(log_entry))
        else:
            txn.renewed = max(txn.renewed, log_entry.last_tick)
            txn.windows.observe(log_entry)

    def _begin(self, log_entry: LogEntry, envelope: log_pb2.Envelope) -> None:
        txn_id = log_entry.first_tick
        if txn_id in self.open:
            return
        self.open[txn_id] = OpenTxn(
            txn_id,
            envelope.vchannel,
            envelope.txn.keepalive_ms,
            log_entry.message_id,
            log_entry.last_tick,
            ProducerWindows(self._limits, self._kept),
        )

    def _forget_ended(self, watermark: int) -> None:
        self._ending = [ended for ended in self._ending if ended[0] > watermark]
        self._ending_most = max(_ENDING, 2 * len(self._ending))

    def _end_all(self, log_entry: LogEntry, vchannel: str | None) -> None:
        for txn in list(self.open.values()):
            if vchannel in (None, txn.vchannel):
                self._end(txn, log_entry, log_pb2.TXN_END_FORCED)

    def _end(self, txn: OpenTxn, log_entry: LogEntry, end: log_pb2.TxnEnd) -> None:
        del self.open[txn.txn_id]
        txn.windows.release()
        self._ending.append((log_entry.last_tick, txn.begin))
        if len(self._ending) > self._ending_most:  # a replay asks for no floor
            self._forget_ended(log_entry.entry.envelope.watermark)
        result = None if end == log_pb2.TXN_END_FORCED else log_entry.result()
        self._remember(txn.txn_id, EndedTxn(end, log_entry.last_tick, result))

    def _remember(self, txn_id: int, ended: EndedTxn) -> None:
        known = txn_id in self._ended
        self._ended[txn_id] = ended
        oldest = None if known else self._ends.add((ended.tick, txn_id), txn_id)
        if oldest is not None:
            self.forgotten_tick = max(self.forgotten_tick, self._ended.pop(oldest).tick)


def _kind_of_rollback(log_entry: LogEntry) -> log_pb2.TxnEnd:
    header, _ = codec.decode_body(log_entry.entry.body)
    expired = headers_pb2.RollbackTxnHeader.FromString(header).expired
    return log_pb2.TXN_END_EXPIRED if expired else log_pb2.TXN_END_ROLLED_BACK
