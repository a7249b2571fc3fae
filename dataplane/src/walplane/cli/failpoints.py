"""Kills this process at a named point between a WAL and its backend, for chaos tests. Layer: cli.

    WALPLANE_FAILPOINT=mid-append:500    SIGKILL when the point is reached for the 500th time

Contract: what is not asked for costs nothing, since nothing is wrapped. The points, of data topics
and of PChannels' meta topics:

    mid-append         a record of the log was handed over, and may or may not be written
    written-not-acked  a record of the log is durable, and nobody was told
    mid-open           the data topic was taken, and no barrier is written
    mid-checkpoint     a record of a snapshot was handed over
    mid-truncate       a truncation was asked for
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from walplane.backends.forwarding import ForwardingBackend, ForwardingSession
from walplane.backends.interface import Backend, BackendSession, TopicWriter
from walplane.channel import is_pchannel, meta_topic
from walplane.cli.errors import CommandError
from walplane.message.ids import RecordID

VARIABLE = "WALPLANE_FAILPOINT"
POINTS = ("mid-append", "written-not-acked", "mid-open", "mid-checkpoint", "mid-truncate")

Hit = Callable[[str], None]


def with_failpoint(backend: Backend, asked: str | None) -> Backend:
    """`backend`, or one that ends this process where `asked` (the variable's value) says.

    Raises:
        CommandError: `asked` names no point.
    """
    if not asked:
        return backend
    point, _, count = asked.partition(":")
    if point not in POINTS or not (count or "1").isdecimal():
        raise CommandError(f"{VARIABLE}={asked}: one of {', '.join(POINTS)}, then :COUNT")
    left = int(count or 1)

    def hit(reached: str) -> None:
        nonlocal left
        left -= reached == point
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return _Backend(backend, hit)


class _Backend(ForwardingBackend):
    def __init__(self, inner: Backend, hit: Hit) -> None:
        super().__init__(inner)
        self._hit = hit

    async def session(self) -> BackendSession:
        return _Session(await self.inner.session(), self._hit)


class _Session(ForwardingSession):
    def __init__(self, inner: BackendSession, hit: Hit) -> None:
        super().__init__(inner)
        self._hit = hit

    async def open_writer(self, topic: str, term: int, open_number: int) -> TopicWriter:
        writer = await self.inner.open_writer(topic, term, open_number)
        if is_pchannel(topic):
            self._hit("mid-open")
            return _DataWriter(writer, self._hit)
        return _MetaWriter(writer, self._hit) if _is_meta(topic) else writer

    async def truncate(self, topic: str, record_id: RecordID) -> None:
        if not (is_pchannel(topic) or _is_meta(topic)):
            return await self.inner.truncate(topic, record_id)
        truncating = asyncio.ensure_future(self.inner.truncate(topic, record_id))
        await asyncio.sleep(0)
        self._hit("mid-truncate")
        await truncating


def _is_meta(topic: str) -> bool:
    pchannel = topic.removesuffix(meta_topic(""))
    return is_pchannel(pchannel) and topic == meta_topic(pchannel)


class _DataWriter:
    def __init__(self, inner: TopicWriter, hit: Hit) -> None:
        self._inner = inner
        self._hit = hit

    def append(self, data: bytes) -> asyncio.Future[RecordID | None]:
        written = self._inner.append(data)
        self._hit("mid-append")
        written.add_done_callback(self._written)  # before the WAL's own, which acknowledges
        return written

    def _written(self, written: asyncio.Future[RecordID | None]) -> None:
        if not written.cancelled() and written.exception() is None:
            self._hit("written-not-acked")


class _MetaWriter:
    """The first record of an open is a barrier, what follows it belongs to snapshots."""

    def __init__(self, inner: TopicWriter, hit: Hit) -> None:
        self._inner = inner
        self._hit = hit
        self._barrier = True

    def append(self, data: bytes) -> asyncio.Future[RecordID | None]:
        written = self._inner.append(data)
        if not self._barrier:
            self._hit("mid-checkpoint")
        self._barrier = False
        return written
