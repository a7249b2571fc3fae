"""Everything a WAL recovers: its components and its checkpoint.

Contract: startup and live appends run the same `observe`, in log order; replay is idempotent. A
checkpoint {LastConfirmed, tick, ...} says: the components hold every entry up to the tick, and
every entry above it, and every part of a transaction that ends above it, lies at or after
LastConfirmed. Layer: wal.
"""

from __future__ import annotations

from walplane.message.ids import MessageID
from walplane.message.txn import txn_of
from walplane.rpc.v1 import log_pb2
from walplane.wal.config import WALConfig
from walplane.wal.metalog import MetaState
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.keyed import KeyedResults, key_of
from walplane.wal.recovery.windows import ProducerWindows
from walplane.wal.shard.table import ShardTable
from walplane.wal.txn.table import TxnTable

_CHECKPOINT = "checkpoint"


class RecoveryState:
    """The components of one PChannel and the checkpoint they were last saved with."""

    def __init__(self, config: WALConfig) -> None:
        """Empty: replay would begin at the earliest record."""
        self.windows = ProducerWindows(config.producer_results, config.producers)
        self.keyed = KeyedResults(
            config.key_results, config.key_bytes, round(config.key_age_s * 1000)
        )
        self.shards = ShardTable(config.shard.kept_segments)
        self.txns = TxnTable(config.txn_results, config.producer_results)
        self.checkpoint_id: MessageID | None = None
        self.checkpoint_tick = 0

    def observe(self, log_entry: LogEntry) -> None:
        """Learns of a written entry, in log order; one the checkpoint covers changes nothing.

        Open transactions are no part of the checkpoint: they are found again from their Begins on.
        """
        self.txns.observe(log_entry)
        self.shards.observe(log_entry)  # knows by itself what each VChannel holds already
        if log_entry.last_tick > self.checkpoint_tick:
            if not txn_of(log_entry.entry.envelope):
                self.windows.observe(log_entry)
                self.keyed.observe(log_entry)

    def holds(self, envelope: log_pb2.Envelope) -> bool:
        """Whether the log holds this batch of its producer, its key, or the end of its transaction.

        None of them may be known any more.
        """
        if txn_id := txn_of(envelope):
            return self.txns.ended(txn_id) is not None
        if key_of(envelope) in self.keyed:
            return True
        producer = envelope.producer
        key = (producer.producer_id, envelope.vchannel)
        return envelope.HasField("producer") and producer.number < self.windows.expected(key)

    def load(self, meta: MetaState) -> None:
        """Takes over what the meta topic says."""
        self.windows.load(meta.snapshot.get(ProducerWindows.component, ()))
        self.keyed.load(meta.snapshot.get(KeyedResults.component, ()))
        self.shards.load(meta.snapshot.get(ShardTable.component, ()))
        self.txns.load(meta.snapshot.get(TxnTable.component, ()))
        for data in meta.snapshot.get(_CHECKPOINT, ()):
            checkpoint = log_pb2.WALCheckpoint.FromString(data)
            self.checkpoint_tick = checkpoint.time_tick
            if checkpoint.HasField("last_confirmed"):
                self.checkpoint_id = MessageID.from_proto(checkpoint.last_confirmed)

    def snapshot(self, checkpoint: log_pb2.WALCheckpoint) -> dict[str, list[bytes]]:
        """Components first, the checkpoint last: it must never be ahead of them."""
        return {
            ProducerWindows.component: self.windows.save(),
            KeyedResults.component: self.keyed.save(),
            ShardTable.component: self.shards.save(),
            TxnTable.component: self.txns.save(),
            _CHECKPOINT: [checkpoint.SerializeToString()],
        }

    def saved(self, checkpoint: log_pb2.WALCheckpoint) -> None:
        """The snapshot with `checkpoint` is durable."""
        self.checkpoint_tick = checkpoint.time_tick
        if checkpoint.HasField("last_confirmed"):
            self.checkpoint_id = MessageID.from_proto(checkpoint.last_confirmed)
