"""The write-ahead buffer: confirmed entries in memory, in tick order, for tailing readers.

Contract: holds every confirmed entry above `floor`; the oldest leave when the budget, of bodies and
what comes with each, is exceeded, and `floor` rises with them. Readers keep their own place and are
never waited for. Layer: wal.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence

from walplane.wal.ports import LogEntry

_KEPT_SHARE = 8  # entries that left are let go when they hold an eighth of what is here


class Signal:
    """Wakes whoever waits; costs nothing while nobody does."""

    def __init__(self, wider: Signal | None = None) -> None:
        """Nobody waits; `wider` is notified with this one."""
        self._wider = wider
        self._waiting: dict[int, asyncio.Future[None]] = {}  # by their ids: futures hash slowly

    @property
    def watched(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    def notify(self) -> None:
        """Wakes all who wait now."""
        if self._wider is not None:
            self._wider.notify()
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for one in waiting.values():
                if not one.done():
                    one.set_result(None)

    async def wait(self) -> None:
        """Returns at the next `notify`; cancelling it disturbs nobody else."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[id(mine)] = mine
        try:
            await mine
        finally:
            self._waiting.pop(id(mine), None)  # there only if it was cancelled


class WriteAheadMemory:
    """What the buffers of all PChannels of a node hold together.

    Attributes:
        used: bytes.
    """

    def __init__(self, max_bytes: int) -> None:
        """Above `max_bytes` the buffer that holds most gives up its oldest entries."""
        self.used = 0
        self._max_bytes = max_bytes
        self._buffers: set[WriteAheadBuffer] = set()

    def join(self, buffer: WriteAheadBuffer) -> None:
        """An empty buffer counts from now on."""
        self._buffers.add(buffer)

    def leave(self, buffer: WriteAheadBuffer) -> None:
        """It counts no more; idempotent."""
        if buffer in self._buffers:
            self._buffers.discard(buffer)
            self.used -= buffer.bytes

    def grown(self) -> None:
        """Something was added; makes room when it was too much."""
        while self.used > self._max_bytes:
            if not max(self._buffers, key=lambda buffer: buffer.bytes).shed():
                return  # one entry in each


class WriteAheadBuffer:
    """Entries above `floor`, addressed by a place that only grows.

    Attributes:
        floor: every confirmed entry above this tick is here.
    """

    def __init__(self, floor: int, max_bytes: int, memory: WriteAheadMemory | None = None) -> None:
        """Empty; nothing above `floor` is confirmed yet. `memory` is shared with others."""
        self.floor = floor
        self._memory = memory or WriteAheadMemory(max_bytes)
        self._memory.join(self)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: list[LogEntry] = []
        self._ticks: list[int] = []
        self._dropped_bytes = 0
        self._dropped = 0  # entries at the head of the lists that left already
        self._base = 0  # place of the first element of the lists

    @property
    def bytes(self) -> int:
        """Of the entries that are here."""
        return self._bytes

    @property
    def last_tick(self) -> int:
        """The highest tick of an entry that was ever here; at first the floor."""
        return self._ticks[-1] if self._ticks else self.floor

    def add(self, log_entry: LogEntry) -> None:
        """Takes the next entry in tick order."""
        self._entries.append(log_entry)
        self._ticks.append(log_entry.last_tick)
        self._count(log_entry.held_bytes)
        while self._bytes > self._max_bytes and self.shed():
            pass
        self._memory.grown()

    def shed(self) -> bool:
        """Gives up the oldest entry; False when it is the only one."""
        if self._dropped >= len(self._entries) - 1:
            return False
        oldest = self._entries[self._dropped]
        self._count(-oldest.held_bytes)
        self._dropped_bytes += oldest.held_bytes
        self.floor = oldest.last_tick
        self._dropped += 1
        if self._dropped_bytes * _KEPT_SHARE > self._bytes:
            self._compact()
        return True

    def close(self) -> None:
        """Nothing is read from it any more."""
        self._memory.leave(self)
        self._memory = WriteAheadMemory(self._max_bytes)  # an add that comes late harms nobody

    def place_after(self, tick: int) -> int | None:
        """Where the entries above `tick` begin; None when some of them are here no more."""
        if tick < self.floor:
            return None
        return self._base + bisect_right(self._ticks, tick, lo=self._dropped)

    def more_at(self, place: int) -> bool:
        """Whether something came behind `place`, or it was overtaken."""
        return place - self._base != len(self._entries)

    def read(self, place: int, max_bytes: int) -> tuple[Sequence[LogEntry], int] | None:
        """Entries from `place` on and the place after them; None when they are here no more."""
        index = place - self._base
        if index < self._dropped:
            return None
        end, size = index, 0
        while end < len(self._entries) and (size == 0 or size < max_bytes):
            size += self._entries[end].held_bytes
            end += 1
        return self._entries[index:end], self._base + end

    def _count(self, size: int) -> None:
        self._bytes += size
        self._memory.used += size

    def _compact(self) -> None:
        del self._entries[: self._dropped]
        del self._ticks[: self._dropped]
        self._base += self._dropped
        self._dropped = self._dropped_bytes = 0
