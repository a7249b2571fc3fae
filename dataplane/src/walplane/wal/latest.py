"""Values by tick, of which the latest are remembered. Layer: wal.

Contract: pure; which ones are left depends on their keys alone, never on the order they came in.
Records of one log may lie in another order than their ticks: what a live table forgets and what
one forgets that was loaded from a snapshot in between must be the same.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from operator import itemgetter
from typing import Generic, TypeVar

T = TypeVar("T")

Key = tuple[int, int]
"""(tick, what tells two of one tick apart)."""

_KEY = itemgetter(0)


class Latest(Generic[T]):
    """The values of the `most` greatest keys."""

    def __init__(self, most: int) -> None:
        """Empty."""
        self._most = most
        self._items: list[tuple[Key, T]] = []

    def __len__(self) -> int:
        """How many there are, at most `most`."""
        return len(self._items)

    def __reversed__(self) -> Iterator[tuple[Key, T]]:
        """All of them with their keys, the latest first."""
        return reversed(self._items)

    def add(self, key: Key, value: T) -> T | None:
        """Takes it in; returns what is forgotten for it, which may be itself."""
        insort(self._items, (key, value), key=_KEY)
        return self._items.pop(0)[1] if len(self._items) > self._most else None

    def remove(self, key: Key) -> None:
        """Forgets it, if it is there."""
        place = bisect_left(self._items, key, key=_KEY)
        if place < len(self._items) and self._items[place][0] == key:
            del self._items[place]
