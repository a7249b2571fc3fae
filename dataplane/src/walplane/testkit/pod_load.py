"""Clients that append to a cluster of pods while a test hurts it, and the verdict at the end.

Contract: every append is recorded before it is sent; the outcome is what the caller was told. At
the end everything is read once more from the beginning, and the whole history is judged. Layer:
testkit; for tests only.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from walplane.client import StreamingClient
from walplane.message.builder import insert
from walplane.message.registry import MessageType
from walplane.rpc.errors import WalError
from walplane.testkit.history import DEFINITE, Delivered, History, Outcome, check

_CONNECT_S = 20.0
_DEADLINE_S = 30.0
_PAUSE_S = 0.005
_ERRORS_KEPT = 1000


class Gap(NamedTuple):
    """Time between two acknowledgements of one VChannel; `ended` in monotonic seconds."""

    seconds: float
    vchannel: str
    ended: float


class PodLoad:
    """Appends without pause, one at a time per VChannel.

    Attributes:
        history: everything that was appended and read.
        errors: what callers were told, other than an acknowledgement; the first of them.
        acknowledged_at: per VChannel, when each append was acknowledged (monotonic seconds).
    """

    def __init__(self, address: str) -> None:
        """Use `running`."""
        self.history = History()
        self.errors: list[WalError] = []
        self.acknowledged_at: dict[str, list[float]] = {}
        self._address = address
        self._stop = False
        self._progress = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def running(
        cls, address: str, shards: int, collection: str = "load"
    ) -> AsyncIterator[PodLoad]:
        """Appends to a new collection while the body runs; judged by `verdict` afterwards."""
        load = cls(address)
        async with StreamingClient.connect(address, timeout=_CONNECT_S) as wal:
            info = await wal.create_collection(collection, shards)
            async with asyncio.TaskGroup() as tasks:
                for vchannel in info.vchannels:
                    load.acknowledged_at[vchannel] = []
                    tasks.create_task(load._append(wal, vchannel))
                try:
                    yield load
                finally:
                    load._stop = True

    async def more(self, count: int, seconds: float = 60.0) -> None:
        """Returns once every VChannel has `count` more acknowledgements.

        Raises:
            TimeoutError: it takes longer.
        """
        wanted = {name: len(times) + count for name, times in self.acknowledged_at.items()}
        async with asyncio.timeout(seconds):
            while any(len(self.acknowledged_at[name]) < wanted[name] for name in wanted):
                self._progress.clear()
                await self._progress.wait()

    def longest_gap(self, since: float = 0.0) -> float:
        """The longest time between two acknowledgements of one VChannel, in seconds.

        Args:
            since: monotonic seconds; what was before does not count.
        """
        return max((gap.seconds for gap in self.gaps(since)), default=0.0)

    def gaps(self, since: float = 0.0) -> list[Gap]:
        """The longest gap of each VChannel after `since`, the longest first."""
        return sorted(
            (
                max(
                    Gap(after - max(before, since), vchannel, after)
                    for before, after in itertools.pairwise(times)
                    if after > since
                )
                for vchannel, times in self.acknowledged_at.items()
                if len(times) > 1 and times[-1] > since
            ),
            reverse=True,
        )

    @property
    def acknowledged(self) -> int:
        """Appends of all VChannels that were acknowledged."""
        return sum(len(times) for times in self.acknowledged_at.values())

    async def verdict(self) -> list[str]:
        """Reads everything, from the beginning to the present end, and judges the history."""
        async with StreamingClient.connect(self._address, timeout=_CONNECT_S) as wal:
            for vchannel in self.acknowledged_at:
                reading = self.history.reading("whole", vchannel, complete=True)
                async for batch in wal.reader(vchannel, follow=False).batches():
                    if batch.type is MessageType.INSERT:
                        reading.messages.extend(
                            Delivered(each.vchannel, each.payload, each.message_id, each.time_tick)
                            for each in batch
                        )
        return check(self.history)

    async def _append(self, wal: StreamingClient, vchannel: str) -> None:
        for number in itertools.count():
            if self._stop:
                return
            attempt = self.history.begin(vchannel, vchannel, f"{vchannel}/{number}".encode())
            try:
                message = insert(vchannel, attempt.payload)
                result = await wal.append(message, timeout=_DEADLINE_S)
            except WalError as error:
                if len(self.errors) < _ERRORS_KEPT:
                    self.errors.append(error.with_traceback(None))
                if error.code in DEFINITE:
                    attempt.outcome = Outcome.REFUSED
                await asyncio.sleep(_PAUSE_S)  # an error that comes at once must not stop the rest
                continue
            attempt.outcome = Outcome.ACKNOWLEDGED
            attempt.message_id, attempt.time_tick = result.message_id, result.time_tick
            self.acknowledged_at[vchannel].append(time.monotonic())
            self._progress.set()
            await asyncio.sleep(_PAUSE_S)
