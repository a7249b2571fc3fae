"""One StreamingNode as a process of the simulation. Layer: testkit.

Contract: the node, its gRPC services and its oracle's client are the product's own. Around them is
what the wiring has in Kubernetes, made small: a session that is renewed, grants that are carried
out, reports of what became of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from walplane.node.config import NodeConfig
from walplane.node.remote_oracle import RemoteOracle
from walplane.node.service import StreamingNodeService
from walplane.node.streaming_node import StreamingNode
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.sim.backend import Broker, SimBackend
from walplane.testkit.sim.grpc_client import SimChannel
from walplane.testkit.sim.grpc_server import SimServer
from walplane.testkit.sim.leases import Leases
from walplane.testkit.sim.network import Network
from walplane.testkit.sim.objects import Objects
from walplane.testkit.sim.process import Process
from walplane.testkit.sim.trace import Trace
from walplane.wal.wal import WAL

COORD = "coord:7650"
_RETRY_S = 0.2


class NodeProcess:
    """A node from its start to its kill.

    Attributes:
        process: what can be killed and stopped.
        address: where clients reach it.
        node: the real one.
    """

    node: StreamingNode

    def __init__(
        self,
        process: Process,
        network: Network,
        broker: Broker,
        leases: Leases,
        config: NodeConfig,
        max_record_bytes: int,
        trace: Trace,
        wal: type[WAL],
        store: Objects | None,
    ) -> None:
        """Starts it; `wal` opens its logs, whose segments go to `store`."""
        self.process = process
        self.address = f"{process.host}:7650"
        self._network = network
        self._leases = leases
        self._config = config
        self._trace = trace
        self._wal = wal
        self._segments = None if store is None else store.deps(process)
        self._renewed = float("-inf")
        self._backend = SimBackend(broker, process, max_record_bytes)
        process.start(self._run())

    @property
    def wals(self) -> list[WAL]:
        """The logs it holds."""
        held = (channel.held for channel in self.node._channels.values())
        return [edge.wal for edge in held if edge is not None]

    # --- told by the assigner, in this process ---------------------------------------------------

    def granted(self, pchannel: str, term: int) -> None:
        """See `Holder`."""
        self.process.start(self._open(pchannel, term), f"follow {pchannel} {term}")

    def taken(self, pchannel: str, term: int) -> None:
        """See `Holder`."""
        channel = self.node._channels.get(pchannel)
        if channel is not None and channel.seen < term:
            self.node.stop(
                pchannel,
                WalError(ErrorCode.CHANNEL_FENCED, f"{pchannel} was granted under term {term}"),
            )

    def asked_back(self, pchannel: str, term: int) -> None:
        """See `Holder`."""
        self.process.start(self._give_back(pchannel, term), f"release {pchannel} {term}")

    # --- what it does ----------------------------------------------------------------------------

    async def _run(self) -> None:
        runtime = self.process.runtime
        connect = partial(SimChannel, self._network, self.process)
        self.node = StreamingNode(
            self.process.name,
            self._backend,
            RemoteOracle(COORD, connect=connect),
            self,
            runtime,
            self._config,
            on_channel_lost=self._lost,
            open_wal=self._open_wal,
            may_tick_idle=lambda: runtime.monotonic() < self._renewed + self._leases.lease_s,
            segments=self._segments,
        )
        server = SimServer(self._network)
        StreamingNodeService(self.node).add_to(server)  # type: ignore[arg-type]
        self._network.listeners[self.address] = (self.process, server)
        while True:
            began = runtime.monotonic()
            try:
                await self._leases.call(self.process, lambda: self._leases.renew(self))
                self._renewed = began
            except WalError:
                continue
            await asyncio.sleep(self._leases.lease_s / 3)

    async def current_term(self, pchannel: str) -> int:
        """See `TermAuthority`."""
        return await self._leases.term_of(self.process, pchannel)

    async def _open_wal(self, pchannel: str, term: int) -> WAL:
        began = asyncio.get_running_loop().time()
        wal = await self._wal.open(pchannel, term, self.node._deps, self._config.wal)
        self._trace.opened(pchannel, term, self.process.name, began)
        return wal

    async def _open(self, pchannel: str, term: int) -> None:
        try:
            await self.node.assign(pchannel, term)
        except WalError as error:
            if error.code is not ErrorCode.IGNORED_OPERATION:
                await self._report(partial(self._leases.failed, pchannel, term, error))
        else:
            await self._report(partial(self._leases.confirmed, pchannel, term))

    async def _give_back(self, pchannel: str, term: int) -> None:
        await self.node.release(pchannel, term)
        await self._report(partial(self._leases.released, pchannel, term))

    def _lost(self, pchannel: str, term: int, error: WalError) -> None:
        report = partial(self._leases.failed, pchannel, term, error)
        self.process.start(self._report(report), f"lost {pchannel} {term}")

    async def _report(self, action: Callable[[], None]) -> None:
        while True:
            try:
                await self._leases.call(self.process, action)
            except WalError:
                await asyncio.sleep(_RETRY_S)
            else:
                return
