"""A repeated batch of a producer gets the first result and is not written again. Layer: wal."""

from __future__ import annotations

import asyncio

from walplane.rpc.errors import ErrorCode, WalError
from walplane.wal.interceptors.base import AppendOp, Forward
from walplane.wal.ports import AppendResult
from walplane.wal.recovery.windows import ProducerKey, ProducerWindows, different_payload

_InFlight = dict[int, tuple[int, asyncio.Future[AppendResult]]]


class IdempotencyInterceptor:
    """Checks batch numbers against the windows and the batches in flight (architecture §6)."""

    def __init__(self, windows: ProducerWindows) -> None:
        """Reads `windows`; the WAL records results there as entries are written."""
        self._windows = windows
        self._in_flight: dict[ProducerKey, _InFlight] = {}

    async def append(self, op: AppendOp, forward: Forward) -> AppendResult:
        """Forwards a new batch; answers a repeat with the first result.

        Raises:
            WalError: INVALID_REQUEST_SEQ for a gap, OUTCOME_UNKNOWN for a number nobody can
                answer for, INVALID_ARGUMENT for a repeat with another payload.
        """
        envelope = op.entry.envelope
        if not envelope.HasField("producer"):
            return await forward(op)
        key = (envelope.producer.producer_id, envelope.vchannel)
        number, crc = envelope.producer.number, op.entry.body_crc32c
        flying = self._in_flight.get(key, {})
        if number in flying:
            first_crc, first = flying[number]
            if first_crc != crc:
                raise different_payload(key, number)
            return await asyncio.shield(first)
        stored = None if number - 1 in flying else self._windows.find(key, number, crc)
        if stored is not None:
            return stored
        expected = max(flying, default=self._windows.expected(key) - 1) + 1
        if number != expected:
            raise WalError(
                ErrorCode.INVALID_REQUEST_SEQ,
                f"batch {number} of producer {key[0].hex()} on {key[1]} came when {expected} was "
                f"due: send {expected} first",
            )
        return await self._first(key, number, crc, op, forward)

    async def _first(
        self, key: ProducerKey, number: int, crc: int, op: AppendOp, forward: Forward
    ) -> AppendResult:
        flying = self._in_flight.setdefault(key, {})
        done: asyncio.Future[AppendResult] = asyncio.get_running_loop().create_future()
        flying[number] = (crc, done)
        try:
            result = await forward(op)
        except BaseException as error:
            stopped = WalError(ErrorCode.ON_SHUTDOWN, f"{key[1]} is being closed: try again")
            done.set_exception(error if isinstance(error, Exception) else stopped)
            done.exception()  # repeats see it; nobody must
            raise
        else:
            done.set_result(result)
            return result
        finally:
            del flying[number]
            if not flying:
                self._in_flight.pop(key, None)
