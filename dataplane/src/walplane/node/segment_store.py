"""The segment store of a process, by what it was told. Layer: node."""

from __future__ import annotations

from walplane.node.config import NodeConfig
from walplane.wal.recovery.segments.budget import SegmentBudget
from walplane.wal.recovery.segments.objects import open_store
from walplane.wal.recovery.segments.parquet import ParquetFormat
from walplane.wal.recovery.segments.storing import SegmentDeps


def segments_in(where: str, config: NodeConfig) -> SegmentDeps | None:
    """What a node needs to store segments at `where`, a URL or a directory; None if empty.

    Raises:
        WalError: INVALID_ARGUMENT when that is no segment store.
    """
    if not where:
        return None
    return SegmentDeps(open_store(where), ParquetFormat(), SegmentBudget(config.segment_bytes))
