"""Named producers: where each is, and which opening of it may write (rules §13).

Contract: an open is an entry of the log, a TimeTick that says producer, VChannel and opener, and
its tick is the epoch: from it on only batches of that epoch are taken. Unlike those of others,
windows of named producers give way to nothing but time: a name that is forgotten is new, so the
bound on their number refuses new names instead. Those on dropped VChannels take no room from
others: they are kept for repeats alone, as many again, the latest ones by tick. A component of the
checkpoint, as `ProducerWindows`. Layer: wal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from walplane.channel import is_cchannel
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.results import Window
from walplane.wal.recovery.windows import ProducerKey, ProducerWindows, WindowLimits, title


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

    def __init__(self, limits: WindowLimits, is_there: Callable[[str], bool]) -> None:
        """Empty.

        Args:
            limits: on those of VChannels that are there, and on the others.
            is_there: whether a VChannel is; knows of each entry, and of a snapshot, before this.
        """
        super().__init__(limits)
        self._is_there = is_there
        self._ended: dict[ProducerKey, int] = {}  # on dropped VChannels, with their last ticks

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
        if len(self._windows) - len(self._ended) + opening < self._limits.producers:
            return True
        living = (window for key, window in self._windows.items() if key not in self._ended)
        oldest = next(living, None)
        return oldest is not None and oldest.last_tick + self._lasts < tick

    def end(self, vchannel: str) -> None:
        """The DropCollection of `vchannel` is in the log; observing it twice changes nothing."""
        if not self._lives(vchannel):  # it comes to the CChannel too
            self._keep_ended([key for key in self._windows if key[1] == vchannel])

    def load(self, parts: Iterable[bytes]) -> None:
        """See `ProducerWindows`."""
        super().load(parts)
        self._keep_ended([key for key in self._windows if not self._lives(key[1])])

    def _record(self, log_entry: LogEntry, envelope: log_pb2.Envelope) -> None:
        producer = envelope.producer
        if not producer.opener:
            super()._record(log_entry, envelope)
            return
        window = self._touch(log_entry, envelope)
        if window is not None and log_entry.first_tick > window.epoch:
            window.epoch, window.opener = log_entry.first_tick, producer.opener

    def _touch(self, log_entry: LogEntry, envelope: log_pb2.Envelope) -> Window | None:
        if not self._lives(envelope.vchannel):
            return None  # replayed over a snapshot that knows of the drop
        return super()._touch(log_entry, envelope)

    def _lives(self, vchannel: str) -> bool:
        return self._is_there(vchannel) or is_cchannel(vchannel)

    def _keep_ended(self, keys: Iterable[ProducerKey]) -> None:
        """Which ones are kept depends on ticks alone, never on the order of the records."""
        self._ended.update((key, self._windows[key].last_tick) for key in keys)
        while len(self._ended) > self._limits.producers:
            self._remove(min(self._ended, key=self._ended.__getitem__))

    def _remove(self, key: ProducerKey) -> None:
        super()._remove(key)
        self._ended.pop(key, None)

    def _fits(self) -> bool:
        return True
