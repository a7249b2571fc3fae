"""A backend around another one, for whoever changes a few of its calls.

Contract: every call goes through unchanged unless a subclass says otherwise. Layer: backends.
"""

from __future__ import annotations

from walplane.backends.interface import (
    Backend,
    BackendSession,
    RecordScanner,
    Start,
    TopicWriter,
)
from walplane.message.ids import RecordID


class ForwardingBackend:
    """See `Backend`.

    Attributes:
        inner: what is wrapped; closed with this.
    """

    def __init__(self, inner: Backend) -> None:
        """Wraps `inner`."""
        self.inner = inner

    @property
    def name(self) -> str:
        """See `Backend`."""
        return self.inner.name

    @property
    def max_record_bytes(self) -> int:
        """See `Backend`."""
        return self.inner.max_record_bytes

    @property
    def ack_timeout_s(self) -> float:
        """See `Backend`."""
        return self.inner.ack_timeout_s

    async def session(self) -> BackendSession:
        """See `Backend`."""
        return await self.inner.session()

    async def close(self) -> None:
        """See `Backend`."""
        await self.inner.close()


class ForwardingSession:
    """See `BackendSession`.

    Attributes:
        inner: what is wrapped; closed with this.
    """

    def __init__(self, inner: BackendSession) -> None:
        """Wraps `inner`."""
        self.inner = inner

    async def ensure_topic(self, topic: str) -> None:
        """See `BackendSession`."""
        await self.inner.ensure_topic(topic)

    async def open_writer(self, topic: str, term: int, open_number: int) -> TopicWriter:
        """See `BackendSession`."""
        return await self.inner.open_writer(topic, term, open_number)

    async def open_scanner(self, topic: str, start: Start) -> RecordScanner:
        """See `BackendSession`."""
        return await self.inner.open_scanner(topic, start)

    async def last_record_id(self, topic: str) -> RecordID | None:
        """See `BackendSession`."""
        return await self.inner.last_record_id(topic)

    async def truncate(self, topic: str, record_id: RecordID) -> None:
        """See `BackendSession`."""
        await self.inner.truncate(topic, record_id)

    async def close(self) -> None:
        """See `BackendSession`."""
        await self.inner.close()
