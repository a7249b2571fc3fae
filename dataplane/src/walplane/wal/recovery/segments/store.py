"""What the flusher needs of an object store and of the format of its objects. Layer: wal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from walplane.wal.recovery.segments.units import Unit


class SegmentStore(Protocol):
    """Objects that are written once. Every call has a timeout of its own inside."""

    async def create(self, path: str, data: bytes) -> bool:
        """Writes an object, durable when this returns True; False when there is one already.

        False may also say that another of the same name is being written, and may fail yet: what is
        there, only `read` tells.

        Raises:
            Exception: of any kind; the outcome is unknown then, and trying again is right.
        """
        ...

    async def read(self, path: str) -> bytes:
        """A whole object.

        Raises:
            Exception: of any kind, as `create`.
        """
        ...

    async def paths(self, folder: str) -> list[str]:
        """Every object in a folder, and in those inside it; none when there is no such folder.

        Raises:
            Exception: of any kind.
        """
        ...

    async def delete(self, paths: Sequence[str]) -> None:
        """Removes objects; one that is not there is no error.

        Raises:
            Exception: of any kind; some of them may be gone.
        """
        ...


class Encoded(NamedTuple):
    """The bytes of one part, and the appends in it."""

    first_tick: int
    last_tick: int
    rows: int
    data: bytes


class SegmentFormat(Protocol):
    """How units become objects; pure and slow, to be iterated beside the loop."""

    suffix: str

    def encode(self, units: Sequence[Unit], about: dict[str, str]) -> Iterator[Encoded]:
        """Objects that hold `units` in order; each is of one schema, and made when it is asked for.

        Args:
            units: what one stream holds.
            about: says whose they are, and travels in the objects.

        Raises:
            WalError: UNRECOVERABLE when an entry is damaged.
        """
        ...

    def describe(self, data: bytes, about: dict[str, str]) -> Encoded:
        """What `encode` said of `data`, if it is of the same `about`.

        Raises:
            WalError: UNRECOVERABLE when it is anything else.
        """
        ...
