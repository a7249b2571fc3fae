"""Everything a WAL recovers: its components and its checkpoint.

Contract: startup and live appends run the same `observe`, in log order; replay is idempotent. A
checkpoint {LastConfirmed, tick, ...} says: the components hold every entry up to the tick, and
every entry above it, and every part of a transaction that ends above it, lies at or after
LastConfirmed. Layer: wal.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from typing import Protocol

import structlog

from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.message.txn import txn_of
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.config import WALConfig
from walplane.wal.frames import OpenKey
from walplane.wal.metalog import MetaState
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.keyed import KeyedResults, key_of
from walplane.wal.recovery.named import NamedProducers
from walplane.wal.recovery.segments.table import SegmentTable
from walplane.wal.recovery.windows import ProducerWindows, WindowLimits, producer_key_of
from walplane.wal.shard.table import ShardTable
from walplane.wal.txn.table import TxnTable

_log = structlog.get_logger(__name__)

_CHECKPOINT = "checkpoint"
_BROADCASTS = "broadcasts"
_EVER = 1 << 45
_NUMBERS_LAST = 7  # times the age of results: how long it is known which number is due
_BROADCAST_LIMITS = WindowLimits(
    results=1, producers=10_000, max_bytes=16 << 20, age_ms=_EVER, numbers_ms=_EVER
)
"""The coordinator asks for as long as it takes: no data, and no time, drives these out."""


class _Part(Protocol):
    """A component of a snapshot."""

    def load(self, parts: Iterable[bytes]) -> None: ...

    def save(self) -> list[bytes]: ...


class RecoveryState:
    """The components of one PChannel and the checkpoint they were last saved with.

    Attributes:
        coord_term: the highest term of a coordinator whose broadcast the log holds; 0 = none does.
        poison: an entry or a snapshot that could not be taken in, if there was one. From it on
            nothing is known: the checkpoint stays where it is, and nothing may be appended that
            depends on it.
    """

    def __init__(self, config: WALConfig) -> None:
        """Empty: replay would begin at the earliest record."""
        limits = WindowLimits(
            config.producer_results,
            config.producers,
            config.producer_bytes,
            round(config.producer_age_s * 1000),
            round(config.producer_age_s * 1000) * _NUMBERS_LAST,
        )
        self.windows = ProducerWindows(limits)
        self.broadcasts = ProducerWindows(_BROADCAST_LIMITS)
        self.shards = ShardTable(config.shard.kept_segments)
        self.named = NamedProducers(
            limits._replace(
                producers=config.named_producers,
                numbers_ms=round(config.named_producer_age_s * 1000),
            ),
            self.shards.__contains__,
        )
        self.keyed = KeyedResults(
            config.key_results, config.key_bytes, round(config.key_age_s * 1000)
        )
        self.txns = TxnTable(config.txn_results, limits)
        self.segments = SegmentTable()
        self.checkpoint_id: MessageID | None = None
        self.checkpoint_tick = 0
        self.coord_term = 0
        self.poison: WalError | None = None

    def observe(self, log_entry: LogEntry) -> None:
        """Learns of a written entry, in log order; one the checkpoint covers changes nothing.

        Open transactions are no part of the checkpoint: they are found again from their Begins on.
        An entry that cannot be taken in poisons the log, and ends no process.
        """
        if self.poison is not None:
            return
        try:
            self._observe(log_entry)
        except Exception as error:
            self.poison = _poison(log_entry, error)
            _log.error("quarantined", reason=self.poison.message, trace=traceback.format_exc())

    def _observe(self, log_entry: LogEntry) -> None:
        self.txns.observe(log_entry)
        self.shards.observe(log_entry)  # knows by itself what each VChannel holds already
        if log_entry.last_tick > self.checkpoint_tick:
            envelope = log_entry.entry.envelope
            if not txn_of(envelope):
                self.windows_of(envelope).observe(log_entry)
                self.keyed.observe(log_entry)
            if (term := coord_term_of(envelope)) is not None:
                self.coord_term = max(self.coord_term, term)
            if envelope.type == MessageType.DROP_COLLECTION:
                self.named.end(envelope.vchannel)

    def windows_of(self, envelope: log_pb2.Envelope) -> ProducerWindows:
        """Where the number of an entry counts that is in no transaction."""
        if envelope.producer.name:
            return self.named
        return self.broadcasts if envelope.HasField("broadcast") else self.windows

    def holds(self, envelope: log_pb2.Envelope) -> bool:
        """Whether the log holds this batch of its producer, its key, or the end of its transaction.

        None of them may be known any more.
        """
        if txn_id := txn_of(envelope):
            return self.txns.ended(txn_id) is not None
        if key_of(envelope) in self.keyed:
            return True
        if not envelope.HasField("producer"):
            return False
        due = self.windows_of(envelope).expected(producer_key_of(envelope))
        return envelope.producer.number < due

    def check(self) -> None:
        """Raises what poisoned the log, if something did."""
        if self.poison is not None:
            raise self.poison

    def load(self, meta: MetaState) -> None:
        """Takes over what the meta topic says; what only a later version knows poisons the log."""
        parts = self._parts()
        for name, part in parts.items():
            part.load(meta.snapshot.get(name, ()))
        if unknown := sorted(meta.snapshot.keys() - parts.keys() - {_CHECKPOINT}):
            self.poison = _from_later(unknown)
            _log.error("quarantined", reason=self.poison.message)
        for data in meta.snapshot.get(_CHECKPOINT, ()):
            checkpoint = log_pb2.WALCheckpoint.FromString(data)
            self.checkpoint_tick = checkpoint.time_tick
            self.coord_term = checkpoint.coord_term
            if checkpoint.HasField("last_confirmed"):
                self.checkpoint_id = MessageID.from_proto(checkpoint.last_confirmed)

    def snapshot(self, checkpoint: log_pb2.WALCheckpoint) -> dict[str, list[bytes]]:
        """Components first, the checkpoint last: it must never be ahead of them.

        Raises:
            WalError: UNRECOVERABLE when an entry poisoned the log.
        """
        self.check()
        checkpoint.coord_term = self.coord_term
        saved = {name: part.save() for name, part in self._parts().items()}
        return {**saved, _CHECKPOINT: [checkpoint.SerializeToString()]}

    def _parts(self) -> dict[str, _Part]:
        """What a snapshot holds besides the checkpoint; producers of a name need the shards."""
        return {
            ProducerWindows.component: self.windows,
            _BROADCASTS: self.broadcasts,
            ShardTable.component: self.shards,
            NamedProducers.component: self.named,
            KeyedResults.component: self.keyed,
            TxnTable.component: self.txns,
            SegmentTable.component: self.segments,
        }

    def saved(self, checkpoint: log_pb2.WALCheckpoint) -> None:
        """The snapshot with `checkpoint` is durable."""
        self.checkpoint_tick = checkpoint.time_tick
        if checkpoint.HasField("last_confirmed"):
            self.checkpoint_id = MessageID.from_proto(checkpoint.last_confirmed)


def checkpoint_at(tick: int, confirmed: MessageID | None, key: OpenKey) -> log_pb2.WALCheckpoint:
    """The checkpoint at watermark `tick`, by the owner of `key`."""
    checkpoint = log_pb2.WALCheckpoint(time_tick=tick, term=key.term, open_number=key.open_number)
    if confirmed is not None:
        checkpoint.last_confirmed.CopyFrom(confirmed.to_proto())
    return checkpoint


def coord_term_of(envelope: log_pb2.Envelope) -> int | None:
    """The term of the coordinator that made a broadcast of this cluster; None for all else."""
    if envelope.HasField("broadcast") and not envelope.HasField("replicate"):
        return envelope.broadcast.coord_term
    return None


def _from_later(components: Sequence[str]) -> WalError:
    return WalError(
        ErrorCode.UNRECOVERABLE,
        f"its last snapshot holds {', '.join(components)}, which this version does not know. The "
        "log can be read, but not appended to, and keeps its checkpoint: upgrade walplane again",
    )


def _poison(log_entry: LogEntry, error: Exception) -> WalError:
    envelope = log_entry.entry.envelope
    return WalError(
        ErrorCode.UNRECOVERABLE,
        f"the entry at {log_entry.message_id} (type {envelope.type}, tick {log_entry.first_tick}) "
        f"cannot be taken in: {error!r}. Its log can be read, but not appended to, and keeps its "
        "checkpoint; upgrade walplane, or report this with the entry",
    )
