"""What this package needs of an API server: reads, writes with a resourceVersion, lists, watches.

Contract: every failure is an `ApiError`. Only `conflict` says something about the object; all else
means unknown, 404 included: absence is believed only from a complete list. Layer: lease.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from walplane.lease.contract import Body
from walplane.rpc.errors import ErrorCode, WalError

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, GONE = 401, 403, 404, 409, 410


class ApiError(WalError):
    """A call to the API server that did not do what was asked.

    Attributes:
        status: of the answer; 0 when there was none.
    """

    def __init__(self, status: int, message: str, retry_after_s: float = 0.0) -> None:
        """`retry_after_s` is the server's own wish."""
        super().__init__(ErrorCode.INNER, message, retry_after_ms=round(retry_after_s * 1000))
        self.status = status

    @property
    def conflict(self) -> bool:
        """Whether the object is another than the one that was read, or exists already."""
        return self.status == CONFLICT


class Listed(NamedTuple):
    """A complete list, and where a watch goes on from it."""

    items: list[Body]
    resource_version: str


class Event(NamedTuple):
    """One event of a watch: ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    body: Body


class LeaseStore(Protocol):
    """The Leases of one namespace."""

    async def get(self, name: str) -> Body:
        """The Lease as it is now: a quorum read, never from a cache.

        Raises:
            ApiError: no answer, or none that helps.
        """
        ...

    async def create(self, body: Body) -> Body:
        """Makes a Lease; returns it as stored.

        Raises:
            ApiError: a conflict when it is there already.
        """
        ...

    async def replace(self, body: Body) -> Body:
        """Writes a Lease that was read, if nobody wrote it since; returns it as stored.

        Raises:
            ApiError: a conflict when somebody did, or when it was deleted.
        """
        ...

    async def delete(self, body: Body) -> None:
        """Deletes a Lease that was read, if nobody wrote it since.

        Raises:
            ApiError: a conflict when somebody did.
        """
        ...

    async def list(self, selector: str) -> Listed:
        """All Leases with these labels.

        Raises:
            ApiError: no answer, or none that helps.
        """
        ...

    def watch(
        self, selector: str, resource_version: str, window_s: float
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Changes after `resource_version`, for about `window_s` seconds; leaving it closes it.

        Raises:
            ApiError: at its beginning or in between; 410 when only a new list helps.
        """
        ...
