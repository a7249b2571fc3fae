"""A `Txn` for programs without an event loop, and doing one again. Layer: client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from walplane.client.blocking import Blocking
from walplane.client.results import AppendResult
from walplane.client.txn import Txn, TxnState
from walplane.client.txn_retry import Attempts
from walplane.message.builder import MutableMessage
from walplane.rpc.errors import WalError

_Value = TypeVar("_Value")


class SyncTxn(Blocking[Txn]):
    """A `Txn` for blocking code: commits when its block ends, rolls back when that raised."""

    @property
    def vchannel(self) -> str:
        """As `Txn.vchannel`."""
        return self._inner.vchannel

    @property
    def txn_id(self) -> int:
        """As `Txn.txn_id`."""
        return self._inner.txn_id

    @property
    def state(self) -> TxnState:
        """As `Txn.state`."""
        return self._inner.state

    @property
    def result(self) -> AppendResult | None:
        """As `Txn.result`."""
        return self._inner.result

    def append(self, message: MutableMessage) -> None:
        """As `Txn.append`."""
        self._wait(self._inner.append(message))

    def append_many(self, messages: Iterable[MutableMessage]) -> None:
        """As `Txn.append_many`; `messages` is iterated by the calling thread."""
        self._wait(self._inner.append_many(list(messages)))

    def flush(self) -> None:
        """As `Txn.flush`."""
        self._wait(self._inner.flush())

    def commit(self) -> AppendResult | None:
        """As `Txn.commit`."""
        result: AppendResult | None = self._wait(self._inner.commit())
        return result

    def rollback(self) -> None:
        """As `Txn.rollback`."""
        self._wait(self._inner.rollback())


class BeginSyncTxn(Protocol):
    """Makes the transaction of one attempt, with so many seconds for each of its answers."""

    def __call__(self, *, timeout: float) -> SyncTxn:
        """A new one."""
        ...


def run_txn(
    begin: BeginSyncTxn,
    fill: Callable[[SyncTxn], _Value],
    attempts: Attempts,
    pause: Callable[[float], None],
) -> _Value:
    """As `txn_retry.run_txn`, on the calling thread, which `pause` holds for so many seconds."""
    while True:
        try:
            with begin(timeout=attempts.left_s) as txn:
                value = fill(txn)
        except WalError as error:
            pause_s = attempts.again(error)
        else:
            return value
        pause(pause_s)
