"""Changes to the catalog: made durable as PENDING, appended everywhere, applied, done.

Contract: one change at a time, in order of arrival. Once its PENDING record is durable a change
completes, crash or not: a new coordinator takes up what it finds. Each target VChannel gets the
message once: appends carry (producer `broadcast/<id>`, number 0), so that a repeat gets the first
result. Appends are retried for ever; every refusal is logged and counted. A caller that goes away
before its change has begun takes it back; after that it completes without the caller. Layer: coord.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import structlog
from opentelemetry.trace import Span

from walplane.coord.backoff import Backoff
from walplane.coord.catalog import COMPONENT, Catalog
from walplane.coord.ddl import plan_create, plan_drop
from walplane.coord.ports import DeltaLog
from walplane.coord.settings import CoordSettings
from walplane.message.registry import MessageType
from walplane.rpc.channel import ended_from_afar
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import coordmeta_pb2, log_pb2
from walplane.rpc.v1.coordmeta_pb2 import BroadcastTask, CatalogDelta, CollectionMeta
from walplane.runtime import Runtime
from walplane.tracing import Tracing, attributes_of, end, parent_of
from walplane.wal.ports import AppendResult

_log = structlog.get_logger(__name__)

_MAX_WAITING = 256


class Appender(Protocol):
    """Appends to any VChannel, wherever it is served; the wiring fills it."""

    async def append(self, entry: log_pb2.Entry) -> AppendResult:
        """Appends `entry` to the VChannel its envelope names; may stamp the entry.

        Raises:
            WalError: it was refused, or its outcome is unknown.
        """
        ...


Plan = Callable[[], CatalogDelta]
"""Checks a request when its turn comes; the delta that makes its one task PENDING."""


class _Request(NamedTuple):
    plan: Plan
    done: asyncio.Future[CollectionMeta]


class Broadcasts:
    """Makes the changes to the catalog.

    Attributes:
        refusals: appends that failed and were tried again, since the start.
    """

    def __init__(
        self,
        log: DeltaLog,
        catalog: Catalog,
        pchannels: Sequence[str],
        cchannel: str,
        term: int,
        runtime: Runtime,
        settings: CoordSettings,
        on_change: Callable[[], None],
        tracing: Tracing | None = None,
        is_served: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """Takes requests at once; makes nothing before `run`.

        `is_served` says whether a PChannel is now: new VChannels rather go where they need not
        wait.
        """
        self._log = log
        self._catalog = catalog
        self._pchannels = pchannels
        self._cchannel = cchannel
        self._term = term
        self._runtime = runtime
        self._settings = settings
        self._on_change = on_change
        self._tracing = tracing or Tracing()
        self._is_served = is_served
        self._requests: deque[_Request] = deque()
        self._asked = asyncio.Event()
        self._ended: WalError | None = None
        self.refusals = 0

    @property
    def pending(self) -> int:
        """Changes that were asked for or begun and are not done."""
        return len(self._requests) + len(self._catalog.tasks)

    async def create(self, name: str, shards: int) -> CollectionMeta:
        """Makes a collection; it can be used when this returns.

        Raises:
            WalError: INVALID_ARGUMENT for a bad name or number of shards, or when the name is
                taken; RESOURCE_ACQUIRED when too many changes wait already.
        """
        return await self._request(lambda: self._plan_create(name, shards))

    async def drop(self, name: str) -> CollectionMeta:
        """Ends the collection `name`; its name is free when this returns.

        Raises:
            WalError: INVALID_ARGUMENT when there is none; RESOURCE_ACQUIRED when too many
                changes wait already.
        """
        return await self._request(
            lambda: plan_drop(self._catalog, self._cchannel, self._term, name=name)
        )

    def _plan_create(self, name: str, shards: int) -> CatalogDelta:
        pchannels = {pchannel: self._is_served(pchannel) for pchannel in self._pchannels}
        return plan_create(
            self._catalog, pchannels, self._cchannel, self._term, name=name, shards=shards
        )

    async def run(self, appender: Appender) -> None:
        """Completes what is PENDING, then makes what is asked for, until cancelled.

        Raises:
            WalError: changes can no longer be persisted.
        """
        current: asyncio.Future[CollectionMeta] | None = None
        try:
            for task in sorted(self._catalog.tasks.values(), key=lambda task: task.broadcast_id):
                _log.info("completing an earlier coordinator's change", broadcast=task.broadcast_id)
                await self._complete(task, appender)
            while True:
                plan, current = await self._next()
                if not current.cancelled():
                    await self._make(plan, current, appender)
        finally:
            self._refuse(current)

    async def _next(self) -> _Request:
        while not self._requests:
            self._asked.clear()
            await self._asked.wait()
        return self._requests.popleft()

    async def _make(
        self, plan: Plan, done: asyncio.Future[CollectionMeta], appender: Appender
    ) -> None:
        try:
            pending = plan()
        except WalError as refusal:
            done.set_exception(refusal)
            return
        await self._persist(pending)
        collection = await self._complete(pending.tasks[0], appender)
        if not done.done():
            done.set_result(collection)

    def _refuse(self, current: asyncio.Future[CollectionMeta] | None) -> None:
        """Tells everybody who waits that nothing is made any more; `current` may have begun."""
        self._ended = WalError(
            ErrorCode.ON_SHUTDOWN, "the coordinator is shutting down: ask the next one"
        )
        for request in self._requests:
            if not request.done.done():
                request.done.set_exception(self._ended)
        self._requests.clear()
        if current is not None and not current.done():
            unknown = WalError(
                ErrorCode.OUTCOME_UNKNOWN,
                "the coordinator is shutting down: what has begun is completed by the next one",
            )
            current.set_exception(unknown)

    async def _request(self, plan: Plan) -> CollectionMeta:
        if self._ended is not None:
            raise self._ended
        if len(self._requests) >= _MAX_WAITING:
            raise WalError(
                ErrorCode.RESOURCE_ACQUIRED,
                f"{_MAX_WAITING} changes to the catalog wait already: retry later",
                retry_after_ms=1000,
            )
        request = _Request(plan, asyncio.get_running_loop().create_future())
        self._requests.append(request)
        self._asked.set()
        try:
            return await request.done
        except asyncio.CancelledError:
            if request in self._requests:  # it takes no place from those who still wait
                self._requests.remove(request)
            raise

    async def _persist(self, delta: CatalogDelta) -> None:
        await self._log.append(COMPONENT, delta.SerializeToString())
        self._on_change()

    async def _complete(self, task: BroadcastTask, appender: Appender) -> CollectionMeta:
        """Appends the message of a PENDING task everywhere, then applies it.

        Traced anew by whoever takes it up: the context is not part of what is durable.
        """
        if not self._tracing.on:
            return await self._append_all(task, appender)
        envelope = task.message.envelope
        attributes = attributes_of(envelope, MessageType(envelope.type).name)
        span = self._tracing.root("wal.broadcast", attributes)
        failure: BaseException | None = None
        try:
            return await self._append_all(_traced(task, span), appender)
        except BaseException as error:
            failure = error
            raise
        finally:
            end(span, failure)

    async def _append_all(self, task: BroadcastTask, appender: Appender) -> CollectionMeta:
        envelope = task.message.envelope
        targets = envelope.broadcast.vchannels
        async with asyncio.TaskGroup() as tasks:
            appends = {
                target: tasks.create_task(self._append(task, target, appender))
                for target in targets
            }
        results = {target: append.result() for target, append in appends.items()}
        collection = CollectionMeta()
        collection.CopyFrom(self._catalog.by_id(envelope.collection_id))
        if collection.state == coordmeta_pb2.COLLECTION_STATE_CREATING:
            collection.created_tick = results[self._cchannel].first_tick
            collection.state = coordmeta_pb2.COLLECTION_STATE_NORMAL
        else:
            collection.state = coordmeta_pb2.COLLECTION_STATE_DROPPED
        over = BroadcastTask(
            broadcast_id=task.broadcast_id, state=coordmeta_pb2.BROADCAST_STATE_TOMBSTONE
        )
        attributes = attributes_of(envelope, MessageType(envelope.type).name)
        with self._tracing.around(envelope.trace_parent, "wal.bc_callback", attributes):
            await self._persist(CatalogDelta(tasks=[over], collections=[collection]))
        return collection

    async def _append(self, task: BroadcastTask, target: str, appender: Appender) -> AppendResult:
        """Appends to one VChannel, for as long as it takes."""
        backoff = Backoff(self._runtime, *self._settings.retry_s)
        while True:
            try:
                async with asyncio.timeout(self._settings.broadcast_timeout_s):
                    return await appender.append(self._entry(task, target))
            except (Exception, asyncio.CancelledError) as error:  # the change is promised
                if isinstance(error, asyncio.CancelledError) and not ended_from_afar():
                    raise
                self.refusals += 1
                _log.warning(
                    "a broadcast's append failed and will be tried again",
                    broadcast=task.broadcast_id,
                    vchannel=target,
                    refusals=self.refusals,
                    error=repr(error),
                )
            await asyncio.sleep(backoff.next())

    def _entry(self, task: BroadcastTask, target: str) -> log_pb2.Entry:
        """A copy of the message for `target`: whoever appends stamps it."""
        entry = log_pb2.Entry()
        entry.CopyFrom(task.message)
        entry.envelope.vchannel = target
        entry.envelope.broadcast.coord_term = self._term
        producer = b"broadcast/" + str(task.broadcast_id).encode()
        entry.envelope.producer.CopyFrom(log_pb2.ProducerBatch(producer_id=producer, number=0))
        return entry


def _traced(task: BroadcastTask, span: Span | None) -> BroadcastTask:
    """A copy of `task` whose message carries the context of `span`."""
    traced = BroadcastTask()
    traced.CopyFrom(task)
    traced.message.envelope.trace_parent = parent_of(span)
    return traced
