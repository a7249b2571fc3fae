"""What users append under idempotency keys that they share: the first of all tries counts.

Contract: a key has one payload, whoever tries it and how often. What one try was refused with says
nothing of the others; all that are acknowledged are told the same place. Layer: testkit.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from walplane.client import StreamingClient
from walplane.client.results import AppendResult
from walplane.message.builder import insert
from walplane.rpc.errors import WalError
from walplane.testkit.history import Attempt, Outcome

if TYPE_CHECKING:
    from walplane.testkit.sim.workload import Work

_SHARE = 0.15  # of the plain appends
_KEYS = 12  # of each VChannel


class Keys:
    """What became of all keys; shared by all users."""

    def __init__(self) -> None:
        """Nothing was appended."""
        self._attempts: dict[tuple[str, str], Attempt] = {}

    def attempt(self, work: Work, vchannel: str, key: str) -> Attempt:
        """The one append that all tries of `key` are."""
        attempt = self._attempts.get((vchannel, key))
        if attempt is None:
            payload = f"key/{vchannel}/{key}".encode()
            attempt = work.history.begin(f"{key} of {vchannel}", vchannel, payload)
            self._attempts[vchannel, key] = attempt
        return attempt


class UserKeys:
    """The keyed appends of one user; what it draws, it draws for itself."""

    def __init__(self, work: Work, seed: int) -> None:
        """None yet."""
        self._work = work
        self._draw = random.Random(f"keys {seed}")  # noqa: S311 - reproducible, not secret

    def next(self) -> str:
        """The key to append under instead of without one; empty for none."""
        if self._draw.random() >= _SHARE:
            return ""
        return f"k{self._draw.randrange(_KEYS)}"

    async def run(self, client: StreamingClient, vchannel: str, key: str, timeout_s: float) -> None:
        """One try."""
        attempt = self._work.keys.attempt(self._work, vchannel, key)
        message = insert(vchannel, attempt.payload).with_key(key)
        self._work.cluster.trace.count("key tried")
        try:
            with self._work.timed(f"{attempt.payload!r}", timeout_s):
                result = await client.append(message, timeout=timeout_s)
        except WalError as error:
            self._work.note_failure(error, f"{attempt.payload!r}")
        else:
            self._told(attempt, result)

    def _told(self, attempt: Attempt, result: AppendResult) -> None:
        place = (result.message_id, result.time_tick)
        if attempt.outcome is Outcome.ACKNOWLEDGED:
            self._work.cluster.trace.count("key repeated")
            if place != (attempt.message_id, attempt.time_tick):
                self._work.unexpected.append(f"I13 {attempt} is told to be at {place} as well")
        else:
            self._work.settle(attempt, result)
