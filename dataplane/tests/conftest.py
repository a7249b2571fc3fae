"""Fixtures of every test folder: a real Pulsar, S3 and Azure, started once for the whole run."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from _pytest.runner import runtestprotocol

from devservices.peers import azure, s3_server
from devservices.peers.azure import azure_server
from devservices.peers.s3 import CREDENTIALS
from devservices.pulsar import (
    STOOD_STILL,
    PrerequisiteMissingError,
    broker_life,
    ended_since,
    for_tests,
    stop_after_tests,
    waiting_threads,
)
from walplane.backends.interface import Backend
from walplane.backends.pulsar.config import PulsarConfig
from walplane.backends.registry import open_backend
from walplane.client import StreamingClient
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.segments import MemoryStore, segment_deps
from walplane.testkit.wal_world import World
from walplane.wal.interceptors.base import AppendOp, Forward
from walplane.wal.interceptors.shard import ShardInterceptor
from walplane.wal.ports import AppendResult
from walplane.wal.shard.manager import ShardManager
from walplane.wal.shard.table import ShardTable


def pytest_configure() -> None:
    """Commands under test hear SIGINT, also when a shell started the tests in its background.

    A shell without job control has such a job ignore SIGINT, and every process inherits that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """The last test process to end stops the broker; xdist's workers come here as well."""
    stop_after_tests()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A test whose broker locked itself up under it is run once more, on one that lives.

    The end of the run says that it happened and where the broker's threads stood.
    """
    if not item.get_closest_marker("pulsar"):
        return None
    life = broker_life()
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if any(report.failed for report in reports) and ended_since(life):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for log in sorted(STOOD_STILL.glob("*.log")):
        terminalreporter.section("the Pulsar died or stood still, and was started again")
        terminalreporter.line(f"its log: {log}\n{waiting_threads(log)}")


@pytest.fixture(scope="session")
def pulsar_url() -> Iterator[str]:
    """Backend URL of a running Pulsar, in a namespace that this test process has for itself."""
    try:
        url = for_tests()
    except PrerequisiteMissingError as missing:
        pytest.skip(str(missing))
    if "namespace=" in url:
        yield url
        return
    config = PulsarConfig.parse(url)
    namespace = f"public/test-{secrets.token_hex(6)}"
    yield f"{url}{'&' if '?' in url else '?'}namespace={namespace}"
    # refused by a broker without forceDeleteNamespaceAllowed, which then keeps the namespace
    with contextlib.suppress(httpx.HTTPError):
        httpx.delete(f"{config.admin_url}/admin/v2/namespaces/{namespace}?force=true", timeout=30)


P0 = "test_0"


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    backend = await open_backend("memory:?max_record_bytes=200000")
    yield backend
    await backend.close()


@pytest.fixture
async def cluster(backend: Backend) -> AsyncIterator[MiniCluster]:
    async with MiniCluster(backend, pchannels=2, nodes=("n1", "n2")) as cluster:
        yield cluster


@pytest.fixture
async def vchannel(cluster: MiniCluster) -> str:
    return await cluster.create_vchannel(P0)


@pytest.fixture
async def wal(cluster: MiniCluster) -> AsyncIterator[StreamingClient]:
    async with StreamingClient.connect(cluster.address) as wal:
        yield wal


@pytest.fixture
def world_url() -> str:
    """Backend of `world`; a file that wants another defines a fixture of this name."""
    return "memory:"


@pytest.fixture(params=["memory", "rocksdb"])
def each_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One backend after the other."""
    return "memory:" if request.param == "memory" else f"rocksdb:{tmp_path / 'log'}"


@pytest.fixture
async def world(world_url: str) -> AsyncIterator[World]:
    """One PChannel's logs on a backend whose faults the test decides."""
    made = World(FaultyBackend(await open_backend(world_url)))
    yield made
    async with asyncio.timeout(30):
        await made.close()


@pytest.fixture
def logs_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No shard management says what is in which segment: the entries do."""

    async def as_it_is(_link: object, op: AppendOp, forward: Forward) -> AppendResult:
        return await forward(op)

    monkeypatch.setattr(ShardInterceptor, "append", as_it_is)
    monkeypatch.setattr(ShardManager, "plan", lambda _shards, _op: 0)
    monkeypatch.setattr(ShardTable, "observe", lambda _table, _item: None)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def stores_segments(world: World, store: MemoryStore) -> None:
    """The logs of `world` bring their segments to `store`."""
    world.segments = segment_deps(store)


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        with s3_server(tmp_path_factory.mktemp("s3") / "server.log", "segments") as server:
            yield f"http://127.0.0.1:{server.port}"
    except PrerequisiteMissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def azure_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    try:
        with azure_server(tmp_path_factory.mktemp("azure") / "server.log", "segments") as server:
            yield server.port
    except PrerequisiteMissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def azure_url(azure_port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """As `s3_url`."""
    for name, value in azure.credentials(azure_port).items():
        monkeypatch.setenv(name, value)
    return f"az://segments/{secrets.token_hex(4)}"


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a segment store of the test's own; the environment says how to reach it, as in a pod."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    return f"s3://segments/{secrets.token_hex(4)}"
