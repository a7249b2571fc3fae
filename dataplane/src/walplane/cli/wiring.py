"""The parts of a standalone cluster put together in one process. Layer: cli.

Contract: `run_standalone` serves coordinator and node on one port until it is asked to stop, then
drains: appends in flight are answered, logs closed with a checkpoint, calls under way finished.
Damage found while it starts ends it; once it is ready, a PChannel that fails is taken from service
alone, and the coordinator keeps trying.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog

from walplane.backends.interface import Backend
from walplane.backends.registry import open_backend
from walplane.channel import pchannel_of
from walplane.cli import failpoints
from walplane.cli.errors import CommandError
from walplane.cli.metrics import serving_metrics
from walplane.cli.options import RETENTION_S
from walplane.cli.segment_wiring import segments_in
from walplane.coord.coord import SERVICE_NAMES, Coord
from walplane.coord.metrics import CoordCollector
from walplane.node.config import NodeConfig
from walplane.node.memory import memory_share
from walplane.node.metrics import NodeCollector
from walplane.node.server import AddToServer, RpcServer, start_server
from walplane.node.service import SERVICE_NAME, StreamingNodeService
from walplane.node.streaming_node import StreamingNode
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import coord_pb2, log_pb2
from walplane.runtime import Runtime, keep_what_is_there
from walplane.wal.config import WALConfig
from walplane.wal.ports import AppendResult

_log = structlog.get_logger(__name__)

DRAIN_TIMEOUT_S = 20.0
_GRACE_S = 2.0
_DAMAGE = {ErrorCode.UNRECOVERABLE, ErrorCode.DATA_TRUNCATED}


@dataclass(frozen=True)
class StandaloneOptions:
    """What `walplane standalone` was told.

    Attributes:
        data: directory of everything local; made when missing.
        listen: host:port.
        advertise: host:port that clients are told; port 0 = the one that was free.
        pchannels: how many; None = as many as there are, or the default for a new cluster.
        prefix: of the PChannels' names.
        backend: URL of the backend.
        segment_store: URL or directory where segments go; empty = nowhere.
        retention_s: how long what is stored there stays in the log as well.
        metrics: host:port where metrics are served; None: nowhere.
    """

    data: Path
    listen: str
    advertise: str
    pchannels: int | None
    prefix: str
    backend: str
    segment_store: str = ""
    retention_s: float = RETENTION_S
    metrics: str | None = None


OnReady = Callable[[str, int], None]
"""Told the address for clients and the number of PChannels, once all are served."""


class _OwnNode:
    """The node as the coordinator sees it: grants PChannels to it, appends through it."""

    def __init__(self, node: StreamingNode, address: str) -> None:
        self._node = node
        self.address = address
        self.damage: asyncio.Future[WalError] = asyncio.get_running_loop().create_future()

    @property
    def node_id(self) -> str:
        return self._node.node_id

    async def assign(self, pchannel: str, term: int) -> None:
        try:
            await self._node.assign(pchannel, term)
        except WalError as error:
            if error.code in _DAMAGE and not self.damage.done():
                self.damage.set_result(error)
            raise

    async def release(self, pchannel: str, term: int) -> None:
        await self._node.release(pchannel, term)

    async def append(self, entry: log_pb2.Entry) -> AppendResult:
        return await self._node.wal(pchannel_of(entry.envelope.vchannel)).append(entry)


async def run_standalone(
    options: StandaloneOptions, stop: asyncio.Event, on_ready: OnReady
) -> None:
    """Runs a cluster until `stop` is set.

    Raises:
        CommandError: the data directory is in use, or draining took too long.
        WalError: it cannot start, or can go on no more.
    """
    failure: WalError | None = None
    with _only_process(options.data):
        try:
            async with AsyncExitStack() as taken:
                coord, own, server = await _start(options, taken)
                try:
                    await _serve(coord, own, server, stop, on_ready)
                except WalError as error:
                    failure = error
                    raise
                await _drain(taken)
        except WalError as error:
            if failure is None or failure is error:
                raise
            raise failure from error  # closing after a failure fails too: the first one tells why


async def _start(
    options: StandaloneOptions, taken: AsyncExitStack
) -> tuple[Coord, _OwnNode, RpcServer]:
    """Puts the parts together; `taken` gets what ends them, the last one first."""
    opened = await open_backend(options.backend)
    backend = failpoints.with_failpoint(opened, os.environ.get(failpoints.VARIABLE))
    taken.push_async_callback(backend.close)
    runtime = Runtime.system()
    coord = await taken.enter_async_context(
        Coord.open(backend, options.prefix, runtime, pchannel_count=options.pchannels)
    )
    node = _node(options, backend, coord, runtime)
    taken.push_async_callback(node.close)
    server = await _listen(options.listen, coord, node)
    taken.push_async_callback(server.stop, _GRACE_S)
    collectors = [NodeCollector(node, runtime), CoordCollector(lambda: coord)]
    await taken.enter_async_context(serving_metrics(options.metrics, collectors))
    host, _, port = options.advertise.rpartition(":")
    own = _OwnNode(node, f"{host}:{server.port}" if int(port) == 0 else options.advertise)
    await taken.enter_async_context(coord.serving(own, own))
    return coord, own, server


def _node(
    options: StandaloneOptions, backend: Backend, coord: Coord, runtime: Runtime
) -> StreamingNode:
    config = NodeConfig(wal=WALConfig(retention_s=options.retention_s))
    return StreamingNode(
        f"standalone-{runtime.new_id(4).hex()}",
        backend,
        coord.oracle,
        coord.channels,
        runtime,
        config,
        on_channel_lost=coord.channels.report_stopped,
        memory=memory_share,
        segments=segments_in(options.segment_store, config),
    )


async def _listen(address: str, coord: Coord, node: StreamingNode) -> RpcServer:
    services: dict[str, AddToServer] = {SERVICE_NAME: StreamingNodeService(node).add_to}
    # one call registers all of the coordinator's services; each is named for health and reflection
    services |= {name: _nothing for name in SERVICE_NAMES}
    services[SERVICE_NAMES[0]] = coord.add_to
    return await start_server(address, services)


def _nothing(_server: grpc.aio.Server) -> None:
    """Registers nothing: the service came with another."""


async def _serve(
    coord: Coord,
    own: _OwnNode,
    server: RpcServer,
    stop: asyncio.Event,
    on_ready: OnReady,
) -> None:
    """Returns when it is asked to stop."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    ready = asyncio.create_task(_all_assigned(coord), name="ready")
    ends: set[asyncio.Future[Any]] = {stopping, coord.stopped}
    try:
        await asyncio.wait({*ends, ready, own.damage}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            keep_what_is_there()
            on_ready(own.address, ready.result())
            for service in ("", SERVICE_NAME, *SERVICE_NAMES):
                await server.set_serving(service, True)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        elif own.damage.done():
            raise own.damage.result()
        if coord.stopped.done():
            raise coord.stopped.result()
    finally:
        stopping.cancel()
        ready.cancel()


async def _all_assigned(coord: Coord) -> int:
    """Waits until every PChannel is served; returns how many there are."""
    async for snapshot in coord.discovery.snapshots():
        states = [each.state for each in snapshot.assignments]
        if all(state == coord_pb2.CHANNEL_STATE_ASSIGNED for state in states):
            return len(states)
    raise CommandError("the coordinator ended before it was ready")


async def _drain(taken: AsyncExitStack) -> None:
    """Closes everything in good order, within a bound."""
    _log.info("draining")
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            await taken.aclose()
    except TimeoutError as error:
        raise CommandError(
            f"not drained within {DRAIN_TIMEOUT_S:g} s: nothing acknowledged is lost, the next "
            "start replays more"
        ) from error
    _log.info("drained")


@contextmanager
def _only_process(data: Path) -> Iterator[None]:
    """Holds the data directory; the kernel lets go of it however this process ends.

    Raises:
        CommandError: another process has it, or it cannot be made.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data / "process", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CommandError(f"data directory {data} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise CommandError(
                f"data directory {data} is in use by process {owner}: stop it first, or choose "
                "another --data"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
