"""Does a transaction again, as a whole, when somebody else ended it. Layer: client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from walplane.client.txn import Txn
from walplane.rpc.errors import ErrorCode, WalError

_Value = TypeVar("_Value")


class BeginTxn(Protocol):
    """Makes the transaction of one attempt, with so many seconds for each of its answers."""

    def __call__(self, *, timeout: float) -> Txn:
        """A new one."""
        ...


async def run_txn(
    begin: BeginTxn,
    fill: Callable[[Txn], Awaitable[_Value]],
    seconds: float,
    backoff_s: tuple[float, float],
) -> _Value:
    """Runs `fill` in a transaction that `begin` makes for the seconds left, until it commits.

    Only TRANSACTION_EXPIRED says for sure that nothing of an attempt is visible, or will be: after
    anything else the caller has to decide.

    Raises:
        WalError: TRANSACTION_EXPIRED when another attempt would come too late; all else at once.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    delay, most = backoff_s
    while True:
        try:
            async with begin(timeout=deadline - loop.time()) as txn:
                value = await fill(txn)
        except WalError as error:
            expired = error.code is ErrorCode.TRANSACTION_EXPIRED
            if not expired or loop.time() + delay >= deadline:
                raise
        else:
            return value
        await asyncio.sleep(delay)
        delay = min(delay * 2, most)
