"""Puts transactions together on the reader's side, in bounded memory. Layer: wal.

Contract: pure; fed with the entries of one PChannel in tick order. A transaction comes out whole
with its Commit, or never: when a Rollback or an exclusive message ended it, or when its Begin was
not read. Nothing expires here (rules §5).
"""

from __future__ import annotations

from walplane.message.ids import MessageID
from walplane.message.registry import MessageType, Scope
from walplane.message.txn import exclusive_scope, is_part, is_whole
from walplane.message.txn_view import ImmutableTxnMessage, TxnBatch
from walplane.rpc.errors import ErrorCode, WalError
from walplane.wal.ports import LogEntry


class TxnAssembler:
    """The transactions that a reader has begun to read.

    Attributes:
        held_bytes: what they take now.
    """

    def __init__(self, most_bytes: int) -> None:
        """Holds `most_bytes` of open transactions at most."""
        self.held_bytes = 0
        self._most_bytes = most_bytes
        self._open: dict[int, tuple[str, list[LogEntry]]] = {}

    def clear(self) -> None:
        """Forgets everything: reading begins anew at a LastConfirmed."""
        self._open.clear()
        self.held_bytes = 0

    def take(self, item: LogEntry) -> ImmutableTxnMessage | None:
        """The next entry of a transaction; gives the transaction that is complete with it.

        Raises:
            WalError: RESOURCE_ACQUIRED when open transactions exceed the budget.
        """
        envelope = item.entry.envelope
        if is_part(envelope):
            return self._take_part(item)
        if is_whole(envelope):
            last = item.message_id._replace(message_index=envelope.count - 1)
            return _assembled(item.first_tick, [item], item, last)
        return None

    def pass_by(self, item: LogEntry) -> None:
        """The next entry, of no transaction: it ends those that it excludes."""
        if not self._open:
            return
        envelope = item.entry.envelope
        scope = exclusive_scope(envelope.type)
        for txn_id, (vchannel, _) in [] if scope is Scope.NONE else list(self._open.items()):
            if scope is Scope.PCHANNEL or vchannel == envelope.vchannel:
                self._drop(txn_id)

    def _take_part(self, item: LogEntry) -> ImmutableTxnMessage | None:
        envelope = item.entry.envelope
        if envelope.type == MessageType.BEGIN_TXN:
            self._open[item.first_tick] = (envelope.vchannel, [])
            return None
        txn_id = envelope.txn.txn_id
        if txn_id not in self._open:
            return None
        if envelope.type in (MessageType.COMMIT_TXN, MessageType.ROLLBACK_TXN):
            bodies = self._drop(txn_id)
            if envelope.type == MessageType.ROLLBACK_TXN or not bodies:
                return None
            return _assembled(txn_id, bodies, item, item.message_id)
        self._open[txn_id][1].append(item)
        self.held_bytes += item.held_bytes
        if self.held_bytes > self._most_bytes:
            raise WalError(
                ErrorCode.RESOURCE_ACQUIRED,
                f"{len(self._open)} open transactions, up to number {txn_id} on "
                f"{envelope.vchannel}, exceed the {self._most_bytes} bytes that a reader keeps for "
                "them: raise `ClientConfig.open_txn_bytes`, or commit smaller transactions",
            )
        return None

    def _drop(self, txn_id: int) -> list[LogEntry]:
        _, bodies = self._open.pop(txn_id)
        self.held_bytes -= sum(item.held_bytes for item in bodies)
        return bodies


def _assembled(
    txn_id: int, bodies: list[LogEntry], commit: LogEntry, message_id: MessageID
) -> ImmutableTxnMessage:
    token = commit.token()
    batches = [
        TxnBatch(item.entry, item.message_id, item.open_number, txn_id, token) for item in bodies
    ]
    return ImmutableTxnMessage(txn_id, message_id, batches)
