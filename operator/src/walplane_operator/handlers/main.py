"""The process `walplane-operator`. Layer: handlers.

Contract: acts only while it holds the operator's Lease; ends with exit code 1 when another process
takes it, 0 when it is asked to stop. kopf watches WALClusters and PChannels; everything it tells
becomes a key in our own queue.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import kopf
import structlog

from walplane_operator.api import names
from walplane_operator.apply.events import EventWriter
from walplane_operator.apply.kube import LEASES, ApiError, Kube, path_of
from walplane_operator.apply.objects import Applier
from walplane_operator.handlers.health import serve
from walplane_operator.handlers.leader import RENEW_S, Leader
from walplane_operator.handlers.logs import configure_logging
from walplane_operator.handlers.metrics import Metrics
from walplane_operator.handlers.reconcile import ClusterKey, Reconciler, Tools
from walplane_operator.handlers.settings import Settings
from walplane_operator.handlers.triggers import KopfTriggers, LeaseTriggers, WorkloadTriggers
from walplane_operator.handlers.watching import Watcher
from walplane_operator.handlers.work import WorkQueue
from walplane_operator.plan.sessions import SessionMonitor

_log = structlog.get_logger(__name__)

_KOPF_IDENTITY: Any = "walplane-operator"
_SUSPECT_S = 0.5
_LOOK_S = 0.05
_LEADER_STALE_S = 60.0
_WORKLOADS = (("v1", "Pod"), ("apps/v1", "StatefulSet"), ("apps/v1", "Deployment"))


class AnotherLeadsError(Exception):
    """Another operator holds the Lease: this process has nothing to do any more."""


class _Backoffs:
    """Endless, at most two seconds apart: kopf's own give up after a minute."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.2, 0.5, 1.0)
        while True:
            yield 2.0


