"""Whose turn it is to offer messages: calls go in the order in which they began. Layer: client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType


class Turns:
    """One line per VChannel; a call that stands in several goes when it is first in all.

    Attributes:
        last: by VChannel, when the last in its line is over; no entry where nobody stands.
    """

    def __init__(self) -> None:
        """Nobody stands in line."""
        self.last: dict[str, asyncio.Future[None]] = {}

    def take(self, vchannels: Iterable[str]) -> Turn:
        """A place behind every call that stands in line for one of `vchannels` now."""
        return Turn(self, vchannels)


class Turn:
    """One call's place; a context manager, so that whoever is behind never waits in vain."""

    def __init__(self, turns: Turns, vchannels: Iterable[str]) -> None:
        """Use `Turns.take`."""
        self._turns = turns
        self._vchannels = tuple(vchannels)
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        last = turns.last
        self._ahead = {last[vchannel] for vchannel in self._vchannels if vchannel in last}
        last.update(dict.fromkeys(self._vchannels, self._over))

    def __enter__(self) -> Turn:
        """The turn itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the turn."""
        self.end()

    async def come(self) -> None:
        """Returns when it is this call's turn; cancelling it disturbs nobody."""
        if self._ahead:
            await asyncio.wait(self._ahead)

    def end(self) -> None:
        """Lets the next one go, once those ahead went; idempotent."""
        if self._over.done():
            return
        waiting = [ahead for ahead in self._ahead if not ahead.done()]
        if waiting:  # given up before its turn: whoever is behind still waits for those ahead
            self._ahead = set(waiting)
            waiting[0].add_done_callback(lambda _: self.end())
            return
        self._over.set_result(None)
        for vchannel in self._vchannels:
            if self._turns.last.get(vchannel) is self._over:
                del self._turns.last[vchannel]
