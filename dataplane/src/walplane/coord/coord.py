"""The StreamingCoord: its parts over one meta topic.

Contract: `open` takes the coordinator's meta topic under a term of its own, rebuilds every part and
gives ticks from then on. Without Kubernetes, `serving` assigns the PChannels and makes catalog
changes while its body runs; where somebody else assigns them, a `source` tells who serves what and
`changing` makes the catalog changes only. When the meta topic is lost to another coordinator, or
damaged, `stopped` is done with the reason: the process must end. Layer: coord.

    async with Coord.open(backend, prefix, Runtime.system(), pchannel_count=16) as coord:
        node = StreamingNode(..., oracle=coord.oracle, authority=coord.channels, ...)
        coord.add_to(server)
        async with coord.serving(node_handle, appender):
            await asyncio.wait([coord.stopped, ...], return_when=asyncio.FIRST_COMPLETED)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import grpc
import structlog

from walplane.assignment.states import ChannelState
from walplane.backends.interface import Backend
from walplane.channel import coord_topic, pchannel_name
from walplane.coord import catalog as catalog_module
from walplane.coord import channels as channels_module
from walplane.coord import oracle as oracle_module
from walplane.coord.background import Background
from walplane.coord.broadcast import Appender, Broadcasts
from walplane.coord.catalog import Catalog
from walplane.coord.channels import ChannelManager, ChannelsState, NodeHandle, initialise
from walplane.coord.discovery import Discovery
from walplane.coord.oracle import Oracle, OracleState
from walplane.coord.ports import AssignmentSource, Component
from walplane.coord.service import CoordService, OracleService
from walplane.coord.settings import CoordSettings
from walplane.coord.store import MetaStore
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import coord_pb2
from walplane.runtime import Runtime
from walplane.tracing import Tracing

_log = structlog.get_logger(__name__)

SERVICE_NAMES = tuple(
    coord_pb2.DESCRIPTOR.services_by_name[name].full_name
    for name in ("StreamingCoord", "TimestampOracle")
)


class Coord:
    """One coordinator, from its opening to its end.

    Attributes:
        pchannels: names, in order.
        oracle: ticks; a `TimestampOracle`.
        channels: who serves what, without a `source`; a `TermAuthority`. The node tells it of
            WALs that stopped.
        catalog: what collections there are.
        broadcasts: makes and drops collections.
        discovery: snapshots of the assignment.
    """

    def __init__(
        self,
        store: MetaStore,
        prefix: str,
        runtime: Runtime,
        settings: CoordSettings,
        parts: tuple[OracleState, ChannelsState, Catalog],
        source: AssignmentSource | None,
        tracing: Tracing | None,
    ) -> None:
        """Use `open`."""
        oracle, channels, self.catalog = parts
        self._store = store
        self._prefix = prefix
        self._state = channels
        self.pchannels = [pchannel_name(prefix, n) for n in range(channels.pchannel_count)]
        self.discovery = Discovery(store.term, channels.cchannel, self._assignments)
        self.oracle = Oracle(store, oracle, runtime, self.pchannels, settings)
        self.channels = ChannelManager(
            store, channels, self.pchannels, runtime, settings, self.discovery.changed
        )
        self._source: AssignmentSource = source or self.channels
        self.broadcasts = Broadcasts(
            store,
            self.catalog,
            self.pchannels,
            channels.cchannel,
            store.term,
            runtime,
            settings,
            self.discovery.changed,
            tracing,
            self._is_served,
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        backend: Backend,
        prefix: str,
        runtime: Runtime,
        *,
        pchannel_count: int | None = None,
        settings: CoordSettings | None = None,
        source: AssignmentSource | None = None,
        tracing: Tracing | None = None,
    ) -> AsyncIterator[Coord]:
        """A coordinator that has the meta topic and gives ticks.

        Args:
            backend: where the meta topic is; stays the caller's to close.
            prefix: of the PChannels' names; names the cluster.
            runtime: clocks and randomness.
            pchannel_count: how many PChannels; may only grow. None = as many as there are, or 16.
                With a `source` at least so many: it is there that they grow.
            settings: limits and intervals.
            source: who serves what, where somebody else assigns the PChannels.
            tracing: makes spans; by default where the process' own go.

        Raises:
            StaleTerm: another coordinator opened the meta topic at the same time.
            WalError: INVALID_ARGUMENT for a wrong number of PChannels; else as the backend raises.
        """
        settings = settings or CoordSettings()
        oracle, channels, catalog = OracleState(), ChannelsState(), Catalog(prefix)
        components: dict[str, Component] = {
            oracle_module.COMPONENT: oracle,
            channels_module.COMPONENT: channels,
            catalog_module.COMPONENT: catalog,
        }
        topic = coord_topic(prefix)
        async with MetaStore.open(backend, topic, runtime, components, settings) as store:
            if source is not None and pchannel_count is not None:
                # What this process was told is of its start: they may have grown since.
                pchannel_count = max(pchannel_count, channels.pchannel_count)
            await initialise(store, channels, prefix, pchannel_count)
            parts = (oracle, channels, catalog)
            coord = cls(store, prefix, runtime, settings, parts, source, tracing)
            store.stopped.add_done_callback(lambda done: coord.discovery.end(done.result()))
            tasks = Background(store.end)
            tasks.start("oracle-mark", coord.oracle.raise_ahead())
            _log.info("coordinator open", term=store.term, pchannels=len(coord.pchannels))
            try:
                yield coord
            finally:
                await tasks.stop()

    @property
    def term(self) -> int:
        """The coordinator's own term."""
        return self._store.term

    @property
    def stopped(self) -> asyncio.Future[WalError]:
        """Done with the reason once this coordinator can do nothing any more."""
        return self._store.stopped

    @asynccontextmanager
    async def serving(self, node: NodeHandle, appender: Appender) -> AsyncIterator[None]:
        """Assigns every PChannel to `node` and makes catalog changes; drains `node` at the end."""
        tasks = Background(self._store.end)
        for pchannel in self.pchannels:
            tasks.start(f"assign {pchannel}", self.channels.keep_served(pchannel, node))
        tasks.start("catalog", self.broadcasts.run(appender))
        try:
            yield
        finally:
            await tasks.stop()
            await self.channels.drain()
            self.discovery.end(WalError(ErrorCode.ON_SHUTDOWN, "the coordinator is shutting down"))

    @asynccontextmanager
    async def changing(self, appender: Appender) -> AsyncIterator[None]:
        """Makes catalog changes while its body runs, and assigns nothing."""
        tasks = Background(self._store.end)
        tasks.start("catalog", self.broadcasts.run(appender))
        try:
            yield
        finally:
            await tasks.stop()
            self.discovery.end(WalError(ErrorCode.ON_SHUTDOWN, "the coordinator is shutting down"))

    async def grow(self, pchannel_count: int) -> None:
        """Takes more PChannels in; fewer than there are change nothing.

        Raises:
            WalError: INVALID_ARGUMENT for too many; else why the store stopped.
        """
        if pchannel_count <= len(self.pchannels):
            return
        await initialise(self._store, self._state, self._prefix, pchannel_count)
        for number in range(len(self.pchannels), self._state.pchannel_count):
            self.pchannels.append(pchannel_name(self._prefix, number))
        self.discovery.changed()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the coordinator's services with `server`; their names: `SERVICE_NAMES`."""
        CoordService(self.discovery, self._source, self.catalog, self.broadcasts).add_to(server)
        OracleService(self.oracle).add_to(server)

    def _is_served(self, pchannel: str) -> bool:
        return self._source.place(pchannel)[0].state is ChannelState.ASSIGNED

    def _assignments(self) -> Iterator[coord_pb2.ChannelAssignment]:
        loads = self.catalog.loads()
        for pchannel in self.pchannels:
            channel, address = self._source.place(pchannel)
            yield coord_pb2.ChannelAssignment(
                pchannel=pchannel,
                term=channel.term,
                node_id=channel.node_id,
                address=address,
                state=f"CHANNEL_STATE_{channel.state.name}",
                vchannels=loads[channel.pchannel],
                reason=channel.reason,
                attempts=channel.attempts,
            )