class Operator:
    """The parts of one process."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        """Puts them together; nothing runs yet."""
        self._settings = settings
        self._kube = kube
        self.metrics = Metrics()
        identity = settings.identity or f"{socket.gethostname()}_{os.urandom(4).hex()}"
        self.leader = Leader(kube, settings.namespace, identity, settings.lease_seconds)
        self._monitor = SessionMonitor()
        self._events = EventWriter(kube, identity)
        tools = Tools(
            kube=kube,
            monitor=self._monitor,
            metrics=self.metrics,
            events=self._events,
            applier=Applier(kube),
            image=settings.image,
            may_write=lambda: self.leader.valid,
        )
        self._reconciler = Reconciler(tools)
        work = self._reconciler.reconcile
        self._queue: WorkQueue[ClusterKey] = WorkQueue(work, settings.workers)
        self.metrics.waiting.set_function(lambda: self._queue.waiting)
        self._leases = LeaseTriggers(self._queue.poke, self._monitor, self.metrics)
        self._kopf = KopfTriggers(self._queue.poke)
        self._watchers = [self._lease_watcher(), *self._workload_watchers()]

    def sick(self) -> str:
        """What has died; empty when all is well."""
        now = asyncio.get_running_loop().time()
        if self.leader.tried is not None and now - self.leader.tried > _LEADER_STALE_S:
            return "the loop that renews the operator's Lease has stopped"
        if any(watcher.stale(now) for watcher in self._watchers):
            return "a watch has stopped"
        return "kopf's watch has stopped" if self._kopf.dead(now) else ""

    async def run(self, stop: asyncio.Event) -> None:
        """Leads until `stop` is set.

        Raises:
            AnotherLeadsError: another process leads now.
        """
        self.metrics.leading.set(1)
        async with AsyncExitStack() as rest, asyncio.TaskGroup() as tasks:
            rest.push_async_callback(self._reconciler.close)
            running = [tasks.create_task(watcher.run()) for watcher in self._watchers]
            running.append(tasks.create_task(self._queue.run(), name="queue"))
            running.append(tasks.create_task(self._events.run(), name="events"))
            running.append(tasks.create_task(self._resync(), name="resync"))
            running.append(tasks.create_task(self._suspect(), name="suspect"))
            running.append(tasks.create_task(self._keep(), name="leader"))
            await self._run_kopf(stop)
            for task in running:
                task.cancel()

    async def _keep(self) -> None:
        await self.leader.keep(lambda: self._monitor.heartbeat(RENEW_S))
        raise AnotherLeadsError

    async def _resync(self) -> None:
        """Looks at every WALCluster now and then, whatever the watches say."""
        path = path_of(names.API_VERSION, names.WALCLUSTER, None)
        while True:
            try:
                items, _ = await self._kube.list(path)
            except ApiError as error:
                _log.info("resync failed", error=str(error))
            else:
                self._kopf.listed(items)
                for raw in items:
                    self._queue.poke((raw["metadata"]["namespace"], raw["metadata"]["name"]))
            await asyncio.sleep(self._settings.resync_seconds)

    async def _suspect(self) -> None:
        """When a session falls silent, makes the watch move, once, so that it is judged at once."""
        loop = asyncio.get_running_loop()
        moved: float | None = None
        while True:
            when = self._monitor.next_expiry()
            due = _SUSPECT_S if when is None else when - loop.time()
            if due <= 0 and when != moved:
                moved = when
                self.leader.renew_now()
            await asyncio.sleep(min(max(due, _LOOK_S), _SUSPECT_S))

    def _lease_watcher(self) -> Watcher:
        path = path_of(LEASES, "Lease", None)
        return Watcher(self._kube, path, names.LABEL_LEASE, self._leases.listeners)

    def _workload_watchers(self) -> list[Watcher]:
        selector = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
        return [
            Watcher(
                self._kube,
                path_of(version, kind, None),
                selector,
                WorkloadTriggers(self._queue.poke, kind, self.metrics).listeners,
            )
            for version, kind in _WORKLOADS
        ]

    async def _run_kopf(self, stop: asyncio.Event) -> None:
        registry = kopf.OperatorRegistry()
        _register(registry, self._kopf)
        await kopf.operator(
            registry=registry,
            clusterwide=True,
            standalone=True,
            # else it asks for the name of a user that a container need not have
            identity=_KOPF_IDENTITY,
            stop_flag=stop,
        )


def _register(registry: kopf.OperatorRegistry, triggers: KopfTriggers) -> None:
    """The only handlers there are: startup and events."""

    @kopf.on.startup(registry=registry)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:  # noqa: ANN401
        settings.scanning.disabled = True
        settings.posting.enabled = False
        settings.networking.error_backoffs = _Backoffs()
        settings.watching.server_timeout = 50
        settings.watching.client_timeout = 60
        settings.watching.connect_timeout = 5

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:  # noqa: ANN401
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(names.GROUP, names.VERSION, "walclusters", registry=registry)
    async def walcluster(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: ANN401
        triggers.told(names.WALCLUSTER, type, dict(body))

    @kopf.on.event(names.GROUP, names.VERSION, "pchannels", registry=registry)
    async def pchannel(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: ANN401
        triggers.told(names.PCHANNEL, type, dict(body))


async def _main(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(Kube.connect())
        operator = Operator(settings, kube)
        await stack.enter_async_context(serve(settings.listen, operator.sick, operator.metrics))
        if not await _acquired(operator.leader, stop):
            return 0
        stack.push_async_callback(operator.leader.resign)
        try:
            await operator.run(stop)
        except* AnotherLeadsError:
            return_code = 1
        else:
            return_code = 0
    return return_code


async def _acquired(leader: Leader, stop: asyncio.Event) -> bool:
    """Waits for the Lease; False when asked to stop first."""
    acquiring = asyncio.create_task(leader.acquire(), name="acquire")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({acquiring, stopping}, return_when=asyncio.FIRST_COMPLETED)
    for task in (acquiring, stopping):
        task.cancel()
    await asyncio.gather(acquiring, stopping, return_exceptions=True)
    return not stop.is_set()


def main() -> int:
    """The console script; returns the exit code."""
    settings = Settings()
    configure_logging()
    return asyncio.run(_main(settings))
