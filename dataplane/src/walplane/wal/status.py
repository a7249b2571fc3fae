"""One PChannel as its owner sees it. Layer: wal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from walplane.wal.ports import StaleTerm
from walplane.wal.recovery.state import RecoveryState

if TYPE_CHECKING:
    from walplane.wal.wal import WAL

QUARANTINED = "Quarantined"
SEGMENTS_WAIT = "SegmentsWait"
"""Conditions."""


@dataclass(frozen=True)
class WALStatus:
    """What `walplane status` shows; ticks as in the log, bytes.

    `condition` is one word for a `last_error` that keeps the checkpoint or the log's head where it
    is, though the log serves; empty when nothing does.
    """

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
    condition: str = ""

    @classmethod
    def of(cls, wal: WAL, attempts: int, last_error: str) -> WALStatus:
        """Of `wal`, which was opened again `attempts` times, at last because of `last_error`."""
        failure = wal.stopped.result() if wal.stopped.done() else None
        condition, trouble = _held_up_by(wal.recovery)
        frozen = condition == QUARANTINED and wal.state == "serving"
        return cls(
            pchannel=wal.pchannel,
            term=wal.term,
            open_number=wal.open_number,
            state=condition.lower() if frozen else wal.state,
            watermark=wal.acks.watermark,
            checkpoint_tick=wal.recovery.checkpoint_tick,
            vchannels=len(wal.recovery.shards),
            bytes_pending=wal.appender.bytes_pending,
            attempts=attempts,
            last_error=trouble or last_error,
            term_floor=failure.term_floor if isinstance(failure, StaleTerm) else 0,
            condition=condition,
        )


def _held_up_by(recovery: RecoveryState) -> tuple[str, str]:
    """What keeps checkpoint or truncation back: a condition and a sentence; or two empty texts."""
    poison, segments = recovery.poison, recovery.segments
    if frozen := poison.message if poison is not None else segments.failure:
        return QUARANTINED, frozen
    return (SEGMENTS_WAIT, segments.trouble) if segments.trouble else ("", "")
