"""The rows beside other systems: NATS JetStream, Redis Streams, Milvus."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.model import VALUE, BenchmarkError, Measure, Pair, Row, Sample, Setting, Target
from benchmarks.sides import Start, unused, walplane, walplane_in_process
from benchmarks.system import broker, fresh_directory, load, standalone
from devservices.peers import Peer, PeerError, milvus_server, nats_server, redis_server
from devservices.pulsar import PrerequisiteMissingError

_IN_FLIGHT = 64
_CONCURRENT = "concurrent"
_BYTES = 1024
_ROW_BYTES = 128

Server = Callable[[Path, Path], AbstractContextManager[Peer]]


@contextmanager
def _up(name: str, setting: Setting, server: Server) -> Iterator[Peer]:
    """The peer of the row `name`, with data of its own.

    Raises:
        BenchmarkError: it is not to be had here.
    """
    data = fresh_directory(setting.data / unused(f"{name}-"))
    try:
        with server(data, setting.out / f"{name}-peer.log") as peer:
            yield peer
    except (PrerequisiteMissingError, PeerError) as error:
        raise BenchmarkError(str(error)) from error


def _client(program: str, peer: Peer, size: int, at_once: int) -> Measure:
    arguments = ["--port", str(peer.port), "--size", str(size), "--concurrency", str(at_once)]

    def measure(seconds: float) -> Sample:
        if peer.python:
            return load(program, *arguments, seconds=seconds, python=peer.python)
        return load(program, *arguments, seconds=seconds)

    return measure


def _beside(name: str, package: str, server: Server, at_once: int, in_process: bool) -> Start:
    """Walplane and peer on one disk, both durable before they answer."""

    @contextmanager
    def ours(setting: Setting) -> Iterator[Measure]:
        if in_process:
            yield walplane_in_process(setting, _CONCURRENT, _BYTES, at_once)
        else:
            with standalone(setting, name, None) as node:
                yield walplane(node, _CONCURRENT, _BYTES, at_once)

    @contextmanager
    def start(setting: Setting) -> Iterator[Pair]:
        if importlib.util.find_spec(package) is None:
            raise BenchmarkError(f"no Python package {package!r} here: pip install '.[bench]'")
        with ours(setting) as measure, _up(name, setting, server) as peer:
            reference = _client(f"{package}_client", peer, _BYTES, at_once)
            yield Pair(measure, reference, {f"{package} server": peer.version})

    return start


def _rows(peer: str, server: Server, reference: str) -> Iterator[Row]:
    """Over gRPC and in process, one append after the other and many at a time."""
    for in_process, at_once in itertools.product((False, True), (1, _IN_FLIGHT)):
        many = at_once > 1
        where = "in-process-" if in_process else ""
        name = f"embedded-{where}{at_once if many else 'sync'}-{peer}"
        how = f"{at_once} in flight" if many else "one after the other"
        what = "a log that `open_embedded` opened" if in_process else "the embedded backend"
        yield Row(
            name=name,
            what=f"durable appends of 1 KiB on {what}, {how}.",
            reference=f"{reference}, same disk, {how}.",
            unit="msg/s",
            higher_is_better=True,
            targets={VALUE: Target(None, 1, 1), "p50": Target(None, None, 1, "ms", False)},
            start=_beside(name, peer, server, at_once, in_process),
        )


@contextmanager
def _beside_milvus(setting: Setting) -> Iterator[Pair]:
    """Node and Milvus on one broker; Milvus keeps the rest of its files on the measured disk."""
    name = "durable-64-milvus"
    with broker() as pulsar:

        def server(data: Path, log: Path) -> AbstractContextManager[Peer]:
            return milvus_server(data, log, pulsar.service, pulsar.reference)

        with standalone(setting, name, pulsar.backend) as node, _up(name, setting, server) as peer:
            versions = {"pulsar broker": pulsar.version(), "milvus server": peer.version}
            reference = _client("milvus_client", peer, _ROW_BYTES, _IN_FLIGHT)
            yield Pair(walplane(node, _CONCURRENT, _ROW_BYTES, _IN_FLIGHT), reference, versions)


_NATS = "NATS JetStream, `sync_interval: always`, nats-py"
_REDIS = "Redis Streams, `appendfsync always`, redis-py (several: one pipeline)"

ROWS = (
    Row(
        name="durable-64-milvus",
        what=f"appends of single 128 B messages, {_IN_FLIGHT} in flight, real Pulsar.",
        reference="Milvus 2.3.5 on the same Pulsar, `insert` of single rows of that size, pymilvus "
        f"`_async`, {_IN_FLIGHT} in flight.",
        unit="msg/s",
        higher_is_better=True,
        targets={VALUE: Target(None, 5, 10)},
        start=_beside_milvus,
    ),
    *_rows("nats", nats_server, _NATS),
    *_rows("redis", redis_server, _REDIS),
)
"""In the order of the table."""
