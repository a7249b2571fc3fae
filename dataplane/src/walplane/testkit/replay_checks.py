"""I10: replay from a checkpoint gives what replay from the beginning gives, once or twice.

Contract: runs the product's own components over a log as a second implementation reads it, from the
last checkpoint and from the earliest record, and compares what they would save. Layer: testkit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from walplane.backends.interface import Record
from walplane.rpc.v1 import log_pb2
from walplane.testkit.log_checks import snapshots
from walplane.testkit.log_view import LogView
from walplane.wal.config import WALConfig
from walplane.wal.metalog import MetaState
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.segments.table import SegmentTable
from walplane.wal.recovery.state import RecoveryState


def check_replay(
    log: LogView, topic: str, records: Sequence[Record], config: WALConfig
) -> Iterator[str]:
    """I10 of the last snapshot that the meta topic holds, if it holds one."""
    found = list(snapshots(topic, records))
    if not found:
        return
    whole, once, twice = (RecoveryState(config) for _ in range(3))
    once.load(MetaState(found[-1]))
    sealed = log.sealed()
    behind = [
        entry
        for entry in sealed
        if once.checkpoint_id is None or entry.message_id >= once.checkpoint_id
    ]
    _observe(whole, sealed)
    _observe(once, behind)
    replayed = _saved(once)
    del replayed[SegmentTable.component]  # its flusher's, which reads for itself
    # As after a crash between a snapshot and its checkpoint: all of it is there already.
    twice.load(MetaState({**replayed, "checkpoint": found[-1]["checkpoint"]}))
    _observe(twice, behind)
    again, expected = _saved(twice), _saved(whole)
    for name, saved in replayed.items():
        if saved != expected[name]:
            yield f"I10 {log.pchannel}: {name} from checkpoint {once.checkpoint_tick} differ"
        if again[name] != saved:
            yield f"I10 {log.pchannel}: {name} differ when replayed twice"


def _observe(state: RecoveryState, entries: Iterable[LogEntry]) -> None:
    for entry in entries:
        state.observe(entry)


def _saved(state: RecoveryState) -> dict[str, list[bytes]]:
    components = state.snapshot(log_pb2.WALCheckpoint())
    return {name: sorted(parts) for name, parts in components.items()}
