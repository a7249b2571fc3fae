"""One coordinator as a process of the simulation. Layer: testkit.

Contract: the coordinator, its meta topic, its oracle, its catalog and its gRPC services are the
product's own; who serves what it learns from the Leases. When it ends by itself, its process ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from walplane.coord.coord import Coord
from walplane.coord.node_appender import NodeAppender
from walplane.coord.settings import CoordSettings
from walplane.rpc.errors import WalError
from walplane.testkit.sim.backend import Broker, SimBackend
from walplane.testkit.sim.grpc_client import SimChannel
from walplane.testkit.sim.grpc_server import SimServer
from walplane.testkit.sim.leases import Leases
from walplane.testkit.sim.network import Network
from walplane.testkit.sim.node import COORD
from walplane.testkit.sim.process import Process


class CoordinatorProcess:
    """A coordinator from its start to its kill.

    Attributes:
        process: what can be killed and stopped.
        coord: the real one, while it is open.
    """

    def __init__(
        self,
        process: Process,
        network: Network,
        broker: Broker,
        leases: Leases,
        prefix: str,
        pchannels: int,
        max_record_bytes: int,
        ended: Callable[[CoordinatorProcess], None],
    ) -> None:
        """Starts it; `ended` is told, in its process, when it ends by itself."""
        self.process = process
        self.coord: Coord | None = None
        self._network = network
        self._leases = leases
        self._prefix = prefix
        self._pchannels = pchannels
        self._backend = SimBackend(broker, process, max_record_bytes)
        self._ended = ended
        process.start(self._run())

    async def _run(self) -> None:
        try:
            async with Coord.open(
                self._backend,
                self._prefix,
                self.process.runtime,
                pchannel_count=self._pchannels,
                settings=CoordSettings(snapshot_deltas=50),
                source=self._leases,
            ) as coord:
                await self._serve(coord)
        except (WalError, TimeoutError):
            pass  # as a pod that exits: the next one tries again
        self.coord = None
        self._ended(self)

    async def _serve(self, coord: Coord) -> None:
        self.coord = coord
        self._leases.watch(self.process, coord.discovery.changed)
        server = SimServer(self._network)
        coord.add_to(server)  # type: ignore[arg-type]
        self._network.listeners[COORD] = (self.process, server)
        connect = partial(SimChannel, self._network, self.process)
        async with coord.changing(NodeAppender(self._leases, connect)):
            await asyncio.wait([coord.stopped])
