"""Nodes and coordinators as processes around an API server of the test's own: pods without kubelet.

Contract: what runs is the real command, in processes that can be killed, stopped and resumed one by
one; only the API server and the operator are stand-ins. Only processes started here are ever
signalled. Layer: testkit; for tests only.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from walplane.lease.kube import KubeLeases
from walplane.testkit.kube_api import KubeApi
from walplane.testkit.lease_operator import PretendOperator
from walplane.testkit.standalone import free_port
from walplane.testkit.waiting import until

CLUSTER = "demo"
NAMESPACE = "test"
_LOG_TAIL_BYTES = 4000
_CALL_S = 1.0
_START_S = 60.0


class PodProcess:
    """One `walplane node` or `walplane coord`.

    Attributes:
        name: of its pod.
        uid: of its pod; the same over restarts of the process.
        address: where it listens.
        log: everything it wrote.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], environment: dict[str, str], directory: Path
    ) -> None:
        """Nothing runs yet."""
        self.name = name
        self.uid = str(uuid.uuid4())
        self.address = f"127.0.0.1:{free_port()}"
        self.log = directory / f"{name}.log"
        self._arguments = arguments
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts the process, again after its end."""
        environment = {
            **os.environ,
            **self._environment,
            "PYTHONUNBUFFERED": "1",
            "WALPLANE_POD_NAME": self.name,
            "WALPLANE_POD_UID": self.uid,
            "WALPLANE_LISTEN": self.address,
        }
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "walplane", *self._arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process, if it lives."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def ended(self, seconds: float = 30.0) -> int:
        """Waits for its end; returns the exit code.

        Raises:
            TimeoutError: it goes on.
        """
        if self._process is None:
            return 0
        async with asyncio.timeout(seconds):
            return await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()

    def log_tail(self) -> str:
        """The end of what it wrote."""
        if not self.log.exists():
            return f"{self.name} wrote no log"
        tail = self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return f"--- {self.name}\n{tail}"


class Service:
    """One address for several processes: every connection goes to any of them, as in Kubernetes.

    Attributes:
        targets: host:port each.
    """

    def __init__(self, targets: Sequence[str]) -> None:
        """Use `open`."""
        self.targets = list(targets)
        self.address = ""
        self._random = random.Random(1)  # noqa: S311 - a choice of a test
        self._links: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Service]:
        """Listens on a free port of loopback."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        try:
            yield self
        finally:
            server.close()
            for link in self._links:
                link.cancel()
            if self._links:
                await asyncio.wait(self._links)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        if link is not None:
            self._links.add(link)
            link.add_done_callback(self._links.discard)
        try:
            far_reader, far_writer = await self._reach()
        except OSError:
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(_pump(reader, far_writer))
                pumps.create_task(_pump(far_reader, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            far_writer.close()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for target in self._random.sample(self.targets, len(self.targets)):
            host, _, port = target.rpartition(":")
            try:
                return await asyncio.open_connection(host, int(port))
            except OSError:
                continue
        raise ConnectionRefusedError("no endpoints")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the near side ends; then the far side is closed, which ends the other pump."""
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


class PodCluster:
    """A cluster of processes.

    Attributes:
        api: the API server.
        operator: assigns the PChannels.
        nodes: by name.
        coords: by name.
        service: the coordinators' address.
    """

    def __init__(
        self, api: KubeApi, operator: PretendOperator, directory: Path, settings: dict[str, str]
    ) -> None:
        """Use `running`."""
        self.api = api
        self.operator = operator
        self.service = Service([])
        self.nodes: dict[str, PodProcess] = {}
        self.coords: dict[str, PodProcess] = {}
        self._directory = directory
        self._settings = settings

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        backend: str,
        directory: Path,
        *,
        nodes: int = 2,
        coords: int = 1,
        pchannels: int = 4,
        lease_s: float = 3.0,
        prefix: str = "demo",
    ) -> AsyncIterator[PodCluster]:
        """Every node has a session; not everything is served yet."""
        async with AsyncExitStack() as taken:
            api = await taken.enter_async_context(KubeApi.serving())
            kubeconfig = api.kubeconfig(directory / "kubeconfig")
            os.environ["KUBECONFIG"] = str(kubeconfig)  # for the operator, which runs here
            store = await taken.enter_async_context(KubeLeases.connect(NAMESPACE, _CALL_S))
            operator = PretendOperator(store, CLUSTER, prefix, pchannels)
            operator.paused = True
            settings = {
                "KUBECONFIG": str(kubeconfig),
                "WALPLANE_BACKEND": backend,
                "WALPLANE_CLUSTER": CLUSTER,
                "WALPLANE_CLUSTER_UID": "uid-of-demo",
                "WALPLANE_NAMESPACE": NAMESPACE,
                "WALPLANE_PREFIX": prefix,
                "WALPLANE_PCHANNELS": str(pchannels),
                "WALPLANE_LEASE_SECONDS": str(lease_s),
            }
            cluster = cls(api, operator, directory, settings)
            taken.push_async_callback(cluster._kill_all)
            await taken.enter_async_context(cluster.service.open())
            working = asyncio.create_task(operator.run(), name="operator")
            taken.callback(working.cancel)
            for number in range(coords):
                await cluster.add_coord(f"{CLUSTER}-coord-{number}")
            for number in range(nodes):
                await cluster.add_node(f"{CLUSTER}-node-{number}")
            try:
                # Who is there first would get everything, since nothing here balances.
                await until(lambda: all(name in api.leases for name in cluster.nodes), _START_S)
                operator.paused = False
                yield cluster
            except BaseException:
                for process in [*cluster.coords.values(), *cluster.nodes.values()]:
                    print(process.log_tail())
                raise

    async def add_coord(self, name: str, **settings: str) -> PodProcess:
        """Starts a coordinator; `settings` are environment of its own."""
        environment = {**self._settings, **settings}
        process = PodProcess(name, ["coord"], environment, self._directory)
        self.coords[name] = process
        if environment["WALPLANE_CLUSTER"] == CLUSTER:
            self.service.targets.append(process.address)
        await process.start()
        return process

    async def add_node(self, name: str, **settings: str) -> PodProcess:
        """Starts a node; `settings` are environment of its own."""
        environment = {**self._settings, "WALPLANE_COORD": self.service.address, **settings}
        process = PodProcess(name, ["node"], environment, self._directory)
        self.nodes[name] = process
        await process.start()
        return process

    async def all_served(self, seconds: float = 60.0) -> None:
        """Returns once every PChannel is confirmed by a session that lives.

        Raises:
            TimeoutError: it takes longer.
        """
        await until(lambda: self.operator.all_served, seconds)

    def leading(self) -> str:
        """Name of the coordinator that holds the Lease; empty when nobody does."""
        body = self.api.leases.get(f"{CLUSTER}-coord") or {"spec": {}}
        return str(body["spec"].get("holderIdentity") or "").partition("_")[0]

    async def _kill_all(self) -> None:
        for process in [*self.nodes.values(), *self.coords.values()]:
            process.signal(signal.SIGCONT)
            await process.kill()
