"""Whose turn it is to be sent something: what bounds the memory of all readers of a node.

Contract: a reader holds entries, and responses made of them, only while it has a turn; one that
waits for something to be appended has none, and costs nothing but its task. Turns go to whoever
asked first. A reader that keeps a turn while others wait, because its client takes nothing, loses
its stream with a hint when to come back: it goes on from its token. One that takes what it is sent,
however slowly, keeps it: parts of transactions alone would not get it ahead. Layer: node.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import NamedTuple

from walplane.rpc.errors import ErrorCode, WalError

_RETRY_AFTER_MS = 1000


class ReadTurns:
    """At most `most` turns at a time; one kept for `patience_s` may be taken back."""

    def __init__(self, most: int, patience_s: float) -> None:
        """All are free."""
        self._most = most
        self._patience_s = patience_s
        self._held: dict[asyncio.Future[WalError], float] = {}
        self._waiting: OrderedDict[asyncio.Future[WalError], asyncio.Future[None]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None  # one for all who wait

    @property
    def held(self) -> int:
        """Turns that are taken now."""
        return len(self._held)

    def turn(self, lost: asyncio.Future[WalError]) -> _Turn:
        """One turn, waited for: an async context manager.

        Args:
            lost: the reader's own; done with the reason when it has to give the turn back. It ends
                its stream then.
        """
        return _Turn(self, lost)

    async def take(self, lost: asyncio.Future[WalError]) -> None:
        """Waits for a turn; cancelling it leaves none behind."""
        loop = asyncio.get_running_loop()
        if not self._waiting and len(self._held) < self._most:
            self._held[lost] = loop.time()
            return
        turn = self._waiting[lost] = loop.create_future()
        self._watch()
        try:
            await turn
        except BaseException:
            if self._waiting.pop(lost, None) is None:
                self.give(lost)  # it was its turn in the moment of the cancellation
            raise

    def taken(self, lost: asyncio.Future[WalError]) -> None:
        """Its client has taken something: its patience begins anew."""
        if lost in self._held:
            self._held.pop(lost)  # the order is that of the times
            self._held[lost] = asyncio.get_running_loop().time()

    def give(self, lost: asyncio.Future[WalError]) -> None:
        """Gives the turn to whoever asked first."""
        del self._held[lost]
        if self._waiting and len(self._held) < self._most:
            following, turn = self._waiting.popitem(last=False)
            self._held[following] = asyncio.get_running_loop().time()
            if not turn.done():  # else it was cancelled in this moment, and gives the turn back
                turn.set_result(None)
            self._watch()

    def _watch(self) -> None:
        """Looks again when the oldest turn was kept for too long, as long as somebody waits."""
        if self._timer is not None or not self._waiting:
            return
        oldest = next((since for lost, since in self._held.items() if not lost.done()), None)
        if oldest is not None:
            due = oldest + self._patience_s
            self._timer = asyncio.get_running_loop().call_at(due, self._take_back)

    def _take_back(self) -> None:
        """Takes back the turns that were kept too long while somebody waits."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        for lost, since in self._held.items() if self._waiting else ():
            if now < since + self._patience_s:
                break  # the rest was given later
            if not lost.done():
                lost.set_result(_too_slow(now - since))
        self._watch()


def _too_slow(seconds: float) -> WalError:
    return WalError(
        ErrorCode.RESOURCE_ACQUIRED,
        f"this read took nothing for {seconds:.0f} s while others wait: go on from your token when "
        "you can take more",
        retry_after_ms=_RETRY_AFTER_MS,
    )


class _Turn(NamedTuple):
    """A turn, as a context: taken for each batch, so it costs no generator."""

    turns: ReadTurns
    lost: asyncio.Future[WalError]

    async def __aenter__(self) -> None:
        await self.turns.take(self.lost)

    async def __aexit__(self, *_: object) -> None:
        self.turns.give(self.lost)
