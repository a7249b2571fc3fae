"""What readers see of the log they read: how far it is settled, and what of it is in memory.

Contract: the triple of `live_position` is of one moment, and all that couples writers and readers.
Layer: wal.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from walplane.backends.interface import RecordScanner, Start
from walplane.message.ids import MessageID, RecordID
from walplane.wal.meter import LogMeter
from walplane.wal.scan.buffer import Signal, WriteAheadBuffer


class LivePosition(NamedTuple):
    """Every message at or below `watermark` lies in a record at or below `record`.

    Every message above it lies at or after `last_confirmed`, None = anywhere, and was written by
    the open `open_number` or a later one.
    """

    watermark: int
    record: RecordID
    last_confirmed: MessageID | None
    open_number: int = 0


class LiveLog(Protocol):
    """What a scanner sees of the WAL it reads."""

    pchannel: str
    buffer: WriteAheadBuffer
    moved: Signal
    meter: LogMeter

    @property
    def backend_name(self) -> str:
        """The backend's name in MessageIDs."""
        ...

    def live_position(self) -> LivePosition:
        """How far the log is settled now."""
        ...

    def watermark(self) -> int:
        """That of `live_position`, asked for by each reader whenever it moved."""
        ...

    def spans(self, tick: int) -> bool:
        """Whether some transaction may begin at or below `tick` and end above it."""
        ...

    def last_appended(self) -> int:
        """The highest tick given to an append so far: the end of a read that does not follow."""
        ...

    async def open_scanner(self, start: Start) -> RecordScanner:
        """A scanner of the data topic."""
        ...
