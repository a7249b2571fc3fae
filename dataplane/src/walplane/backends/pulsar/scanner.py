"""Reads one topic in log order, then tails it. Layer: backends.

Every record must be the successor of the one before: a repeat is dropped, a gap is explained by the
topic's truncation point or refused. That matters because a reader whose position was trimmed
silently goes on at the first survivor.
"""

from __future__ import annotations

import asyncio
from typing import Any

from walplane.backends.interface import Record
from walplane.backends.pulsar.client import PulsarClient
from walplane.backends.pulsar.pump import Pump
from walplane.backends.pulsar.topics import Position, Topics
from walplane.rpc.errors import ErrorCode, WalError

_READ_BYTES = 4 << 20
"""What one `read` gives, at most; a single record may be larger. A node counts with it."""


class PulsarScanner:
    """One reader of one topic."""

    def __init__(
        self,
        client: PulsarClient,
        topics: Topics,
        topic: str,
        reader: Any,  # noqa: ANN401 - no types
        after: Position,
        expected: Position | None,
    ) -> None:
        """Starts to read at once.

        Args:
            client: made the reader.
            topics: explains gaps.
            topic: what is read.
            reader: stands at or before the first record above `after`; closed by `close`.
            after: the first record returned is the one that follows this position.
            expected: when given, the first record returned must be this one.
        """
        self._client = client
        self._reader = reader
        self._topics = topics
        self._topic = topic
        self._last = after
        self._expected = expected
        self._pump = Pump(topic, reader)
        self._closing: asyncio.Task[None] | None = None

    async def read(self) -> list[Record]:
        """See `RecordScanner.read`."""
        while True:
            await self._pump.wait()
            if self.closed:
                raise WalError(ErrorCode.ON_SHUTDOWN, f"the scanner of {self._topic} is closed")
            records = self._pump.peek(_READ_BYTES)
            if not records and self._pump.error is not None:
                raise self._pump.error
            run, taken = await self._judge(records)
            self._pump.drop(taken)  # nothing is awaited from here: a cancellation loses no record
            if run:
                last = run[-1].record_id
                self._last, self._expected = (last[0], last[1]), None
                return run

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing is not None

    async def close(self) -> None:
        """See `RecordScanner.close`; cancelling the call does not take it back."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name=f"close-{self._topic}")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await asyncio.gather(self._pump.close(), self._client.drop(self._reader))

    async def _judge(self, records: list[Record]) -> tuple[list[Record], int]:
        """The records to return, and how many of `records` that settles.

        A change of ledger is judged at the start of a run only, so that `read` returns what it
        has before it asks the admin service.
        """
        run: list[Record] = []
        ledger, entry = self._last
        for taken, record in enumerate(records):
            here = (record.record_id[0], record.record_id[1])
            if here <= (ledger, entry):
                continue  # sent again after a reconnect, or below the start
            if here != (ledger, entry + 1):
                if run:
                    return run, taken
                await self._explain(here)
            if not run and self._expected not in (None, here):
                raise self._truncated()
            run.append(record)
            ledger, entry = here
        return run, len(records)

    async def _explain(self, here: Position) -> None:
        """Returns when nothing is missing between the last record and `here`."""
        state, floor = await self._topics.floor(self._topic)
        # a topic without records moves to another ledger when it is unloaded, its floor with it
        moved = self._last[1] < 0 and floor == (here[0], -1)
        begins = floor == self._last and state.begins(floor, here)
        if state.follows(self._last, here) or begins or moved:
            return
        if floor > self._last:
            raise self._truncated()
        raise WalError(
            ErrorCode.UNRECOVERABLE,
            f"topic {self._topic} lacks what lies between {_text(self._last)} and {_text(here)}, "
            "though nobody truncated it",
        )

    def _truncated(self) -> WalError:
        return WalError(
            ErrorCode.DATA_TRUNCATED,
            f"topic {self._topic} was truncated above {_text(self._last)}: read from earliest",
        )


def _text(position: Position) -> str:
    return f"{position[0]}:{position[1]}"
