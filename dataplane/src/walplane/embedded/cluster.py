"""The parts of a cluster put together in one process. Layer: embedded.

Contract: damage found while it starts ends it; once it is ready, a PChannel that fails is taken
from service alone, and the coordinator keeps trying. Closed in good order it answers what is in
flight and leaves checkpoints.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from walplane.backends.interface import Backend
from walplane.backends.registry import open_backend
from walplane.channel import pchannel_of
from walplane.coord.coord import SERVICE_NAMES, Coord
from walplane.node.config import NodeConfig
from walplane.node.memory import memory_limit, memory_share
from walplane.node.segment_store import segments_in
from walplane.node.server import AddToServer, RpcPort, RpcServer, take_port
from walplane.node.service import SERVICE_NAME, StreamingNodeService
from walplane.node.streaming_node import StreamingNode
from walplane.rpc.errors import DAMAGE, ErrorCode, WalError
from walplane.rpc.v1 import coord_pb2, log_pb2
from walplane.runtime import Runtime
from walplane.wal.config import RETENTION_S, WALConfig
from walplane.wal.ports import AppendResult
from walplane.wal.recovery.segments.storing import SegmentDeps

_log = structlog.get_logger(__name__)

DRAIN_TIMEOUT_S = 20.0
_GRACE_S = 2.0


@dataclass(frozen=True)
class ClusterOptions:
    """What a cluster in one process is made of.

    Attributes:
        listen: host:port.
        advertise: host:port that clients are told; port 0 = the one that was free.
        pchannels: how many; None = as many as there are, or the default for a new cluster.
        prefix: of the PChannels' names.
        backend: URL of the backend.
        segment_store: URL or directory where segments go; empty = nowhere.
        retention_s: how long what is stored there stays in the log as well.
    """

    listen: str
    advertise: str
    pchannels: int | None
    prefix: str
    backend: str
    segment_store: str = ""
    retention_s: float = RETENTION_S


class OwnNode:
    """The node as the coordinator sees it: grants PChannels to it, appends through it.

    Attributes:
        address: of the process.
        damage: done with the first damage that was found in a log.
    """

    def __init__(self, node: StreamingNode, address: str) -> None:
        """Speaks for `node`."""
        self._node = node
        self.address = address
        self.damage: asyncio.Future[WalError] = asyncio.get_running_loop().create_future()

    @property
    def node_id(self) -> str:
        """The node's."""
        return self._node.node_id

    async def assign(self, pchannel: str, term: int) -> None:
        """Opens a PChannel under `term`."""
        try:
            await self._node.assign(pchannel, term)
        except WalError as error:
            if error.code in DAMAGE and not self.damage.done():
                self.damage.set_result(error)
            raise

    async def release(self, pchannel: str, term: int) -> None:
        """Closes it."""
        await self._node.release(pchannel, term)

    async def append(self, entry: log_pb2.Entry) -> AppendResult:
        """Appends an entry of the coordinator's."""
        return await self._node.wal(pchannel_of(entry.envelope.vchannel)).append(entry)


