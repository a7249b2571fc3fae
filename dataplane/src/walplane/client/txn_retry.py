"""Does a transaction again, as a whole, when somebody else ended it. Layer: client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from walplane.client.txn import Txn
from walplane.rpc.errors import ErrorCode, WalError

_Value = TypeVar("_Value")

_LEAST_S = 0.001


class BeginTxn(Protocol):
    """Makes the transaction of one attempt, with so many seconds for each of its answers."""

    def __call__(self, *, timeout: float) -> Txn:
        """A new one."""
        ...


class Attempts:
    """Whether a transaction is begun again, and when.

    Only TRANSACTION_EXPIRED says for sure that nothing of an attempt is visible, or will be: after
    anything else the caller has to decide.
    """

    def __init__(
        self, seconds: float, backoff_s: tuple[float, float], now: Callable[[], float]
    ) -> None:
        """All attempts together have `seconds` by the clock `now`, from here on."""
        self._now = now
        self._deadline = now() + seconds
        self._delay, self._most = backoff_s

    @property
    def left_s(self) -> float:
        """Seconds that are left; hardly any for who comes too late, and is to be told so."""
        return max(self._deadline - self._now(), _LEAST_S)

    def again(self, error: WalError) -> float:
        """Seconds to pause before the attempt that follows the one that failed with `error`.

        Raises:
            WalError: `error`, when there is none, or it would come too late.
        """
        expired = error.code is ErrorCode.TRANSACTION_EXPIRED
        if not expired or self._delay >= self.left_s:
            raise error
        delay, self._delay = self._delay, min(self._delay * 2, self._most)
        return delay


async def run_txn(
    begin: BeginTxn, fill: Callable[[Txn], Awaitable[_Value]], attempts: Attempts
) -> _Value:
    """Runs `fill` in a transaction that `begin` makes for the seconds left, until it commits.

    Raises:
        WalError: TRANSACTION_EXPIRED when another attempt would come too late; all else at once.
    """
    while True:
        try:
            async with begin(timeout=attempts.left_s) as txn:
                value = await fill(txn)
        except WalError as error:
            pause_s = attempts.again(error)
        else:
            return value
        await asyncio.sleep(pause_s)
