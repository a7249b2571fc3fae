"""One PChannel as its owner sees it. Layer: wal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from walplane.wal.ports import StaleTerm

if TYPE_CHECKING:
    from walplane.wal.wal import WAL


@dataclass(frozen=True)
class WALStatus:
    """What `walplane status` shows; ticks as in the log, bytes."""

    pchannel: str
    term: int
    open_number: int
    state: str
    watermark: int
    checkpoint_tick: int
    vchannels: int
    bytes_pending: int
    attempts: int
    last_error: str
    term_floor: int

    @classmethod
    def of(cls, wal: WAL, attempts: int, last_error: str) -> WALStatus:
        """Of `wal`, which was opened again `attempts` times, at last because of `last_error`."""
        failure = wal.stopped.result() if wal.stopped.done() else None
        return cls(
            pchannel=wal.pchannel,
            term=wal.term,
            open_number=wal.open_number,
            state=wal.state,
            watermark=wal.acks.watermark,
            checkpoint_tick=wal.recovery.checkpoint_tick,
            vchannels=len(wal.recovery.shards),
            bytes_pending=wal.appender.bytes_pending,
            attempts=attempts,
            last_error=last_error,
            term_floor=failure.term_floor if isinstance(failure, StaleTerm) else 0,
        )
