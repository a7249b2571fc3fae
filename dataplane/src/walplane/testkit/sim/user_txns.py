"""What users do beside plain appends: transactions and exclusive appends. Layer: testkit.

Contract: what a transaction's program was told is what its appends get as outcome. One that was
never committed is held to be refused: nobody may ever see a part of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from walplane.client import StreamingClient, Txn
from walplane.client.txn import TxnState
from walplane.message.builder import MutableMessage, insert
from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2
from walplane.testkit.history import Attempt, Outcome, TxnAttempt

if TYPE_CHECKING:
    from walplane.testkit.sim.workload import Work

Begin = Callable[[str, str], Attempt]
"""Records an append: (producer, VChannel)."""


class UserTxns:
    """The transactions of one user."""

    def __init__(self, work: Work, begin: Begin, draw: random.Random) -> None:
        """None yet."""
        self._note_failure = work.note_failure
        self._count = work.cluster.trace.count
        self._begin = begin
        self._txns = work.history.txns
        self._draw = draw

    async def run(self, client: StreamingClient, producer: str, vchannel: str) -> None:
        """One transaction: committed, rolled back, or forgotten by its program."""
        attempt = TxnAttempt(vchannel)
        self._txns.append(attempt)
        keepalive, timeout = (
            self._draw.choice([0.5, 5.0, 60.0]),
            self._draw.choice([0.5, 5.0, 60.0]),
        )
        end = self._draw.choices(["commit", "roll back", "forget"], [8, 1, 1])[0]
        txn = client.txn(vchannel, keepalive=keepalive, timeout=timeout)
        name = f"{producer} txn {len(self._txns)}"
        self._count(f"txn to {end}")
        try:
            await self._fill(txn, attempt, name)
            if end == "commit":
                result = await txn.commit()
                if result is not None:
                    attempt.settle(Outcome.ACKNOWLEDGED, result.time_tick)
                return
            if end == "roll back":
                await txn.rollback()
        except WalError as error:
            self._failed(txn, attempt, error)
            return
        attempt.settle(Outcome.REFUSED)

    async def _fill(self, txn: Txn, attempt: TxnAttempt, name: str) -> None:
        for number in range(self._draw.randint(1, 4)):
            one = self._begin(name, attempt.vchannel)
            attempt.attempts.append(one)
            await txn.append(insert(attempt.vchannel, one.payload))
            if number == 0 and self._draw.random() < 0.6:
                await txn.flush()  # else it is kept back for one entry
            if self._draw.random() < 0.4:
                await asyncio.sleep(self._draw.expovariate(1 / 0.1))

    def _failed(self, txn: Txn, attempt: TxnAttempt, error: WalError) -> None:
        if txn.state is not TxnState.UNKNOWN:
            attempt.settle(Outcome.REFUSED)  # its Commit was never sent, or was refused
        self._count(f"txn ends with {error.code.name}")
        if error.code is not ErrorCode.TRANSACTION_EXPIRED:
            self._note_failure(error, f"a transaction on {attempt.vchannel}")


def manual_flush(vchannel: str) -> MutableMessage:
    """An exclusive message: it ends every open transaction of its VChannel."""
    return MutableMessage(MessageType.MANUAL_FLUSH, vchannel, headers_pb2.ManualFlushHeader())
