"""A backend that misbehaves on demand around a real one. Layer: testkit.

`FaultyBackend.faults` is asked before every append to a topic; what it answers happens to that
record; `FaultyBackend.before_truncation` comes before each truncation, and may wait or raise.
Everything else goes through unchanged.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable

from walplane.backends.forwarding import ForwardingBackend, ForwardingSession
from walplane.backends.interface import Backend, BackendSession, TopicWriter
from walplane.backends.sequenced import oversized
from walplane.message.ids import RecordID
from walplane.rpc.errors import ErrorCode, WalError


class Fault(enum.Enum):
    """What happens to one record."""

    NONE = "none"
    LOSE_ACK = "written, and the acknowledgement is lost for ever"
    FAIL_AFTER = "written, and reported as unknown"
    FAIL_BEFORE = "not written, and reported as unknown"
    NO_ID = "written, and acknowledged without an id"


def no_faults(_topic: str) -> Fault:
    """The backend behaves."""
    return Fault.NONE


async def at_once() -> None:
    """Truncations are made without ado."""


class FaultyBackend(ForwardingBackend):
    """Wraps a backend.

    Attributes:
        faults: what happens to records; may be exchanged at any time.
        record_bytes: records above it are refused, though `max_record_bytes` promises more.
        refused: whether sessions fail to open.
        before_truncation: awaited before each truncation.
        before_ack: awaited before a record that met no fault is acknowledged.
    """

    def __init__(self, inner: Backend) -> None:
        """Behaves until told otherwise."""
        super().__init__(inner)
        self.faults: Callable[[str], Fault] = no_faults
        self.record_bytes = inner.max_record_bytes
        self.refused = False
        self.before_truncation: Callable[[], Awaitable[object]] = at_once
        self.before_ack: Callable[[], Awaitable[object]] | None = None

    async def session(self) -> BackendSession:
        """A session of the wrapped backend."""
        if self.refused:
            raise WalError(ErrorCode.INNER, "the backend cannot be reached")
        return _FaultySession(self, await self.inner.session())


class _FaultySession(ForwardingSession):
    def __init__(self, backend: FaultyBackend, inner: BackendSession) -> None:
        super().__init__(inner)
        self._backend = backend

    async def open_writer(self, topic: str, term: int, open_number: int) -> TopicWriter:
        inner = await self.inner.open_writer(topic, term, open_number)
        return _FaultyWriter(self._backend, topic, inner)

    async def truncate(self, topic: str, record_id: RecordID) -> None:
        await self._backend.before_truncation()
        await self.inner.truncate(topic, record_id)


class _FaultyWriter:
    def __init__(self, backend: FaultyBackend, topic: str, inner: TopicWriter) -> None:
        self._backend = backend
        self._topic = topic
        self._inner = inner

    def append(self, data: bytes) -> asyncio.Future[RecordID | None]:
        if len(data) > self._backend.record_bytes:
            return _failed(oversized(self._topic, len(data), self._backend.record_bytes))
        fault = self._backend.faults(self._topic)
        if fault is Fault.FAIL_BEFORE:
            return _failed(_unknown(self._topic))
        written = self._inner.append(data)
        if fault is Fault.NONE:
            return written if self._backend.before_ack is None else self._late(written)
        return self._distort(written, fault)

    def _late(self, written: asyncio.Future[RecordID | None]) -> asyncio.Future[RecordID | None]:
        async def acknowledge() -> RecordID | None:
            record_id = await written
            if self._backend.before_ack is not None:
                await self._backend.before_ack()
            return record_id

        return asyncio.create_task(acknowledge())

    def _distort(
        self, written: asyncio.Future[RecordID | None], fault: Fault
    ) -> asyncio.Future[RecordID | None]:
        told: asyncio.Future[RecordID | None] = asyncio.get_running_loop().create_future()

        def finish(done: asyncio.Future[RecordID | None]) -> None:
            if done.cancelled() or told.done() or fault is Fault.LOSE_ACK:
                return
            error = done.exception()
            if error is not None:
                told.set_exception(error)
            elif fault is Fault.NO_ID:
                told.set_result(None)
            else:
                told.set_exception(_unknown(self._topic))

        written.add_done_callback(finish)
        return told


def _failed(error: WalError) -> asyncio.Future[RecordID | None]:
    failed: asyncio.Future[RecordID | None] = asyncio.get_running_loop().create_future()
    failed.set_exception(error)
    return failed


def _unknown(topic: str) -> WalError:
    return WalError(ErrorCode.OUTCOME_UNKNOWN, f"no acknowledgement from {topic}")
