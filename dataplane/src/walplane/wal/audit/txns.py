"""Whether the transactions of a log are whole, and LastConfirmed keeps below them. Layer: wal.

Contract: as `log`. A transaction ends once, by a Commit, a Rollback or an exclusive message, and
has no part before its Begin or after its end. LastConfirmed of an entry does not pass the Begin of
one that ends above the entry's tick (rules §4), whether it has ended in the log by then or not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from walplane.message.ids import MessageID
from walplane.message.registry import MessageType, Scope
from walplane.message.txn import exclusive_scope, is_part
from walplane.rpc.v1 import log_pb2
from walplane.wal.ports import LogEntry

_OPEN = 100_000
_ENDED = 1_000  # remembered to tell a second end from one that never began


@dataclass(slots=True)
class _Txn:
    vchannel: str
    begin: MessageID
    passed_tick: int = 0
    passed_by: MessageID | None = None  # entry of the lowest tick whose LastConfirmed passed Begin

    def passed(self, tick: int, by: MessageID) -> None:
        if self.passed_by is None or tick < self.passed_tick:
            self.passed_tick, self.passed_by = tick, by


class TxnAudit:
    """The transactions of one log.

    Attributes:
        open: by transaction id, in the order of their Begins.
    """

    def __init__(self, report: Callable[[str, str], None]) -> None:
        """`report` takes the rule and the sentence of a violation."""
        self.open: OrderedDict[int, _Txn] = OrderedDict()
        self._ended: OrderedDict[int, tuple[int, MessageID, MessageID]] = OrderedDict()
        self._report = report

    def take(self, item: LogEntry, log_begins: int) -> None:
        """Checks the next entry; what began below the tick `log_begins` is not known whole."""
        envelope = item.entry.envelope
        self._check_confirmed(item, envelope)
        if is_part(envelope):
            self._take_part(item, envelope, log_begins)
            return
        scope = exclusive_scope(envelope.type)
        if self.open and scope is not Scope.NONE:
            for txn_id, txn in list(self.open.items()):
                if scope is Scope.PCHANNEL or txn.vchannel == envelope.vchannel:
                    self._end(txn_id, txn, item)

    def finish(self) -> None:
        """Whatever is open here ends later, above all that there is."""
        for txn_id, txn in self.open.items():
            if txn.passed_by is not None:
                self._misses(txn.passed_by, txn_id, txn.begin)

    def _check_confirmed(self, item: LogEntry, envelope: log_pb2.Envelope) -> None:
        confirmed = item.last_confirmed
        if confirmed is None:
            return
        for txn in self.open.values():
            if txn.begin >= confirmed:
                break
            txn.passed(item.last_tick, item.message_id)
        for txn_id, (tick, begin, _) in reversed(self._ended.items()):
            if tick <= envelope.watermark:
                break
            if begin < confirmed and tick > item.last_tick:
                self._misses(item.message_id, txn_id, begin)

    def _take_part(self, item: LogEntry, envelope: log_pb2.Envelope, log_begins: int) -> None:
        if envelope.type == MessageType.BEGIN_TXN:
            self.open[item.first_tick] = _Txn(envelope.vchannel, item.message_id)
            if len(self.open) > _OPEN:
                self.open.popitem(last=False)
            return
        txn_id = envelope.txn.txn_id
        txn = self.open.get(txn_id)
        what = f"the entry {item.message_id}"
        if txn is None:
            if txn_id in self._ended:
                ended_by = self._ended[txn_id][2]
                self._report("I8", f"{what} is of transaction {txn_id}, which {ended_by} ended")
            elif txn_id >= log_begins:
                self._report("I8", f"{what} is of transaction {txn_id}, which has no Begin here")
            return
        if txn.vchannel != envelope.vchannel:
            where = f"on {envelope.vchannel}, begun on {txn.vchannel}"
            self._report("I8", f"{what} is of transaction {txn_id} {where}")
        if envelope.type in (MessageType.COMMIT_TXN, MessageType.ROLLBACK_TXN):
            self._end(txn_id, txn, item)

    def _end(self, txn_id: int, txn: _Txn, item: LogEntry) -> None:
        del self.open[txn_id]
        if txn.passed_by is not None and txn.passed_tick < item.last_tick:
            self._misses(txn.passed_by, txn_id, txn.begin)
        self._ended[txn_id] = (item.last_tick, txn.begin, item.message_id)
        if len(self._ended) > _ENDED:
            self._ended.popitem(last=False)

    def _misses(self, entry: MessageID, txn_id: int, begin: MessageID) -> None:
        what = f"misses the Begin {begin} of transaction {txn_id}, which ends above it"
        self._report("I6", f"LastConfirmed of {entry} {what}")
