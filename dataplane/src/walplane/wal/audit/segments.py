"""Whether every Insert names a segment that was created before it and not sealed. Layer: wal.

Contract: as `log`. What was created before the log begins now is not asked about; growing segments
are kept, and the latest of those sealed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from walplane.message.registry import MessageType
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import headers_pb2
from walplane.wal.ports import LogEntry
from walplane.wal.shard.seal import header_of, seal_of

_SEALED = 50_000


class SegmentAudit:
    """The segments of one log; `report` takes (rule, what), `name` says what an entry is called."""

    def __init__(self, report: Callable[[str, str], None], name: Callable[[LogEntry], str]) -> None:
        """None yet."""
        self._report = report
        self._name = name
        self._growing: dict[int, tuple[str, int]] = {}
        self._sealed: OrderedDict[int, LogEntry] = OrderedDict()
        self._forgotten = 0

    def take(self, item: LogEntry, first_tick: int) -> None:
        """Checks the next entry of a log that begins at `first_tick`."""
        if item.entry.envelope.type == MessageType.INSERT:
            self._check(item, max(first_tick, self._forgotten))
            return
        try:
            self._follow(item)
        except WalError as error:
            self._report("damage", f"{self._name(item)}: {error.message}")

    def _check(self, item: LogEntry, known_from: int) -> None:
        envelope = item.entry.envelope
        segment_id = envelope.segment_id
        place = self._growing.get(segment_id)
        if place is not None:
            if place != (envelope.vchannel, envelope.partition_id):
                what = f"segment {segment_id} of {place[0]}, partition {place[1]}"
                self._report("order", f"{self._name(item)} names {what}")
        elif segment_id in self._sealed:
            seal = self._name(self._sealed[segment_id])
            self._report(
                "order", f"{self._name(item)} names segment {segment_id}, sealed by {seal}"
            )
        elif segment_id > known_from:
            what = f"segment {segment_id}, which nothing created"
            self._report("order", f"{self._name(item)} names {what}")

    def _follow(self, item: LogEntry) -> None:
        envelope = item.entry.envelope
        if envelope.type == MessageType.CREATE_SEGMENT:
            header = header_of(item.entry)
            if isinstance(header, headers_pb2.CreateSegmentHeader):
                self._growing[header.segment_id] = (envelope.vchannel, envelope.partition_id)
            return
        seal = seal_of(item.entry)
        if seal is None:
            return
        for segment_id, place in list(self._growing.items()):
            if seal.covers(*place, segment_id):
                del self._growing[segment_id]
                self._sealed[segment_id] = item
        while len(self._sealed) > _SEALED:
            self._forgotten = max(self._forgotten, self._sealed.popitem(last=False)[0])
