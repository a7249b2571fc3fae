"""Appends under a key of the caller's: the first one counts. Layer: wal.

Contract: repeats that come while the first is in flight wait for it and get its result; when it
failed, the next of them goes ahead in its place. An append that meets no other does not suspend, so
that appends to one VChannel keep their order.
"""

from __future__ import annotations

import asyncio

from walplane.wal.interceptors.base import AppendOp, Forward
from walplane.wal.ports import AppendResult
from walplane.wal.recovery.keyed import Key, KeyedResults, key_of


class KeyedAppends:
    """What is in flight, before the results that are kept."""

    def __init__(self, results: KeyedResults) -> None:
        """Nothing is in flight; the WAL records in `results` what is written."""
        self._results = results
        self._in_flight: dict[Key, asyncio.Future[None]] = {}

    async def append(self, op: AppendOp, forward: Forward) -> AppendResult:
        """Forwards an entry that has no key, or a new one; answers a repeat.

        Raises:
            WalError: INVALID_ARGUMENT when the key was used for something else.
        """
        key = key_of(op.envelope)
        if key is None:
            return await forward(op)
        while (first := self._in_flight.get(key)) is not None:
            await asyncio.shield(first)
        found = self._results.find(key, op.entry)
        if found is not None:
            return found
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_flight[key] = over
        try:
            return await forward(op)
        finally:
            del self._in_flight[key]
            over.set_result(None)
