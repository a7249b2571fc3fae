"""The parts of one coordinator process put together. Layer: cli.

Contract (docs/kubernetes.md): several run, the holder of the coordinator's Lease leads. It opens
the coordinator's meta topic and serves; the others answer that they stand by. A leader whose topic
cannot be opened says why, lets go of the Lease and tries again. One that loses the Lease, or its
topic, ends, so that no connection outlives its lead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from walplane.backends.claims import claimed
from walplane.backends.interface import Backend
from walplane.cli.metrics import serving_metrics
from walplane.cli.pods import GRACE_S, Pod, backend_when_there, end_session, unless, within
from walplane.coord.coord import SERVICE_NAMES, Coord
from walplane.coord.lease_view import LeaseView
from walplane.coord.metrics import CoordCollector
from walplane.coord.node_appender import NodeAppender
from walplane.coord.standby import STANDBY_OPTIONS, add_standby
from walplane.lease import contract
from walplane.lease.contract import Body
from walplane.lease.kube import KubeLeases
from walplane.lease.leader import Leadership
from walplane.lease.metrics import SessionCollector
from walplane.lease.report import (
    BACKEND_UNREACHABLE,
    CLAIMED,
    DATA_LOSS,
    OPEN_FAILED,
    CoordReport,
    reason_of,
)
from walplane.lease.session import Session
from walplane.lease.watch import LeaseWatch
from walplane.node.server import AddToServer, start_server
from walplane.rpc.errors import WalError
from walplane.runtime import Runtime

_log = structlog.get_logger(__name__)

_PAUSE_S = (1.0, 10.0)
_UNREACHABLE = "Unreachable"


@dataclass(frozen=True)
class CoordOptions:
    """What `walplane coord` was told.

    Attributes:
        pod: who this is.
        backend: URL of the backend.
        prefix: of the PChannels' names.
        pchannels: how many; None = as many as there are, or the default for a new cluster.
        adopt: uid of the WALCluster whose topics may be taken over; empty for none.
        metrics: host:port where metrics are served; None: nowhere.
    """

    pod: Pod
    backend: str
    prefix: str
    pchannels: int | None
    adopt: str
    metrics: str | None = None


async def run_coord(options: CoordOptions, stop: asyncio.Event) -> None:
    """Runs a coordinator until `stop` is set.

    Raises:
        WalError: it cannot start, another process has its session, or it leads no more.
    """
    pod = options.pod
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        async with KubeLeases.connect(pod.namespace, pod.call_timeout_s) as store:
            process = _Process(options, store)
            async with serving_metrics(options.metrics, process.collectors):
                await process.run(stopping)
    finally:
        stopping.cancel()


class _Process:
    """One coordinator and what surrounds it."""

    def __init__(self, options: CoordOptions, store: KubeLeases) -> None:
        pod = options.pod
        self._options = options
        self._pod = pod
        self._store = store
        self._runtime = Runtime.system()
        self._leading = self._draining = False
        self._reason = self._message = ""
        self._coord: Coord | None = None
        self._grown = asyncio.Event()
        self._view = LeaseView(options.prefix, self._on_view, lambda: self._session.changed())
        self._session = Session(
            *(store, pod.identity, pod.cluster, contract.COORD, pod.lease_s, self._runtime),
            self._report,
        )
        self.collectors = [CoordCollector(lambda: self._coord), SessionCollector(self._session)]
        self._watch = LeaseWatch(
            *(store, contract.selector(pod.cluster), self._runtime, self._observe),
            on_live=lambda live: self._leadership.set_live(live),
        )
        self._leadership = Leadership(
            *(store, pod.identity, pod.cluster, pod.lease_s, self._runtime),
            ended=lambda holder: self._watch.live and self._view.ended(holder),
            owner=_owner(pod),
        )

    async def run(self, stopping: asyncio.Future[Any]) -> None:
        _log.info("coordinator", session=str(self._pod.identity), address=self._pod.advertise)
        stopping.add_done_callback(self._drain)
        work = asyncio.create_task(self._work(), name="leases")
        ends: tuple[asyncio.Future[Any], ...] = (work, self._session.ended)
        try:
            await unless(self._campaign(), stopping, *ends)
        finally:
            work.cancel()
            await asyncio.wait({work})
        if not work.cancelled() and (error := work.exception()) is not None:
            raise error
        if self._session.ended.done():
            raise self._session.ended.result()
        await end_session(self._session, self._pod)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._session.run(), name="session")
            tasks.create_task(self._watch.run(), name="watch")

    # --- leading ---------------------------------------------------------------------------------

    async def _campaign(self) -> None:
        """Stands by, then leads until it cannot any more.

        Raises:
            WalError: why it leads no more.
        """
        async with AsyncExitStack() as taken:
            async with self._standing_by():
                options = self._options
                backend = await backend_when_there(options.backend, self._note, patient=True)
                taken.push_async_callback(backend.close)
                await self._watch.synced.wait()
                owned = claimed(backend, self._pod.owner, options.adopt)
                coord = await self._take_over(owned, taken)
            appender = NodeAppender(self._view)
            taken.push_async_callback(appender.close)
            await taken.enter_async_context(coord.changing(appender))
            await self._lead(coord, taken)

    async def _take_over(self, backend: Backend, taken: AsyncExitStack) -> Coord:
        """The coordinator's parts, open, by the holder of the Lease; tries until it has both."""
        pause, most = _PAUSE_S
        while True:
            async with AsyncExitStack() as attempt:
                await self._leadership.acquire()
                attempt.push_async_callback(self._let_go)
                await attempt.enter_async_context(_running(self._leadership.keep()))
                opening = attempt.enter_async_context(self._open(backend))
                try:
                    coord = await unless(opening, self._leadership.lost)
                except (WalError, TimeoutError) as error:
                    self._note(error)
                else:
                    if coord is None:
                        raise self._leadership.lost.result()
                    taken.push_async_exit(attempt.pop_all())
                    return coord
            await asyncio.sleep(pause)
            pause = min(pause * 2, most)

    def _open(self, backend: Backend) -> AbstractAsyncContextManager[Coord]:
        options = self._options
        return Coord.open(
            backend,
            options.prefix,
            self._runtime,
            pchannel_count=options.pchannels,
            source=self._view,
        )

    async def _lead(self, coord: Coord, taken: AsyncExitStack) -> None:
        """Serves until the lead is lost.

        Raises:
            WalError: always: why.
        """
        services: dict[str, AddToServer] = {name: _nothing for name in SERVICE_NAMES}
        services[SERVICE_NAMES[0]] = coord.add_to  # one call registers them all
        server = await start_server(self._pod.listen, services)
        taken.push_async_callback(server.stop, GRACE_S)
        for service in ("", *SERVICE_NAMES):
            await server.set_serving(service, True)
        self._coord, self._leading = coord, True
        self._reason = self._message = ""
        self._session.changed()
        _log.info("leading", term=coord.term, pchannels=len(coord.pchannels))
        ends: set[asyncio.Future[WalError]] = {coord.stopped, self._leadership.lost}
        try:
            await unless(self._grow(coord), *ends)
        finally:
            self._coord, self._leading = None, False
            self._session.changed()
        raise next(end.result() for end in ends if end.done())

    async def _grow(self, coord: Coord) -> None:
        """Takes in the PChannels that were given Leases."""
        while True:
            self._grown.clear()
            await coord.grow(self._view.count())
            await self._grown.wait()

    @asynccontextmanager
    async def _standing_by(self) -> AsyncIterator[None]:
        """Answers that others lead, from when the session Lease is written."""
        server = await start_server(self._pod.listen, {"standby": add_standby}, STANDBY_OPTIONS)
        try:
            await self._session.told()
            await server.set_serving("", True)
            yield
        finally:
            await server.stop(0)

    async def _let_go(self) -> None:
        if not self._session.ended.done():
            await within(self._pod.lease_s, self._leadership.release(), "letting go")

    # --- what is seen, and what is said ----------------------------------------------------------

    def _observe(self, name: str, body: Body | None) -> None:
        self._view.observe(name, body)
        if name == contract.coord_lease_name(self._pod.cluster):
            self._leadership.observe(body)
        elif body is None:
            self._leadership.look()

    def _on_view(self) -> None:
        self._grown.set()
        if self._coord is not None:
            self._coord.discovery.changed()

    def _note(self, error: BaseException) -> None:
        """The meta topic cannot be opened."""
        known = {CLAIMED, DATA_LOSS}
        reason = reason_of(error, OPEN_FAILED)
        unreachable = isinstance(error, TimeoutError) or reason == BACKEND_UNREACHABLE
        self._reason = reason if reason in known else OPEN_FAILED
        if unreachable:
            self._reason = _UNREACHABLE
        self._message = error.message if isinstance(error, WalError) else repr(error)
        _log.warning("not leading", why=self._reason, error=self._message)
        self._session.changed()

    def _report(self) -> CoordReport:
        return CoordReport(
            draining=self._draining,
            address=self._pod.advertise,
            leading=self._leading,
            backend_reason=self._reason,
            backend_message=self._message,
            errors=self._view.errors if self._leading else {},
        )

    def _drain(self, _stopping: asyncio.Future[Any]) -> None:
        self._draining = True
        self._session.changed()


@asynccontextmanager
async def _running(job: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs `job` beside the body."""
    task = asyncio.create_task(job)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def _owner(pod: Pod) -> Body | None:
    return contract.cluster_reference(pod.cluster, pod.cluster_uid) if pod.cluster_uid else None


def _nothing(_server: grpc.aio.Server) -> None:
    """Registers nothing: the service came with another."""
