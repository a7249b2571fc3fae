"""What users append under names that they share, so that instances race. Layer: testkit.

Contract: whoever opens a name is told what was written under it, and all who use it believe that:
what an older instance began and is not below that number is held to be refused, for ever.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from walplane.client import NamedProducer, StreamingClient
from walplane.message.builder import insert
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.history import Attempt, Outcome

if TYPE_CHECKING:
    from walplane.testkit.sim.user_txns import Begin
    from walplane.testkit.sim.workload import Work

_NAMES = ("a", "b")
_EXPECTED = frozenset(
    {
        ErrorCode.PRODUCER_FENCED,
        ErrorCode.INVALID_REQUEST_SEQ,
        ErrorCode.INVALID_ARGUMENT,
        ErrorCode.RESOURCE_ACQUIRED,
        ErrorCode.OUTCOME_UNKNOWN,
    }
)


class _Begun(NamedTuple):
    epoch: int
    number: int
    attempt: Attempt


class Names:
    """What became of all appends under names; shared by all users."""

    def __init__(self) -> None:
        """Nothing was appended."""
        self._begun: dict[tuple[str, str], list[_Begun]] = defaultdict(list)

    def opened(self, producer: NamedProducer) -> None:
        """What was not written before this open never will be."""
        left = []
        for begun in self._begun[producer.name, producer.vchannel]:
            if begun.epoch >= producer.epoch:
                left.append(begun)
            elif begun.number >= producer.next_number and begun.attempt.outcome is Outcome.UNKNOWN:
                begun.attempt.outcome = Outcome.REFUSED
        self._begun[producer.name, producer.vchannel] = left

    def begins(self, producer: NamedProducer, attempt: Attempt) -> None:
        """The next message of `producer` is about to be appended."""
        begun = _Begun(producer.epoch, producer.next_number, attempt)
        self._begun[producer.name, producer.vchannel].append(begun)


class UserNames:
    """The named producers of one user."""

    def __init__(
        self, work: Work, begin: Begin, draw: random.Random, spend: Callable[[], None]
    ) -> None:
        """None yet; `spend` is told of each message but the first of an instance."""
        self._spend = spend
        self._work = work
        self._begin = begin
        self._draw = draw

    async def run(self, client: StreamingClient, process: str, vchannel: str) -> None:
        """One instance: opens a name and appends a few messages, one after the other."""
        name = self._draw.choice(_NAMES)
        timeout = self._draw.choice([0.5, 5.0, 60.0])
        try:
            async with client.producer(name, vchannel, timeout=timeout) as producer:
                self._work.names.opened(producer)
                self._work.cluster.trace.count("name opened")
                for number in range(self._draw.randint(1, 6)):
                    if number:
                        self._spend()
                    await self._append(producer, f"{process} {name} {producer.epoch}")
        except WalError as error:
            self._work.cluster.trace.count(f"name ends with {error.code.name}")
            self._work.note_failure(error, f"producer {name} on {vchannel}", _EXPECTED)

    async def _append(self, producer: NamedProducer, label: str) -> None:
        attempt = self._begin(label, producer.vchannel)
        self._work.names.begins(producer, attempt)
        result = await producer.append(insert(producer.vchannel, attempt.payload))
        self._work.settle(attempt, result)
