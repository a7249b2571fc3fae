"""The live side of open transactions: who may append to one, and when it may end.

Contract: a body is taken only while its transaction is open and nobody ends it; Commit and Rollback
wait until no body is in flight, and only one of them is ever written. Everything here happens under
the append's locks, so an exclusive message never meets a body in flight. Layer: wal.
"""

from __future__ import annotations

import asyncio

from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.txn.table import TxnTable

_RETRY_AFTER_MS = 200
_SILENT = "its keepalive ran out: append more often, or ask for a longer one"


class _Session:
    __slots__ = ("ending", "expired", "idle", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        self.ending = False
        self.expired = False
        self.idle: asyncio.Future[None] | None = None


class TxnSessions:
    """Sessions of the transactions that `table` shows open; one whose append is in flight is kept.

    Args:
        table: what the log says.
        most: open transactions at once; a Begin above that is refused.
    """

    def __init__(self, table: TxnTable, most: int) -> None:
        """Nobody appends yet."""
        self._table = table
        self._most = most
        self._sessions: dict[int, _Session] = {}
        self._beginning = 0

    def enter(self, envelope: log_pb2.Envelope) -> None:
        """A Begin or a body is about to be written; `leave` follows, whatever comes of it.

        Raises:
            WalError: TRANSACTION_EXPIRED or INVALID_TRANSACTION_STATE when the transaction takes
                no more; RESOURCE_ACQUIRED when too many are open.
        """
        if envelope.type == MessageType.BEGIN_TXN:
            if len(self._table.open) + self._beginning >= self._most:
                raise WalError(
                    ErrorCode.RESOURCE_ACQUIRED,
                    f"{self._most} transactions are open: begin another when some have ended",
                    retry_after_ms=_RETRY_AFTER_MS,
                )
            self._beginning += 1
            return
        self._open(envelope).in_flight += 1

    def leave(self, envelope: log_pb2.Envelope) -> None:
        """What `enter` announced is settled, or will not be written."""
        if envelope.type == MessageType.BEGIN_TXN:
            self._beginning -= 1
            return
        txn_id = envelope.txn.txn_id
        session = self._sessions[txn_id]
        session.in_flight -= 1
        if not session.in_flight and session.idle is not None:
            if not session.idle.done():
                session.idle.set_result(None)
        self._forget(txn_id, session)

    async def begin_end(self, envelope: log_pb2.Envelope, *, expired: bool) -> None:
        """A Commit or Rollback is about to be written: returns when no body is in flight.

        From the call on no body is taken. `end_over` follows, whatever comes of it.

        Args:
            envelope: of the Commit or Rollback.
            expired: whether it is the Rollback of a transaction whose keepalive has run out.

        Raises:
            WalError: as `enter`; then nothing follows.
        """
        session = self._open(envelope)
        session.ending, session.expired = True, expired
        try:
            while session.in_flight:
                session.idle = asyncio.get_running_loop().create_future()
                await session.idle
        except BaseException:
            self.end_over(envelope)
            raise

    def end_over(self, envelope: log_pb2.Envelope) -> None:
        """What `begin_end` announced is settled, or will not be written."""
        txn_id = envelope.txn.txn_id
        session = self._sessions[txn_id]
        session.ending, session.idle = False, None
        self._forget(txn_id, session)

    def busy(self, txn_id: int) -> bool:
        """Whether a body or an end of it is in flight."""
        return txn_id in self._sessions

    def _open(self, envelope: log_pb2.Envelope) -> _Session:
        txn_id, vchannel = envelope.txn.txn_id, envelope.vchannel
        txn = self._table.open.get(txn_id)
        if txn is None:
            raise why_not_open(self._table, txn_id, vchannel)
        if txn.vchannel != vchannel:
            raise _state(f"transaction {txn_id} is one of {txn.vchannel}, not of {vchannel}")
        session = self._sessions.get(txn_id)
        if session is None:
            session = self._sessions[txn_id] = _Session()
        elif session.ending:
            if session.expired:
                raise _expired(f"transaction {txn_id} on {vchannel}", _SILENT)
            raise _state(f"transaction {txn_id} on {vchannel} is being ended: it takes no more")
        return session

    def _forget(self, txn_id: int, session: _Session) -> None:
        if not session.in_flight and not session.ending:
            self._sessions.pop(txn_id, None)


def why_not_open(table: TxnTable, txn_id: int, vchannel: str) -> WalError:
    """Why `txn_id`, which is not open, takes nothing."""
    ended = table.ended(txn_id)
    name = f"transaction {txn_id} on {vchannel}"
    if ended is None:
        if txn_id <= table.forgotten_tick:
            return WalError(ErrorCode.TRANSACTION_EXPIRED, f"{name} ended long ago: begin another")
        return _state(f"there is no {name}: begin one")
    if ended.end == log_pb2.TXN_END_EXPIRED:
        why = _SILENT
    elif ended.end == log_pb2.TXN_END_FORCED:
        why = f"the exclusive message at tick {ended.tick} ended it"
    else:
        how = "committed" if ended.end == log_pb2.TXN_END_COMMITTED else "rolled back"
        return _state(f"{name} is {how} already")
    return _expired(name, why)


def _expired(name: str, why: str) -> WalError:
    return WalError(
        ErrorCode.TRANSACTION_EXPIRED, f"{name} is rolled back, {why}; do the whole of it again"
    )


def _state(message: str) -> WalError:
    return WalError(ErrorCode.INVALID_TRANSACTION_STATE, message)
