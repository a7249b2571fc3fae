"""Exclusive messages have their VChannel or PChannel to themselves (rules §6). Layer: wal.

Contract: every append holds the PChannel's and its VChannel's lock, shared unless the registry says
otherwise, from before its tick is allocated until it is settled. Appends to one VChannel go on in
the order in which they came. A free lock costs no suspension.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from walplane.message.registry import Scope
from walplane.message.txn import exclusive_scope
from walplane.rpc.errors import ErrorCode, WalError
from walplane.wal.interceptors.base import AppendOp, Forward
from walplane.wal.lock import RWLock
from walplane.wal.meter import LogMeter
from walplane.wal.ports import AppendResult

_KEPT_LOCKS = 1024
_RETRY_AFTER_MS = 100


class LockInterceptor:
    """The locks of one PChannel."""

    def __init__(self, meter: LogMeter, monotonic: Callable[[], float]) -> None:
        """All free; `meter` is told of waits, in the seconds of `monotonic`."""
        self._meter = meter
        self._monotonic = monotonic
        self._pchannel = RWLock()
        self._vchannels: dict[str, RWLock] = {}

    async def append(self, op: AppendOp, forward: Forward) -> AppendResult:
        """Forwards under the locks that the type asks for.

        Raises:
            WalError: RESOURCE_ACQUIRED when `op.deadline` passed before; nothing was written.
        """
        scope, vchannel = exclusive_scope(op.kind), op.vchannel
        whole, alone = scope is Scope.PCHANNEL, scope is Scope.VCHANNEL
        if not self._pchannel.try_acquire(exclusive=whole):
            await self._wait(self._pchannel, whole, op)
        try:
            if whole or not vchannel:
                return await forward(op)
            lock = self._vchannels.get(vchannel)
            if lock is None:
                lock = self._vchannels[vchannel] = RWLock()
            if not lock.try_acquire(exclusive=alone):
                await self._wait(lock, alone, op)
            try:
                return await forward(op)
            finally:
                lock.release(exclusive=alone)
                if len(self._vchannels) > _KEPT_LOCKS and lock.idle:
                    self._vchannels.pop(vchannel, None)  # those that nobody uses do not pile up
        finally:
            self._pchannel.release(exclusive=whole)

    async def _wait(self, lock: RWLock, exclusive: bool, op: AppendOp) -> None:
        self._meter.wait_begins(op, self._monotonic())
        try:
            async with asyncio.timeout_at(op.deadline):
                await lock.acquire(exclusive=exclusive)
        except TimeoutError:
            raise waited_too_long(
                op, "an exclusive one before it, or for those that it excludes"
            ) from None
        finally:
            self._meter.lock_wait_over(op, self._monotonic())


def waited_too_long(op: AppendOp, what_for: str) -> WalError:
    """The error of an append whose `deadline` passed before it could begin."""
    return WalError(
        ErrorCode.RESOURCE_ACQUIRED,
        f"an append to {op.vchannel or 'the PChannel'} waited too long for {what_for}: nothing is "
        "written",
        retry_after_ms=_RETRY_AFTER_MS,
    )
