"""A repeat gets the first result and is not written again. Layer: wal.

What repeats is a batch, by its producer's number, or an append under a key of the caller's.
Inside a transaction the key includes the transaction: its batches are numbered for themselves, its
windows go with it, and its Commit's result stays.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.interceptors.base import AppendOp, Forward
from walplane.wal.interceptors.keyed import KeyedAppends
from walplane.wal.interceptors.named import ProducerOpens
from walplane.wal.ports import AppendResult
from walplane.wal.recovery.state import RecoveryState
from walplane.wal.recovery.windows import (
    ProducerKey,
    different_payload,
    number_after,
    producer_key_of,
    title,
)
from walplane.wal.txn.sessions import why_not_open

_FlyingKey = tuple[ProducerKey, int]
"""Whose batch, and of which transaction, or under which epoch of a named producer."""


class _Flying(NamedTuple):
    crc: int
    done: asyncio.Future[AppendResult]
    next_number: int


_InFlight = dict[int, _Flying]
"""By number, in their order."""

_ANSWERED = {
    MessageType.COMMIT_TXN: {log_pb2.TXN_END_COMMITTED},
    MessageType.ROLLBACK_TXN: {log_pb2.TXN_END_ROLLED_BACK, log_pb2.TXN_END_EXPIRED},
}


class IdempotencyInterceptor:
    """Checks batch numbers against the windows and the batches in flight (rules §13)."""

    def __init__(self, recovery: RecoveryState, opens: ProducerOpens) -> None:
        """Reads what `recovery` knows; the WAL records results there as entries are written."""
        self._opens = opens
        self._keyed = KeyedAppends(recovery.keyed)
        self._windows_of = recovery.windows_of
        self._txns = recovery.txns
        self._in_flight: dict[_FlyingKey, _InFlight] = {}
        self._ends: dict[tuple[int, int], asyncio.Future[AppendResult]] = {}

    async def append(self, op: AppendOp, forward: Forward) -> AppendResult:
        """Forwards a new batch; answers a repeat with the first result.

        Raises:
            WalError: PRODUCER_FENCED for an older instance; INVALID_REQUEST_SEQ for a gap,
                OUTCOME_UNKNOWN for a number nobody can answer for, INVALID_ARGUMENT for a repeat
                with another payload; TRANSACTION_EXPIRED or INVALID_TRANSACTION_STATE for a
                transaction that ended.
        """
        envelope, txn_id = op.envelope, op.txn_id
        txn = self._txns.open.get(txn_id) if txn_id else None
        if txn_id:
            if txn is None:
                return self._answer_ended(envelope)
            ending = self._ends.get((txn_id, envelope.type))
            if ending is not None:  # whoever asks: a transaction has one Commit
                return await asyncio.shield(ending)
        if not envelope.HasField("producer"):
            return await self._keyed.append(op, forward)
        producer, crc = envelope.producer, op.entry.body_crc32c
        if producer.name:
            if producer.opener:
                return await forward(op)
            self._opens.check(envelope)
        key, number, since = producer_key_of(envelope), producer.number, producer.since_tick
        windows = self._windows_of(envelope) if txn is None else txn.windows
        flying_key = (key, txn_id or producer.epoch)
        flying = self._in_flight.get(flying_key, {})
        first = flying.get(number)
        if first is not None:
            if first.crc != crc:
                raise different_payload(key, number)
            return await asyncio.shield(first.done)
        last = next(reversed(flying.values())) if flying else None
        follows = last is not None and last.next_number == number
        stored = None if follows else windows.find(key, number, crc, since)
        if stored is not None:
            return stored
        expected = windows.expected(key) if last is None else last.next_number
        if number != expected:
            raise WalError(
                ErrorCode.INVALID_REQUEST_SEQ,
                f"batch {number} of {title(key)} came when {expected} was due: send {expected} "
                "first",
            )
        op.before = None if last is None else last.done
        return await self._first(flying_key, number, op, forward)

    def _answer_ended(self, envelope: log_pb2.Envelope) -> AppendResult:
        """What a Commit or Rollback that came again gets; a body that comes late is refused."""
        kind, txn_id = MessageType(envelope.type), envelope.txn.txn_id
        ended = self._txns.ended(txn_id)
        if ended is None and kind is MessageType.COMMIT_TXN and txn_id <= self._txns.forgotten_tick:
            raise WalError(
                ErrorCode.OUTCOME_UNKNOWN,
                f"transaction {txn_id} on {envelope.vchannel} ended so long ago that nobody knows "
                "how: read the channel to find out",
            )
        if ended is not None and ended.result and ended.end in _ANSWERED.get(kind, ()):
            return ended.result
        raise why_not_open(self._txns, txn_id, envelope.vchannel)

    async def _first(
        self, key: _FlyingKey, number: int, op: AppendOp, forward: Forward
    ) -> AppendResult:
        flying = self._in_flight.setdefault(key, {})
        done: asyncio.Future[AppendResult] = asyncio.get_running_loop().create_future()
        envelope = op.envelope
        flying[number] = _Flying(op.entry.body_crc32c, done, number_after(envelope))
        txn_id, kind = op.txn_id, op.kind
        if txn_id and kind in _ANSWERED:
            self._ends[txn_id, kind] = done
        try:
            result = await forward(op)
        except BaseException as error:
            stopped = WalError(ErrorCode.ON_SHUTDOWN, f"{op.vchannel} is being closed: try again")
            done.set_exception(error if isinstance(error, Exception) else stopped)
            done.exception()  # repeats see it; nobody must
            raise
        else:
            done.set_result(result)
            return result
        finally:
            del flying[number]
            self._ends.pop((txn_id, kind), None)
            if not flying:
                self._in_flight.pop(key, None)
