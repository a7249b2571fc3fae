"""Assigns Inserts to growing segments and seals these, in the order of the log to come.

Contract: what `ShardTable` is for what is written, this is for what is on its way: changed in the
same step in which an entry gets its ticks and enters the queue, so both have one order, and
nothing here ever waits. A segment that is to be sealed takes nothing more at once; its Flush is
written when all of it is, and no open transaction has bodies in it. After an open, and after a
self-reopen, this is made anew from the table: what was lost on the way was never there. Layer: wal.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from walplane.channel import cchannel_name
from walplane.message.registry import MessageType
from walplane.message.types import SEGMENT_TYPES
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.wal.interceptors.base import AppendOp, append_op
from walplane.wal.ports import LogEntry
from walplane.wal.shard.config import ShardConfig
from walplane.wal.shard.entries import create_segment, flush
from walplane.wal.shard.growth import NodeGrowth
from walplane.wal.shard.policies import GrowingSegment, due
from walplane.wal.shard.rules import check_order
from walplane.wal.shard.seal import Seal, header_of, seal_of
from walplane.wal.shard.segments import Segment
from walplane.wal.shard.table import ShardTable
from walplane.wal.timetick.acks import TickRange

_log = structlog.get_logger(__name__)

OWN_TYPES = SEGMENT_TYPES
"""What this writes; after a self-reopen it is made anew and not sent again."""

_UNREAD_TYPES = frozenset({MessageType.DELETE, MessageType.BEGIN_TXN, MessageType.COMMIT_TXN})
"""Their headers mean nothing here."""


class ShardManager:
    """The growing segments of one PChannel.

    Args:
        table: what the log says.
        config: seal policies.
        growth: shared by the node's WALs.
        monotonic: seconds.
        pchannel: whose they are.
    """

    def __init__(
        self,
        table: ShardTable,
        config: ShardConfig,
        growth: NodeGrowth,
        monotonic: Callable[[], float],
        pchannel: str,
    ) -> None:
        """Nothing grows before `rebuild`."""
        self._table = table
        self._config = config
        self._growth = growth
        self._monotonic = monotonic
        self._cchannel = cchannel_name(pchannel)
        self._current: dict[tuple[str, int], GrowingSegment] = {}
        self._growing: dict[int, GrowingSegment] = {}
        self._retired: dict[int, GrowingSegment] = {}
        self._look_at = float("-inf")
        self._patience = min(config.segment_idle_s, config.segment_lifetime_s)

    # --- on the append path ----------------------------------------------------------------------

    def plan(self, op: AppendOp) -> int:
        """Checks `op` and tells how many ticks it needs for a CreateSegment before its own.

        Raises:
            WalError: INVALID_ARGUMENT or SCHEMA_VERSION_MISMATCH when it breaks an order rule.
        """
        envelope = op.envelope
        if op.own:
            return 0
        if op.vchannel:
            check_order(self._table, envelope, self._cchannel)
        if op.kind == MessageType.INSERT:
            current = self._current.get((op.vchannel, envelope.partition_id))
            fits = current is not None and current.fits(op.count, op.size, self._config)
            return 0 if fits else 1
        if op.kind not in _UNREAD_TYPES:
            _check_header(op.entry)
        return 0

    def assign(self, op: AppendOp) -> AppendOp | None:
        """`op` has its ticks: says which segment an Insert is in, seals what another seals.

        Returns:
            The CreateSegment that must be queued before it, if `plan` asked for its tick.
        """
        envelope = op.envelope
        if op.kind != MessageType.INSERT:
            if (seal := seal_of(op.entry)) is not None:
                self._sealed(seal)
            return None
        key = (op.vchannel, envelope.partition_id)
        now = self._monotonic()
        created = None if op.lead is None else self._create(key, op, op.lead, now)
        growing = self._current[key]
        envelope.segment_id = growing.segment_id
        growing.rows += op.count
        growing.bytes += op.size
        growing.touched = now
        growing.in_flight += 1
        self._growth.bytes += op.size
        return created

    def written(self, log_entry: LogEntry) -> None:
        """An entry is written; the table has seen it."""
        growing = self._growing.get(log_entry.entry.envelope.segment_id)
        if growing is not None:
            growing.in_flight -= 1

    # --- sealing ---------------------------------------------------------------------------------

    def candidates(self) -> list[GrowingSegment]:
        """Growing segments that take Inserts."""
        return list(self._current.values())

    def retire(self, growing: GrowingSegment, reason: str) -> None:
        """Lets a segment take no more; it is sealed once all of it is written."""
        if growing.retired or growing.segment_id not in self._growing:
            return
        growing.retired = reason
        self._retired[growing.segment_id] = growing
        self._growth.bytes -= growing.bytes
        self._current.pop((growing.vchannel, growing.partition_id), None)

    def note_files(self, segment_id: int, files: int) -> None:
        """The data of a growing segment lies in so many files by now."""
        growing = self._growing.get(segment_id)
        if growing is not None and files >= self._config.segment_files:
            self.retire(growing, "files")

    def seal_due(self, submit: Callable[[log_pb2.Entry], object | None]) -> None:
        """Retires what is due, and writes the Flush of what can be sealed.

        Args:
            submit: appends an entry of the WAL's own; None while there is no tick for it.
        """
        now = self._monotonic()
        self._growth.relieve(now)
        if now >= self._look_at:
            self._look_at = now + self._patience
            for growing in list(self._current.values()):
                reason, again = due(growing, self._config, now)
                if reason:
                    self.retire(growing, reason)
                else:
                    self._look_at = min(self._look_at, again)
        for growing in list(self._retired.values()):
            segment = self._settled(growing)
            if segment is None:
                continue
            if submit(flush(segment)) is None:
                return
            self._remove(growing)
            _log.info(
                "segment sealed",
                vchannel=segment.vchannel,
                segment=segment.segment_id,
                reason=growing.retired,
                rows=segment.rows,
                bytes=segment.bytes,
            )

    def _settled(self, growing: GrowingSegment) -> Segment | None:
        """The segment as it will be sealed; None while something may still be added to it."""
        if growing.in_flight:
            return None
        if any(growing.segment_id in bodies.rows for bodies in self._table.bodies.values()):
            return None  # of transactions that are open
        return self._table.segment(growing.vchannel, growing.segment_id)

    def _sealed(self, seal: Seal) -> None:
        for growing in list(self._growing.values()):
            if seal.covers(growing.vchannel, growing.partition_id, growing.segment_id):
                self._remove(growing)

    def _remove(self, growing: GrowingSegment) -> None:
        self.retire(growing, "sealed")
        del self._growing[growing.segment_id], self._retired[growing.segment_id]

    # --- opening and ending ----------------------------------------------------------------------

    def rebuild(self, tick: int) -> None:
        """The log is open, its barrier at `tick`: what grows is what the table says."""
        self.leave()
        self._growth.join(self)
        self._look_at = float("-inf")
        now = self._monotonic()
        for segment in self._table.all_growing():
            growing = GrowingSegment.recover(segment, tick, now)
            self._growing[growing.segment_id] = growing
            self._growth.bytes += growing.bytes
            older = self._current.get((growing.vchannel, growing.partition_id))
            if older is not None:
                self.retire(older, "full")
            self._current[growing.vchannel, growing.partition_id] = growing
        for bodies in self._table.bodies.values():
            for segment_id, (rows, size) in bodies.rows.items():
                if (held := self._growing.get(segment_id)) is not None:
                    held.rows += rows
                    held.bytes += size
                    self._growth.bytes += 0 if held.retired else size

    def leave(self) -> None:
        """Nothing grows here any more, as far as the node is concerned."""
        self._growth.leave(self)
        self._growth.bytes -= sum(growing.bytes for growing in self._current.values())
        self._current.clear()
        self._growing.clear()
        self._retired.clear()

    def _create(self, key: tuple[str, int], op: AppendOp, ticks: TickRange, now: float) -> AppendOp:
        full = self._current.get(key)
        if full is not None:
            self.retire(full, "full")
        growing = GrowingSegment(ticks.first, *key, 0, 0, now, now)
        self._current[key] = self._growing[ticks.first] = growing
        self._look_at = min(self._look_at, now + self._patience)
        vchannel, partition_id = key
        meta = self._table.vchannels[vchannel]
        created = append_op(create_segment(meta, partition_id, ticks.first, self._config), ticks)
        created.since = op.since
        return created


def _check_header(entry: log_pb2.Entry) -> None:
    """Whoever follows the log must be able to read it; nobody could refuse it afterwards."""
    try:
        header = header_of(entry)
    except WalError as error:
        raise WalError(ErrorCode.INVALID_ARGUMENT, f"{error.message}: send it again") from error
    copied = entry.envelope.HasField("replicate")
    if isinstance(header, headers_pb2.RollbackTxnHeader) and header.expired and not copied:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            "that a transaction expired, its log's owner decides: roll it back without saying so",
        )
