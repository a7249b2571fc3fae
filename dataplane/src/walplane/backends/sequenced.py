"""What backends share that number a topic's records 1, 2, 3, …: positions and the tail's bell.

Contract: pure but for `Bell`, which belongs to one event loop. Layer: backends.
"""

from __future__ import annotations

import asyncio

from walplane.backends.interface import Start, StartAt
from walplane.message.ids import RecordID
from walplane.rpc.errors import ErrorCode, WalError

FIRST = 1
"""Sequence number of a topic's first record ever."""


def sequence_of(topic: str, record_id: RecordID) -> int:
    """The sequence number in `record_id`.

    Raises:
        WalError: INVALID_ARGUMENT when the id is not one of this kind of backend.
    """
    if len(record_id) != 1 or record_id[0] < 0:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"{record_id} is no record id of topic {topic}: expected one number",
        )
    return record_id[0]


def first_to_read(topic: str, start: Start, earliest: int, end: int) -> int:
    """The sequence number of the first record of a scanner at `start`.

    Args:
        topic: its name, for errors.
        start: where the scanner begins.
        earliest: the logical truncation point.
        end: one above the last record.

    Raises:
        WalError: DATA_TRUNCATED when the topic does not hold the record that `start` names.
    """
    if start.at is StartAt.EARLIEST:
        return earliest
    if start.at is StartAt.LATEST:
        return end
    named = sequence_of(topic, start.record_id)
    if start.at is StartAt.FROM and earliest <= named < end:
        return named
    if start.at is StartAt.AFTER and earliest - 1 <= named < end:
        return named + 1
    if named < earliest:
        raise truncated(topic, named, earliest)
    raise WalError(
        ErrorCode.DATA_TRUNCATED,
        f"topic {topic} has no record {named}, its last one is {end - 1}: read from earliest",
    )


def truncated(topic: str, sequence: int, earliest: int) -> WalError:
    """The error of a read below the truncation point."""
    return WalError(
        ErrorCode.DATA_TRUNCATED,
        f"record {sequence} of topic {topic} was truncated, up to record {earliest}: read from "
        "earliest",
    )


def missing(topic: str) -> WalError:
    """The error of a call that names a topic nobody ensured."""
    return WalError(
        ErrorCode.CHANNEL_NOT_EXIST, f"there is no topic {topic}: create it with ensure_topic"
    )


def stale(topic: str, given: tuple[int, int], known: tuple[int, int]) -> WalError:
    """The error of an opener under a lower (term, open number) than the topic has seen."""
    return WalError(
        ErrorCode.CHANNEL_FENCED,
        f"topic {topic} was opened under term {known[0]} open {known[1]}, "
        f"above term {given[0]} open {given[1]}: take a new grant",
    )


def fenced(topic: str, term: int, open_number: int) -> WalError:
    """The error of an append by a writer that a later opener replaced."""
    return WalError(
        ErrorCode.CHANNEL_FENCED,
        f"the writer of topic {topic} under term {term} open {open_number} was fenced by a later "
        "opener: open again or give up",
    )


def oversized(topic: str, size: int, limit: int) -> WalError:
    """The error of a record above the backend's limit."""
    return WalError(
        ErrorCode.INVALID_ARGUMENT,
        f"a record of {size} bytes for topic {topic} is above the limit of {limit}: split it",
    )


def closed(topic: str) -> WalError:
    """The error of whatever is asked of a closed session."""
    return WalError(
        ErrorCode.ON_SHUTDOWN, f"the session of topic {topic} is closed: open a new one"
    )


def given_up(topic: str) -> WalError:
    """The error of an append that was in flight when its session closed."""
    return WalError(
        ErrorCode.OUTCOME_UNKNOWN,
        f"the session of topic {topic} closed with this append in flight: read back",
    )


class Bell:
    """Wakes everybody who waits for more of a topic."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self) -> None:
        """Returns at the next `ring`; cancelling it leaves no trace."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def ring(self) -> None:
        """Wakes those who wait now."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
