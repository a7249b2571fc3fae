"""The processes of one simulated cluster, and what can be done to them. Layer: testkit.

Contract: every process that was killed is replaced, under the same address and another name, unless
the scenario says otherwise; so does Kubernetes.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from walplane.channel import coord_topic, meta_topic, pchannel_name
from walplane.client import StreamingClient
from walplane.client.config import ClientConfig
from walplane.client.transport import LocalNodes
from walplane.coord.coord import Coord
from walplane.node.config import NodeConfig
from walplane.testkit.sim.backend import Broker, Manners
from walplane.testkit.sim.coordinator import CoordinatorProcess
from walplane.testkit.sim.cuts import Cuts
from walplane.testkit.sim.disk import Disk
from walplane.testkit.sim.grpc_client import SimChannel
from walplane.testkit.sim.leases import Leases
from walplane.testkit.sim.loop import SimLoop
from walplane.testkit.sim.network import Network
from walplane.testkit.sim.node import COORD, NodeProcess
from walplane.testkit.sim.objects import Habits, Objects
from walplane.testkit.sim.process import Process
from walplane.testkit.sim.trace import Trace
from walplane.testkit.sim.waiting_link import Draws, waiting
from walplane.wal.config import WALConfig
from walplane.wal.wal import WAL

PREFIX = "sim"
_RESTART_S = (0.05, 2.0)


class StoreShape(NamedTuple):
    """A segment store.

    Attributes:
        habits: of the store.
        budget_bytes: what waits for it at a node.
    """

    habits: Habits
    budget_bytes: int


@dataclass(frozen=True)
class EdgeShape:
    """What nodes let streams have, and how those that read them are; bytes and seconds.

    Attributes:
        response_bytes: see `NodeConfig`, as the next three.
        stream_append_bytes: of one Produce stream.
        read_bytes: of all readers.
        reader_patience_s: with readers that take nothing.
        window: responses that a client has not read, at most, before the next write waits.
        slow_s: how long a program takes for each batch it reads.
    """

    response_bytes: int
    stream_append_bytes: int
    read_bytes: int
    reader_patience_s: float
    window: int
    slow_s: float


@dataclass(frozen=True)
class Shape:
    """What a cluster is made of.

    Attributes:
        nodes: how many.
        pchannels: how many.
        wal: limits of each log.
        client: limits of each client.
        manners: of the backend.
        max_record_bytes: of the backend.
        sync_s: of the backend's disk.
        lease_s: how long a session lives.
        link_waits: share of appends that wait between their ticks and the backend.
        append_bytes: in flight at a node.
        store: how the segment store is; None = there is none.
        edge: narrow streams; None = they are as wide as in life, which is never in the way here.
    """

    nodes: int
    pchannels: int
    wal: WALConfig
    client: ClientConfig
    manners: Manners
    max_record_bytes: int
    sync_s: float
    lease_s: float
    link_waits: float
    append_bytes: int
    store: StoreShape | None = None
    edge: EdgeShape | None = None

    @property
    def node(self) -> NodeConfig:
        """Limits of each node."""
        config = NodeConfig(wal=self.wal, node_append_bytes=self.append_bytes)
        if self.edge is None:
            return config
        names = ("response_bytes", "stream_append_bytes", "read_bytes", "reader_patience_s")
        return config.model_copy(update={name: getattr(self.edge, name) for name in names})


class SimCluster:
    """Nodes, coordinators, clients; a network, a backend and Leases between them.

    Attributes:
        nodes: those that run or are stopped, by host.
        coordinators: the same, the newest last.
        on_node: who is told of each node that starts, by host.
        pchannels: their names.
        store: where segments go; None = nowhere.
        cuts: how the logs were cut off.
    """

    def __init__(self, loop: SimLoop, shape: Shape, seed: int) -> None:
        """Starts everything."""
        self.loop = loop
        self.shape = shape
        self.random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.trace = Trace()
        self.pchannels = [pchannel_name(PREFIX, n) for n in range(shape.pchannels)]
        self.network = Network(loop, self._seed())
        self.network.window = shape.edge.window if shape.edge is not None else 0
        self.disk = Disk(self.network, shape.sync_s)
        self.broker = Broker(self.network, self.disk, shape.manners, self._seed())
        self.leases = Leases(self.network, self.pchannels, shape.lease_s, self._seed())
        self.nodes: dict[str, NodeProcess] = {}
        self.on_node: defaultdict[str, list[Callable[[NodeProcess], None]]] = defaultdict(list)
        self.coordinators: list[CoordinatorProcess] = []
        self._incarnations: dict[str, int] = {}
        self._wal = self._wal_class()
        self.store = self._new_store()
        self.cuts = Cuts(self.disk, self.store)
        self.broker.on_cut = self.cuts.note
        if self.store is not None:
            self.store.on_delete = self.cuts.note_deletion
        self.start_coordinator()
        for number in range(shape.nodes):
            self.start_node(f"n{number}")

    @property
    def topics(self) -> list[str]:
        """Names of all topics."""
        metas = [meta_topic(name) for name in self.pchannels]
        return [*self.pchannels, *metas, coord_topic(PREFIX)]

    def leader(self) -> Coord | None:
        """The coordinator that nobody has fenced, while it is open."""
        topic = self.disk.topics.get(coord_topic(PREFIX))
        for coordinator in self.coordinators:
            coord = coordinator.coord
            if topic is not None and coord is not None and coord.term == topic.highest[0]:
                return coord
        return None

    # --- starting --------------------------------------------------------------------------------

    def process(self, host: str) -> Process:
        """The next incarnation on `host`."""
        number = self._incarnations[host] = self._incarnations.get(host, 0) + 1
        return Process(self.loop, f"{host}.{number}", host, self._seed())

    def start_node(self, host: str) -> None:
        """Starts a node where there is none."""
        if host not in self.nodes:
            self.nodes[host] = NodeProcess(
                self.process(host),
                self.network,
                self.broker,
                self.leases,
                self.shape.node,
                self.shape.max_record_bytes,
                self.trace,
                self._wal,
                self.store,
            )
            for tell in self.on_node[host]:
                tell(self.nodes[host])

    def start_coordinator(self) -> None:
        """Starts one, beside any other."""
        self.coordinators.append(
            CoordinatorProcess(
                self.process("coord"),
                self.network,
                self.broker,
                self.leases,
                PREFIX,
                self.shape.pchannels,
                self.shape.max_record_bytes,
                self._coordinator_ended,
            )
        )

    def client(self, process: Process, local: LocalNodes | None = None) -> StreamingClient:
        """A client of the cluster in `process`, to be entered there; nodes there are `local`."""
        return StreamingClient.connect(
            COORD,
            timeout=30.0,
            config=self.shape.client,
            runtime=process.runtime,
            dial=partial(SimChannel, self.network, process),
            local_nodes=local,
        )

    # --- hurting ---------------------------------------------------------------------------------

    def kill(self, process: Process) -> None:
        """SIGKILL; nodes and coordinators come back."""
        if not process.alive:
            return
        self.trace.count("kill")
        process.kill()
        self.network.killed(process)
        pause = self.random.uniform(*_RESTART_S)
        node = self.nodes.get(process.host)
        if node is not None and node.process is process:
            del self.nodes[process.host]
            self.network.world(pause, self.start_node, process.host)
        for coordinator in list(self.coordinators):
            if coordinator.process is process:
                self.coordinators.remove(coordinator)
                self.network.world(pause, self._ensure_coordinator)

    def kill_within(self, process: Process, steps: int) -> None:
        """SIGKILL before one of the next `steps` steps, wherever that is."""
        process.burn(self.random.randint(1, steps), partial(self.kill, process))

    def pause(self, process: Process, seconds: float) -> None:
        """SIGSTOP, and SIGCONT `seconds` later."""
        self.trace.count("pause")
        process.stop()
        self.network.world(seconds, process.resume)

    def heal(self) -> None:
        """No more faults: everything runs, everything is reachable, everybody is honest."""
        self.network.heal()
        self.network.weather.spike = self.network.weather.lost = self.network.weather.doubled = 0.0
        self.broker.manners.calm()
        self.broker.recover()
        self.disk.sync_s = self.shape.sync_s
        if self.store is not None:
            self.store.calm()
        self.leases.frozen = False
        for process in [node.process for node in self.nodes.values()]:
            process.resume()
        for coordinator in self.coordinators:
            coordinator.process.resume()

    def _ensure_coordinator(self) -> None:
        if COORD not in self.network.listeners:  # an older one may still think that it leads
            self.start_coordinator()

    def _coordinator_ended(self, coordinator: CoordinatorProcess) -> None:
        if coordinator in self.coordinators:
            self.kill(coordinator.process)

    def _wal_class(self) -> type[WAL]:
        share = self.shape.link_waits
        return waiting(Draws(self._seed(), share)) if share else WAL

    def _new_store(self) -> Objects | None:
        if (shape := self.shape.store) is None:
            return None
        return Objects(self.network, shape.habits, shape.budget_bytes, self._seed())

    def _seed(self) -> int:
        return self.random.getrandbits(64)
