"""Growing pauses with jitter between attempts. Layer: coord."""

from __future__ import annotations

from walplane.runtime import Runtime


class Backoff:
    """Pauses that double from `first` to `most` seconds, each shortened by up to a half."""

    def __init__(self, runtime: Runtime, first: float, most: float) -> None:
        """Starts with `first`; randomness is the runtime's."""
        self._runtime = runtime
        self._first = first
        self._most = most
        self._next = first

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        pause = self._next
        self._next = min(pause * 2, self._most)
        return pause * (0.5 + self._runtime.random.random() / 2)

    def reset(self) -> None:
        """The attempt succeeded: the next failure starts anew."""
        self._next = self._first
