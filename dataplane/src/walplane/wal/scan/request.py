"""What a reader asks for and what it gets. Layer: wal."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from walplane.message.ids import MessageID, ResumeToken
from walplane.wal.ports import LogEntry


class StartKind(enum.Enum):
    """Where a read begins; the values are the numbers of `StartKind` in streaming.proto."""

    EARLIEST = 0
    LATEST = 1
    TOKEN = 2
    FROM_ID = 3
    AFTER_ID = 4


@dataclass(frozen=True)
class ScanStart:
    """A start; `token` belongs to TOKEN, `message_id` to FROM_ID and AFTER_ID."""

    kind: StartKind
    token: ResumeToken | None = None
    message_id: MessageID | None = None


@dataclass(frozen=True)
class ScanRequest:
    """A read of one PChannel.

    Attributes:
        start: where it begins. Entries come whole: a reader that starts inside one drops the
            messages it has.
        vchannel: only entries of this VChannel; empty for all.
        follow: False ends the read at what was appended when it began.
    """

    start: ScanStart
    vchannel: str = ""
    follow: bool = True


@dataclass(frozen=True, slots=True)
class ScanBatch:
    """Entries in tick order, and the tick at or below which none will follow."""

    entries: Sequence[LogEntry]
    watermark: int
    end: bool = False
