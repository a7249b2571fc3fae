"""The pipeline of a named producer: numbers messages, and never numbers anew. Layer: client.

Contract: as `Pipeline`, but a batch has the number of its first message, under a name and an epoch
that stay; so nothing starts anew. After a refusal nothing more is sent: what the node refuses after
it fails as the node says, and what was not sent yet fails as the first.
"""

from __future__ import annotations

from collections.abc import Sequence

from walplane.client.batcher import Parcel, SendBatch
from walplane.client.config import ClientConfig
from walplane.client.pipeline import Next, Pipeline, Verdict
from walplane.rpc.errors import ErrorCode, WalError

_IDENTITY_BYTES = 16  # of an epoch and the name's tag and length, beside a batch's number


class NamedPipeline(Pipeline):
    """What one open of a named producer appends.

    Attributes:
        vchannel: a lane of its own beside its VChannel's, by this name.
    """

    def __init__(
        self, vchannel: str, name: str, epoch: int, next_number: int, config: ClientConfig
    ) -> None:
        """The first message will have `next_number`."""
        super().__init__(f"{vchannel} producer {name} epoch {epoch}", bytes, config)
        self._name = name
        self._epoch = epoch
        self._next = next_number
        self._room = len(name.encode()) + _IDENTITY_BYTES
        self._failure: WalError | None = None

    def offer(self, parcel: Parcel) -> bool:
        """As `Pipeline.offer`, unless a message before was refused: then these are too."""
        if self._failure is not None:
            parcel.fail(self._failure)
            return False
        return super().offer(parcel)

    def next_batch(
        self, max_entry_bytes: int, settled_tick: int = 0, packed_bytes: int = 0
    ) -> SendBatch | None:
        """As `Pipeline.next_batch`; the name needs its room."""
        packed = max(packed_bytes - self._room, 0)
        return super().next_batch(max_entry_bytes - self._room, settled_tick, packed)

    def fail(self, error: WalError) -> None:
        """Fails everything, and what is offered later."""
        self._failure = self._failure or error
        super().fail(error)

    def _refuse(self, parcels: Sequence[Parcel], error: WalError) -> None:
        """Fails all behind it too: a message is known by its number, and this one keeps its place.

        What was sent before has its own outcome to come.
        """
        super()._refuse(parcels, error)
        self._failure = self._failure or error
        self._waiting.fail(error)

    def _number(self, batch: SendBatch) -> None:
        super()._number(batch)
        batch.name, batch.epoch, batch.number = self._name, self._epoch, self._next
        self._next += batch.count

    def _never_written(self, batch: SendBatch, error: WalError) -> bool:
        return False

    def _start_anew(self, first: SendBatch) -> Verdict:
        outcome = first.outcome
        lost = WalError(ErrorCode.OUTCOME_UNKNOWN, f"{self.vchannel} failed")
        self.fail(outcome if isinstance(outcome, WalError) else lost)
        return Verdict(Next.GO_ON)
