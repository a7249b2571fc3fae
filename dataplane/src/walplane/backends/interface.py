"""The contract between walplane and what stores its topics. Layer: backends.

`Backend` is one per process and configuration; `BackendSession` is one WAL's own client. Closing
the session is how a WAL makes sure that nothing it sent can still arrive: after `close` returns or
its timeout has passed, the session sends nothing more by itself.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from walplane.message.ids import RecordID


class Record(NamedTuple):
    """One record as stored; `data` is what `append` was given, byte for byte."""

    record_id: RecordID
    data: bytes


class StartAt(enum.Enum):
    """Where a scanner begins."""

    EARLIEST = "earliest"  # the logical truncation point
    LATEST = "latest"  # records written after the scanner is open
    FROM = "from"  # exactly the named record first, or DATA_TRUNCATED
    AFTER = "after"  # the first record above the named one, or DATA_TRUNCATED


@dataclass(frozen=True)
class Start:
    """A start position; `record_id` belongs to FROM and AFTER only."""

    at: StartAt
    record_id: RecordID = ()


EARLIEST = Start(StartAt.EARLIEST)
LATEST = Start(StartAt.LATEST)


class TopicWriter(Protocol):
    """The exclusive writer of one topic, opened under (term, open number)."""

    def append(self, data: bytes) -> asyncio.Future[RecordID | None]:
        """Hands over one record; records are written in the order of the calls.

        The result is the record's id, durable by then; None means *written, id unknown* (read
        back to learn it). Any number of records may be in flight. Cancelling the future does not
        take the record back.

        Raises (through the future):
            WalError: INVALID_ARGUMENT when `data` exceeds `Backend.max_record_bytes` (nothing was
                written); CHANNEL_FENCED when a later opener took the topic (outcome unknown);
                OUTCOME_UNKNOWN when no answer came; UNRECOVERABLE when the storage failed for
                good (fsync error, disk full).
        """
        ...


class RecordScanner(Protocol):
    """Reads one topic in log order, then tails it."""

    async def read(self) -> list[Record]:
        """The next records, at least one; waits while there are none.

        Cancelling it loses no record: the next call returns what this one would have.

        Raises:
            WalError: DATA_TRUNCATED when what comes next was truncated; UNRECOVERABLE when a
                record is damaged (never skipped); INNER when the backend cannot be reached.
        """
        ...

    async def close(self) -> None:
        """Releases the scanner; idempotent."""
        ...


class BackendSession(Protocol):
    """One WAL's own client of a backend. Every call has a timeout of its own inside."""

    async def ensure_topic(self, topic: str) -> None:
        """Makes `topic` if it is not there, with the settings that keep its data; idempotent.

        Raises:
            WalError: UNRECOVERABLE when it is there but its settings would lose data.
        """
        ...

    async def open_writer(self, topic: str, term: int, open_number: int) -> TopicWriter:
        """Takes exclusivity of `topic`; every older writer is fenced when this returns.

        Raises:
            WalError: CHANNEL_FENCED when the backend itself knows a higher (term, open number);
                INNER when the backend cannot be reached. A failed or cancelled open leaves
                nothing behind.
        """
        ...

    async def open_scanner(self, topic: str, start: Start) -> RecordScanner:
        """A scanner at `start`; never fences anybody.

        Raises:
            WalError: DATA_TRUNCATED when `start` lies below the truncation point, or names what
                the topic does not hold, with the way out in words that every user has a start for:
                read from earliest; CHANNEL_NOT_EXIST when there is no such topic.
        """
        ...

    async def last_record_id(self, topic: str) -> RecordID | None:
        """Id of the last record at the time of the call; None when the topic is empty."""
        ...

    async def truncate(self, topic: str, record_id: RecordID) -> None:
        """Lets go of every record below `record_id`, which itself is kept. Not fenced."""
        ...

    async def close(self) -> None:
        """Drops writers, scanners and connection; pending appends end as OUTCOME_UNKNOWN."""
        ...


class Backend(Protocol):
    """A configured backend; sessions share what can be shared (a RocksDB, a thread)."""

    @property
    def name(self) -> str:
        """Name in MessageIDs: `memory`, `rocksdb`, `pulsar`."""
        ...

    @property
    def max_record_bytes(self) -> int:
        """A record larger than this is refused by `append`."""
        ...

    @property
    def ack_timeout_s(self) -> float:
        """An append that is not acknowledged within this time means a client not to be trusted."""
        ...

    async def session(self) -> BackendSession:
        """A new client of its own.

        Raises:
            WalError: INNER when the backend cannot be reached in time.
        """
        ...

    async def close(self) -> None:
        """Closes every session and what they share; idempotent."""
        ...
