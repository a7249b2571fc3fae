"""The coordinator's meta topic: every component's state, as one ordered, fenced log.

Contract: a component changes only by `apply`, with deltas that are durable, in log order; the same
call rebuilds it at open. Deltas say how things are, so applying one again after a reopen changes
nothing. One writer task: what callers hand over while an append is in flight leaves with the next
(group commit), so every `append` begins after its call. A lost backend is survived: the client is
closed, the topic opened again under the same term and the next open number, and what had no
answer is written again. A foreign barrier ends the store; `stopped` then holds why. Layer: coord.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import structlog

from walplane.backends.interface import Backend, BackendSession
from walplane.coord.background import Background
from walplane.coord.backoff import Backoff
from walplane.coord.ports import Component
from walplane.coord.settings import CoordSettings
from walplane.rpc.errors import DAMAGE, ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.wal.metalog import MetaLog, MetaState, find_foreign, highest_term, meta_limits
from walplane.wal.ports import StaleTerm

_log = structlog.get_logger(__name__)

_CONFIRM = "confirm"  # a delta that changes nothing: its append shows that nobody took the topic
_GROUP_BYTES = 512 * 1024
_ACK_S = 5.0
_FENCED_OPENS = 5  # refused this often by the backend itself: whoever opened wrote no barrier


class _Pending(NamedTuple):
    component: str
    data: bytes
    done: asyncio.Future[None]


class MetaStore:
    """The exclusive owner of the coordinator's meta topic, under one coordinator term.

    Attributes:
        term: the coordinator's term: the highest barrier found + 1.
        stopped: done with the reason once the store can never write again.
        reopens: how often the backend was lost and the topic opened again.
    """

    def __init__(
        self,
        backend: Backend,
        topic: str,
        runtime: Runtime,
        components: Mapping[str, Component],
        settings: CoordSettings,
    ) -> None:
        """Use `open`."""
        self._backend = backend
        self._topic = topic
        self._runtime = runtime
        self._components = components
        self._settings = settings
        self._ack_timeout_s = settings.ack_timeout_s or max(_ACK_S, backend.ack_timeout_s)
        self._session: BackendSession | None = None
        self._meta: MetaLog | None = None
        self._open_number = 0
        self._barriers: set[bytes] = set()
        self._limits = meta_limits(backend.max_record_bytes)
        self._queue: deque[_Pending] = deque()
        self._wake = asyncio.Event()
        self._deltas = 0  # in the topic, after its last snapshot
        self.term = 0
        self.reopens = 0
        self.stopped: asyncio.Future[WalError] = asyncio.get_running_loop().create_future()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        backend: Backend,
        topic: str,
        runtime: Runtime,
        components: Mapping[str, Component],
        settings: CoordSettings,
    ) -> AsyncIterator[MetaStore]:
        """The topic, taken under a new term, its components rebuilt.

        Raises:
            StaleTerm: another coordinator opened it at the same time.
            WalError: as the backend raises it.
        """
        store = cls(backend, topic, runtime, components, settings)
        tasks = Background(store.end)
        try:
            store._load(await store._open())
            tasks.start("coord-meta-writer", store._write_all())
            yield store
        finally:
            await tasks.stop()
            store.end(WalError(ErrorCode.ON_SHUTDOWN, "the coordinator is shutting down"))
            await store._close_session()

    async def append(self, component: str, data: bytes) -> None:
        """Makes a delta durable; it is applied when this returns.

        A caller that is cancelled may find its delta written or not; one that is not under way
        yet is dropped, so that the queue holds no more than there are callers.

        Raises:
            WalError: why the store stopped.
        """
        if self.stopped.done():
            raise self.stopped.result()
        pending = _Pending(component, data, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        self._wake.set()
        try:
            await pending.done
        except asyncio.CancelledError:
            if pending in self._queue:
                self._queue.remove(pending)
            raise

    async def confirm(self) -> None:
        """Returns after an append that began after the call: the term was in force then.

        Raises:
            WalError: as `append`.
        """
        await self.append(_CONFIRM, b"")

    async def _write_all(self) -> None:
        """Writes group after group, for ever."""
        while True:
            if self._deltas >= self._settings.snapshot_deltas:
                await self._snapshot()
            group = await self._next_group()
            await self._write(group)
            self._deltas += len(group)
            for pending in group:
                self._apply(pending.component, pending.data)
                if not pending.done.done():
                    pending.done.set_result(None)

    async def _next_group(self) -> list[_Pending]:
        while not self._queue:
            self._wake.clear()
            await self._wake.wait()
        group = [self._queue.popleft()]
        size = len(group[0].data)
        while self._queue and size + len(self._queue[0].data) <= _GROUP_BYTES:
            group.append(self._queue.popleft())
            size += len(group[-1].data)
        return group

    async def _write(self, group: list[_Pending]) -> None:
        """Returns once `group` is durable, reopening the topic as often as that takes."""
        try:
            while True:
                try:
                    await self._opened.append(*((item.component, item.data) for item in group))
                except WalError as error:
                    await self._reopen(error)
                else:
                    return
        except BaseException:
            self._queue.extendleft(reversed(group))  # `end` tells their callers
            raise

    async def _snapshot(self) -> None:
        """Replaces the topic's content; nothing is in flight, so all there is is applied."""
        parts = {name: part.dump() for name, part in self._components.items()}
        try:
            async with asyncio.timeout(self._settings.open_timeout_s):
                await self._opened.snapshot(parts)
        except (WalError, TimeoutError) as error:
            await self._reopen(error)  # the snapshot is due still
        else:
            self._deltas = 0

    async def _reopen(self, cause: BaseException) -> None:
        """Opens the topic again under the same term; waits for the backend as long as it takes.

        Raises:
            StaleTerm: another coordinator opened it.
            WalError: CHANNEL_FENCED when the backend keeps refusing this coordinator;
                UNRECOVERABLE or DATA_TRUNCATED when the topic is damaged.
        """
        backoff = Backoff(self._runtime, *self._settings.retry_s)
        error: BaseException = cause
        fenced = 0
        while True:
            if isinstance(error, WalError):
                fenced += error.code is ErrorCode.CHANNEL_FENCED
                final = isinstance(error, StaleTerm) or error.code in DAMAGE
                if final or fenced > _FENCED_OPENS:
                    raise error
            _log.warning(
                "opening the coordinator's meta topic again", topic=self._topic, error=repr(error)
            )
            await self._close_session()
            try:
                await self._open()
            except (WalError, TimeoutError) as failure:
                error = failure
                await asyncio.sleep(backoff.next())
            else:
                self.reopens += 1
                return

    async def _open(self) -> MetaState:
        """Opens the topic under the term, or under the next free one the first time."""
        async with asyncio.timeout(self._settings.open_timeout_s):
            session = self._session = await self._backend.session()
            await session.ensure_topic(self._topic)
            if self.term == 0:
                self.term = await highest_term(session, self._topic) + 1
            else:
                await find_foreign(session, self._topic, self.term, self._barriers)
            barrier = self._runtime.new_id()
            self._open_number += 1
            self._barriers.add(barrier)
            self._meta, state = await MetaLog.open(
                session,
                self._topic,
                term=self.term,
                open_number=self._open_number,
                barrier_id=barrier,
                limits=self._limits,
                own_barriers=self._barriers,
                ack_timeout_s=self._ack_timeout_s,
            )
            return state

    def _load(self, state: MetaState) -> None:
        for component, parts in state.snapshot.items():
            for data in parts:
                self._apply(component, data)
        for component, data in state.deltas:
            self._apply(component, data)
        self._deltas = len(state.deltas)

    def _apply(self, component: str, data: bytes) -> None:
        if component == _CONFIRM:
            return
        if component not in self._components:
            raise WalError(
                ErrorCode.UNRECOVERABLE,
                f"{self._topic} holds {component!r}, which this version does not know: upgrade",
            )
        self._components[component].apply(data)

    def end(self, reason: WalError) -> None:
        """Nothing is written from here on: `stopped` holds the first reason given."""
        if not self.stopped.done():
            self.stopped.set_result(reason)
        while self._queue:
            pending = self._queue.popleft()
            if not pending.done.done():
                pending.done.set_exception(self.stopped.result())

    async def _close_session(self) -> None:
        meta, session = self._meta, self._session
        self._meta = self._session = None
        try:
            async with asyncio.timeout(self._settings.close_timeout_s):
                if meta is not None:
                    await meta.close()
                if session is not None:
                    await session.close()
        except (WalError, TimeoutError) as error:
            _log.warning("closing a client failed", topic=self._topic, error=repr(error))

    @property
    def _opened(self) -> MetaLog:
        if self._meta is None:
            raise WalError(ErrorCode.ON_SHUTDOWN, f"{self._topic} is closed")
        return self._meta
