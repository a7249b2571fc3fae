"""The parts of one StreamingNode process put together. Layer: cli.

Contract (docs/kubernetes.md): the node lives by its session Lease and opens what PChannel Leases
grant to it. Asked to stop, it says so and serves on until the operator has taken everything away,
or its time is up; then it closes its logs in good order, gives back what it holds, and deletes its
session Lease. When its session belongs to another process it ends at once, writing nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from walplane.backends.claims import ClaimedBackend, claimed
from walplane.backends.interface import Backend
from walplane.cli.metrics import serving_metrics
from walplane.cli.pods import GRACE_S, Pod, backend_when_there, end_session, unless, within
from walplane.lease import contract
from walplane.lease.authority import LeaseAuthority
from walplane.lease.contract import PChannelLease
from walplane.lease.decide import Mode
from walplane.lease.follower import Follower
from walplane.lease.kube import KubeLeases
from walplane.lease.metrics import SessionCollector
from walplane.lease.session import Session
from walplane.lease.watch import LeaseWatch
from walplane.node.config import NodeConfig
from walplane.node.memory import memory_limit, memory_share
from walplane.node.metrics import NodeCollector
from walplane.node.remote_oracle import RemoteOracle
from walplane.node.reporting import node_report
from walplane.node.segment_store import segments_in
from walplane.node.server import RpcServer, start_server
from walplane.node.service import SERVICE_NAME, StreamingNodeService
from walplane.node.streaming_node import StreamingNode
from walplane.rpc.errors import WalError
from walplane.runtime import Runtime, keep_what_is_there
from walplane.wal.config import RETENTION_S, WALConfig

_log = structlog.get_logger(__name__)

_RESERVED_S = 10.0  # of the grace period, for closing what is still held
_LEAVE_S = 7.0
_LEASES_REFUSED = 2  # so many durations without the right to renew: nobody takes anything away


@dataclass(frozen=True)
class NodeOptions:
    """What `walplane node` was told.

    Attributes:
        pod: who this is.
        backend: URL of the backend.
        coord: host:port of the coordinator.
        grace_s: between SIGTERM and SIGKILL.
        segment_store: URL or directory where segments go; empty = nowhere.
        retention_s: how long what is stored there stays in the log as well.
        metrics: host:port where metrics are served; None: nowhere.
    """

    pod: Pod
    backend: str
    coord: str
    grace_s: float
    segment_store: str = ""
    retention_s: float = RETENTION_S
    metrics: str | None = None


def config_of(options: NodeOptions) -> NodeConfig:
    """What a node in this container is set to."""
    wal = WALConfig(stall_limit_s=options.pod.lease_s / 2, retention_s=options.retention_s)
    return NodeConfig(wal=wal).within(memory_limit())


async def run_node(options: NodeOptions, stop: asyncio.Event) -> None:
    """Runs a node until `stop` is set and it has nothing left.

    Raises:
        WalError: it cannot start, or another process has its session.
    """
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        async with AsyncExitStack() as taken:
            async with _waiting(options):
                there = backend_when_there(options.backend, lambda _: None)
                if (backend := await unless(there, stopping)) is not None:
                    taken.push_async_callback(backend.close)
            if backend is not None:
                await _Process(options, backend).run(taken, stopping)
    finally:
        stopping.cancel()


@asynccontextmanager
async def _waiting(options: NodeOptions) -> AsyncIterator[None]:
    """Answers that the process lives and serves nothing, or it would be killed for its silence."""
    server = await start_server(options.pod.listen, {})
    try:
        async with serving_metrics(options.metrics, []):
            yield
    finally:
        await server.stop(0)


class _Process:
    """One node and what surrounds it."""

    def __init__(self, options: NodeOptions, backend: Backend) -> None:
        self._options = options
        self._pod = options.pod
        self._me = str(options.pod.identity)
        self._backend = claimed(backend, options.pod.owner)
        self._runtime = Runtime.system()

    async def run(self, taken: AsyncExitStack, stopping: asyncio.Future[Any]) -> None:
        pod, runtime = self._pod, self._runtime
        store = await taken.enter_async_context(
            KubeLeases.connect(pod.namespace, pod.call_timeout_s)
        )
        self._oracle = RemoteOracle(self._options.coord)
        taken.push_async_callback(self._oracle.close)
        self._session = Session(
            *(store, pod.identity, pod.cluster, contract.NODE, pod.lease_s, runtime),
            lambda: node_report(self._node, self._follower, pod.advertise),
        )
        config = config_of(self._options)
        self._node = StreamingNode(
            pod.identity.pod,
            self._backend,
            self._oracle,
            LeaseAuthority(store, pod.cluster, self._me),
            runtime,
            config,
            on_channel_lost=lambda *what: self._follower.lost(*what),
            may_tick_idle=lambda: self._session.live,
            memory=memory_share,
            segments=segments_in(self._options.segment_store, config),
        )
        taken.push_async_callback(self._node.close)
        self._follower = Follower(
            *(store, self._node, self._me, runtime),
            may_open=self._may_open,
            reported=self._reported,
            on_change=self._session.changed,
        )
        selector = contract.selector(pod.cluster, contract.PCHANNEL)
        watch = LeaseWatch(store, selector, runtime, self._follower.observe)
        server = await start_server(
            pod.listen, {SERVICE_NAME: StreamingNodeService(self._node).add_to}
        )
        taken.push_async_callback(server.stop, GRACE_S)
        collectors = [NodeCollector(self._node, runtime), SessionCollector(self._session)]
        await taken.enter_async_context(serving_metrics(self._options.metrics, collectors))
        await self._live(watch, server, stopping)

    async def _live(
        self, watch: LeaseWatch, server: RpcServer, stopping: asyncio.Future[Any]
    ) -> None:
        _log.info("node", session=self._me, address=self._pod.advertise)
        work = asyncio.create_task(self._work(watch), name="leases")
        ends: tuple[asyncio.Future[Any], ...] = (work, self._session.ended)
        try:
            await unless(self._serve(server), stopping, *ends)
            if stopping.done():
                await unless(self._drain(), *ends)
        finally:
            work.cancel()
            await asyncio.wait({work})
        if not work.cancelled() and (error := work.exception()) is not None:
            raise error
        if self._session.ended.done():
            await self._replaced(self._session.ended.result())
        await self._node.close()
        await end_session(self._session, self._pod)

    async def _work(self, watch: LeaseWatch) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._session.run(), name="session")
            tasks.create_task(self._follower.run(), name="follower")
            tasks.create_task(watch.run(), name="watch")

    async def _serve(self, server: RpcServer) -> None:
        await self._session.told()
        keep_what_is_there()
        for service in ("", SERVICE_NAME):
            await server.set_serving(service, True)
        await asyncio.get_running_loop().create_future()

    async def _drain(self) -> None:
        """Until nothing is held, by the operator's doing, or by its own when time is up."""
        _log.info("draining", held=len(self._follower.held))
        self._follower.set_mode(Mode.DRAINING)
        seconds = max(self._options.grace_s - _RESERVED_S, 0.0)
        patience = _LEASES_REFUSED * self._pod.lease_s
        forgotten = asyncio.ensure_future(self._session.refused(patience))
        try:
            await within(seconds, unless(self._taken_away(), forgotten), "draining")
        finally:
            forgotten.cancel()
        if self._follower.held:
            self._follower.set_mode(Mode.LEAVING)
            await within(_LEAVE_S, self._follower.none_held(), "leaving")
        _log.info("drained", held=len(self._follower.held))

    async def _taken_away(self) -> None:
        await within(self._pod.call_timeout_s, self._session.told(), "telling that it drains")
        await self._follower.none_held()

    async def _replaced(self, reason: WalError) -> None:
        """Another process is this pod now: nothing more is acknowledged or written."""
        for each in self._follower.followers:
            self._node.stop(each.pchannel, reason)
        raise reason

    async def _may_open(self, lease: PChannelLease) -> None:
        """No log is taken from anybody while no coordinator of this cluster gives ticks."""
        if isinstance(self._backend, ClaimedBackend) and lease.adopt:
            self._backend.adopted.add(lease.adopt)
        await self._oracle.answers()

    async def _reported(self) -> None:
        await within(self._pod.lease_s / 2, self._session.told(), "reporting")
