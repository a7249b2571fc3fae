"""Named producers: where each is, and which opening of it may write (architecture §6).

Contract: an open is an entry of the log, a TimeTick that says producer, VChannel and opener, and
its tick is the epoch: from it on only batches of that epoch are taken. Unlike those of others,
windows of named producers give way to nothing but time: a name that is forgotten is new, so the
bound on their number refuses new names instead. A component of the checkpoint, as
`ProducerWindows`. Layer: wal.
"""

from __future__ import annotations

from typing import NamedTuple

from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.windows import ProducerKey, ProducerWindows, title


class Standing(NamedTuple):
    """What the log says of a named producer.

    Attributes:
        epoch: tick of the last open; 0 = never, as far as is known.
        opener: who opened it last.
        next_number: of the first message that is not in the log.
    """

    epoch: int
    opener: bytes
    next_number: int


class NamedProducers(ProducerWindows):
    """The named producers of one PChannel."""

    component = "named_producers"

    def standing(self, key: ProducerKey) -> Standing:
        """Where `key` is."""
        window = self._windows.get(key)
        if window is None:
            return Standing(0, b"", 0)
        return Standing(window.epoch, window.opener, window.expected)

    def check_epoch(self, key: ProducerKey, epoch: int) -> None:
        """Makes sure that `epoch` is that of the last open.

        Raises:
            WalError: PRODUCER_FENCED.
        """
        current = self.standing(key).epoch
        if epoch != current:
            why = f"was opened again, under epoch {current}" if current else "is not open here"
            raise WalError(
                ErrorCode.PRODUCER_FENCED,
                f"{title(key)} {why}: epoch {epoch} writes nothing more; whoever opens it is told "
                "which of its messages are written",
            )

    def has_room(self, tick: int, opening: int) -> bool:
        """Whether a new name may be opened at `tick`, beside `opening` that are under way."""
        oldest = next(iter(self._windows.values()), None)
        aged = oldest is not None and oldest.last_tick + self._lasts < tick
        return aged or len(self._windows) + opening < self._limits.producers

    def _record(self, log_entry: LogEntry, envelope: log_pb2.Envelope) -> None:
        producer = envelope.producer
        if not producer.opener:
            super()._record(log_entry, envelope)
            return
        window = self._touch(log_entry, envelope)
        if window is not None and log_entry.first_tick > window.epoch:
            window.epoch, window.opener = log_entry.first_tick, producer.opener

    def _fits(self) -> bool:
        return True