@dataclass(frozen=True)
class Cluster:
    """What runs, once started; see `start_cluster`."""

    coord: Coord
    node: StreamingNode
    server: RpcServer
    own: OwnNode
    runtime: Runtime

    @property
    def address(self) -> str:
        """What clients connect to."""
        return self.own.address

    async def served(self) -> int:
        """Returns how many PChannels there are, once all of them are served.

        Raises:
            WalError: damage, or what ended the coordinator.
        """
        ready = asyncio.create_task(self._all_assigned(), name="ready")
        coord, damage = self.coord, self.own.damage
        signals: set[asyncio.Future[Any]] = {ready, damage, coord.stopped}
        try:
            await asyncio.wait(signals, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                return ready.result()
            raise damage.result() if damage.done() else coord.stopped.result()
        finally:
            ready.cancel()

    async def say_serving(self) -> None:
        """Lets health checks know."""
        for service in ("", SERVICE_NAME, *SERVICE_NAMES):
            await self.server.set_serving(service, True)

    async def _all_assigned(self) -> int:
        async for snapshot in self.coord.discovery.snapshots():
            states = [each.state for each in snapshot.assignments]
            if all(state == coord_pb2.CHANNEL_STATE_ASSIGNED for state in states):
                return len(states)
        raise WalError(ErrorCode.ON_SHUTDOWN, "the coordinator ended before it was ready")


async def start_cluster(
    options: ClusterOptions,
    taken: AsyncExitStack,
    wrap: Callable[[Backend], Backend] = lambda backend: backend,
) -> Cluster:
    """Puts the parts together; not every PChannel is served yet.

    The segment store and the port are had before the backend is opened, so that a start that fails
    for them makes no log.

    Args:
        options: of what.
        taken: gets what ends the parts, the last one first; also when this raises.
        wrap: makes the backend that is used of the one that was opened.

    Raises:
        WalError: it cannot start.
    """
    config = NodeConfig(wal=WALConfig(retention_s=options.retention_s)).within(memory_limit())
    segments = segments_in(options.segment_store, config)
    port = take_port(options.listen)
    taken.push_async_callback(port.close)
    backend = wrap(await open_backend(options.backend))
    taken.push_async_callback(backend.close)
    runtime = Runtime.system()
    coord = await taken.enter_async_context(
        Coord.open(backend, options.prefix, runtime, pchannel_count=options.pchannels)
    )
    node = _node(backend, coord, runtime, config, segments)
    taken.push_async_callback(node.close)
    server = await _serve(port, coord, node)
    taken.push_async_callback(server.stop, _GRACE_S)
    own = OwnNode(node, _advertised(options.advertise, server.port))
    await taken.enter_async_context(coord.serving(own, own))
    return Cluster(coord, node, server, own, runtime)


@asynccontextmanager
async def drained() -> AsyncIterator[AsyncExitStack]:
    """What a cluster takes, closed in good order behind the block, within a bound.

    Raises:
        WalError: INNER when that took too long. After a block that failed, its own error: closing
            fails then too, and the first one tells why.
    """
    taken = AsyncExitStack()
    try:
        yield taken
    except BaseException as failure:
        try:
            await _drain(taken, failure)
        except WalError as error:
            raise failure from (None if error is failure else error)
        raise
    await _drain(taken, None)


async def _drain(taken: AsyncExitStack, failure: BaseException | None) -> None:
    """Closes everything in good order, after a block that failed as well."""
    _log.info("draining")
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            if failure is None:
                await taken.aclose()
            else:
                await taken.__aexit__(type(failure), failure, failure.__traceback__)
    except TimeoutError as error:
        raise WalError(
            ErrorCode.INNER,
            f"not drained within {DRAIN_TIMEOUT_S:g} s: nothing acknowledged is lost, the next "
            "start replays more",
        ) from error
    _log.info("drained")


def _advertised(address: str, listening: int) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{listening}" if int(port) == 0 else address


def _node(
    backend: Backend,
    coord: Coord,
    runtime: Runtime,
    config: NodeConfig,
    segments: SegmentDeps | None,
) -> StreamingNode:
    return StreamingNode(
        f"standalone-{runtime.new_id(4).hex()}",
        backend,
        coord.oracle,
        coord.channels,
        runtime,
        config,
        on_channel_lost=coord.channels.report_stopped,
        memory=memory_share,
        segments=segments,
    )


async def _serve(port: RpcPort, coord: Coord, node: StreamingNode) -> RpcServer:
    services: dict[str, AddToServer] = {SERVICE_NAME: StreamingNodeService(node).add_to}
    # one call registers all of the coordinator's services; each is named for health and reflection
    services |= {name: _nothing for name in SERVICE_NAMES}
    services[SERVICE_NAMES[0]] = coord.add_to
    return await port.serve(services)


def _nothing(_server: grpc.aio.Server) -> None:
    """Registers nothing: the service came with another."""
