"""What the parts of a coordinator share: their log, and which reports they take. Layer: coord."""

from __future__ import annotations

from typing import Protocol

from walplane.assignment.states import Channel
from walplane.rpc.errors import ErrorCode, WalError

TAKEN_REPORTS = frozenset(
    {ErrorCode.CHANNEL_FENCED, ErrorCode.CHANNEL_NOT_EXIST, ErrorCode.UNMATCHED_CHANNEL_TERM}
)
"""What a client can only have heard from the node itself; a broken connection is not among it."""


class Component(Protocol):
    """A part of the coordinator's state that lives in the meta topic."""

    def apply(self, data: bytes) -> None:
        """Takes one durable delta or snapshot part; idempotent."""
        ...

    def dump(self) -> list[bytes]:
        """Snapshot parts from which `apply` rebuilds the state."""
        ...


class DeltaLog(Protocol):
    """Where deltas become durable; `MetaStore` is it."""

    async def append(self, component: str, data: bytes) -> None:
        """Makes a delta durable, by an append that begins after the call; then it is applied.

        Raises:
            WalError: nothing can be written any more.
        """
        ...


class ConfirmingLog(DeltaLog, Protocol):
    """A `DeltaLog` that can tell whether it is still this coordinator's own."""

    async def confirm(self) -> None:
        """Returns after an append that began after the call: the term was in force then.

        Raises:
            WalError: nothing can be written any more.
        """
        ...


class AssignmentSource(Protocol):
    """Who knows which PChannel is served where."""

    def place(self, pchannel: str) -> tuple[Channel, str]:
        """Where `pchannel` stands, and its owner's address; empty when nobody serves it."""
        ...

    def report_error(self, pchannel: str, term: int, error: WalError) -> bool:
        """A client says what the owner answered it; whether that is of use."""
        ...
