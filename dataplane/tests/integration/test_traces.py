"""Spans from client over node to reader: one trace an append, with the right parents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider

from walplane.backends.memory import MemoryBackend
from walplane.client import StreamingClient
from walplane.coord.coord import Coord
from walplane.message.builder import insert
from walplane.node import StreamingNode, StreamingNodeService, start_server
from walplane.node.service import SERVICE_NAME
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import log_pb2
from walplane.runtime import Runtime
from walplane.testkit.wal_world import entry
from walplane.tracing import Tracing
from walplane.wal.ports import AppendResult


class Spans:
    """What was exported, as a tree."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider)

    def of_trace(self, root: str) -> list[ReadableSpan]:
        """The spans of the one trace that begins with `root`."""
        spans = self.exporter.get_finished_spans()
        (first,) = [each for each in spans if each.name == root and each.parent is None]
        return [each for each in spans if each.context.trace_id == first.context.trace_id]

    def paths(self, root: str) -> list[str]:
        """Of each leaf of the trace, the names from the root down."""
        spans = {each.context.span_id: each for each in self.of_trace(root)}
        parents = {each.parent.span_id for each in spans.values() if each.parent is not None}
        found = []
        for span_id, span in spans.items():
            if span_id not in parents:
                names = [span.name]
                while span.parent is not None:
                    span = spans[span.parent.span_id]
                    names.append(span.name)
                found.append(" ".join(reversed(names)))
        return sorted(found)


def attributes_of(spans: Sequence[ReadableSpan], name: str) -> Mapping[str, object]:
    return next(dict(each.attributes or {}) for each in spans if each.name == name)


class Cluster:
    """A coordinator, a node and a client in one process, with gRPC between them."""

    def __init__(self, coord: Coord, node: StreamingNode, wal: StreamingClient) -> None:
        self.coord = coord
        self.node = node
        self.wal = wal


class _Handle:
    def __init__(self, node: StreamingNode, address: str) -> None:
        self.node_id, self.address = node.node_id, address
        self._node = node

    async def assign(self, pchannel: str, term: int) -> None:
        await self._node.assign(pchannel, term)

    async def release(self, pchannel: str, term: int) -> None:
        await self._node.release(pchannel, term)

    async def append(self, entry: log_pb2.Entry) -> AppendResult:
        return await self._node.wal("p_0").append(entry)


@asynccontextmanager
async def running(tracing: Tracing, *, local: bool = False) -> AsyncIterator[Cluster]:
    backend, runtime = MemoryBackend(), Runtime.system()
    async with Coord.open(backend, "p", runtime, pchannel_count=1, tracing=tracing) as coord:
        node = StreamingNode(
            *("n1", backend, coord.oracle, coord.channels, runtime), tracing=tracing
        )
        services = {SERVICE_NAME: StreamingNodeService(node).add_to, "coord": coord.add_to}
        server = await start_server("127.0.0.1:0", services)
        handle = _Handle(node, server.address)
        nodes = {"n1": node} if local else {}
        async with (
            coord.serving(handle, handle),
            StreamingClient.connect(server.address, local_nodes=nodes, tracing=tracing) as wal,
        ):
            yield Cluster(coord, node, wal)
        await server.stop(0)
        await node.close()


@pytest.fixture
def spans() -> Spans:
    return Spans()


REMOTE = "wal.dist_append wal.append wal.appendimpl"


async def test_an_append_is_one_trace_up_to_its_reader(spans: Spans) -> None:
    async with running(spans.tracing) as cluster, asyncio.timeout(30):
        (vchannel,) = (await cluster.wal.create_collection("c")).vchannels
        spans.exporter.clear()
        result = await cluster.wal.append(insert(vchannel, b"one"))
        async for _ in cluster.wal.read(vchannel, follow=False):
            pass
    assert spans.paths("wal.autocommit") == [f"wal.autocommit {REMOTE} wal.dist_consume"]
    trace = spans.of_trace("wal.autocommit")
    assert attributes_of(trace, "wal.append") == {
        "message.type": "INSERT",
        "message.vchannel": vchannel,
        "message.timetick": str(result.time_tick),
    }
    assert attributes_of(trace, "wal.dist_consume")["message.timetick"] == str(result.time_tick)


async def test_in_one_process_nothing_is_remote(spans: Spans) -> None:
    async with running(spans.tracing, local=True) as cluster, asyncio.timeout(30):
        (vchannel,) = (await cluster.wal.create_collection("c")).vchannels
        spans.exporter.clear()
        await cluster.wal.append_many([insert(vchannel, b"one"), insert(vchannel, b"two")])
        async for _ in cluster.wal.read(vchannel, follow=False):
            pass
    expected = "wal.autocommit wal.append wal.appendimpl wal.consume"
    assert spans.paths("wal.autocommit") == [expected]


async def test_a_transaction_is_one_trace(spans: Spans) -> None:
    async with running(spans.tracing) as cluster, asyncio.timeout(30):
        (vchannel,) = (await cluster.wal.create_collection("c")).vchannels
        spans.exporter.clear()
        async with cluster.wal.txn(vchannel) as txn:
            await txn.append(insert(vchannel, b"one"))
            await txn.flush()
            await txn.append(insert(vchannel, b"two"))
        async for _ in cluster.wal.read(vchannel, follow=False):
            pass
    paths = spans.paths("wal.txn")
    assert paths.count(f"wal.txn {REMOTE} wal.dist_consume") == 1
    assert set(paths) == {f"wal.txn {REMOTE}", f"wal.txn {REMOTE} wal.dist_consume"}
    trace = spans.of_trace("wal.txn")
    types = [
        dict(each.attributes or {})["message.type"] for each in trace if each.name == "wal.append"
    ]
    assert {types[0], types[-1]} == {"BEGIN_TXN", "COMMIT_TXN"}
    assert attributes_of(trace, "wal.txn")["txn.id"] == str(txn.txn_id)
    assert attributes_of(trace, "wal.dist_consume")["txn.id"] == str(txn.txn_id)


async def test_a_transaction_in_one_entry_and_one_that_fails(spans: Spans) -> None:
    async with running(spans.tracing) as cluster, asyncio.timeout(30):
        (vchannel,) = (await cluster.wal.create_collection("c")).vchannels
        spans.exporter.clear()
        async with cluster.wal.txn(vchannel) as txn:
            await txn.append(insert(vchannel, b"one"))
        assert spans.paths("wal.txn") == [f"wal.txn {REMOTE}"]
        spans.exporter.clear()
        with pytest.raises(ValueError, match="no"):
            async with cluster.wal.txn(vchannel) as txn:
                raise ValueError("no")
        (failed,) = spans.exporter.get_finished_spans()
        assert (failed.name, failed.status.is_ok) == ("wal.txn", False)


async def test_a_broadcast_is_one_trace_to_every_reader_and_its_callback(spans: Spans) -> None:
    async with running(spans.tracing) as cluster, asyncio.timeout(30):
        info = await cluster.wal.create_collection("c", shards=2)
        async for _ in cluster.wal.read("p_0", follow=False):
            pass
    node = "wal.append wal.appendimpl wal.dist_consume"  # the coordinator is in the node's process
    paths = spans.paths("wal.broadcast")
    assert paths == [f"wal.broadcast {node}"] * 3 + ["wal.broadcast wal.bc_callback"]
    said = attributes_of(spans.of_trace("wal.broadcast"), "wal.broadcast")
    assert said["message.type"] == "CREATE_COLLECTION"
    assert set(info.vchannels) < set(said["broadcast.vchannels"])  # type: ignore[call-overload]
    assert "broadcast.id" in said


async def test_a_refused_append_fails_all_the_way(spans: Spans) -> None:
    async with running(spans.tracing) as cluster, asyncio.timeout(30):
        (vchannel,) = (await cluster.wal.create_collection("c")).vchannels
        spans.exporter.clear()
        with pytest.raises(WalError):
            await cluster.wal.append(insert(vchannel, b"one", partition_id=99))
    assert spans.paths("wal.autocommit") == ["wal.autocommit wal.dist_append wal.append"]
    assert not any(each.status.is_ok for each in spans.of_trace("wal.autocommit"))


async def test_a_message_that_has_a_context_keeps_it(spans: Spans) -> None:
    own = f"00-{7:032x}-{7:016x}-01"
    async with running(spans.tracing) as cluster, asyncio.timeout(30):
        (vchannel,) = (await cluster.wal.create_collection("c")).vchannels
        spans.exporter.clear()
        await cluster.wal.append(replace(insert(vchannel, b"one"), trace_parent=own))
    traces = {each.name: each.context.trace_id for each in spans.exporter.get_finished_spans()}
    assert traces.pop("wal.autocommit") != 7
    assert traces == dict.fromkeys(REMOTE.split(), 7)


def test_only_a_sampled_context_is_followed(spans: Spans) -> None:
    ids = f"{1:032x}-{1:016x}"
    assert spans.tracing.after(f"00-{ids}-01", "wal.append", {}) is not None
    for parent in ("", "nonsense", f"00-{ids}-00", f"ff-{ids}-01", f"00-{0:032x}-{0:016x}-01"):
        assert spans.tracing.after(parent, "wal.append", {}) is None, parent


class Broken(SpanProcessor):
    """One of the program's that fails for spans of one name, as they begin or as they end."""

    def __init__(self, name: str, step: str) -> None:
        self._name = name
        setattr(self, step, self._fail)

    def _fail(self, span: ReadableSpan, **_: object) -> None:
        if span.name == self._name:
            raise self.Error(f"nobody thought of {span.name}")

    class Error(Exception):
        """Raised by nobody else."""


@pytest.mark.parametrize("step", ["on_start", "on_end"])
@pytest.mark.parametrize("name", ["wal.autocommit", *REMOTE.split(), "wal.dist_consume"])
async def test_spans_that_fail_hurt_nothing_and_are_told_once(
    monkeypatch: pytest.MonkeyPatch, name: str, step: str
) -> None:
    monkeypatch.setattr("walplane.tracing._told", set())
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Broken(name, step))
    with structlog.testing.capture_logs() as logs:
        async with running(Tracing(provider)) as cluster, asyncio.timeout(10):
            (vchannel,) = (await cluster.wal.create_collection("c")).vchannels
            sent = [await cluster.wal.append(insert(vchannel, b"%d" % i)) for i in range(3)]
            read = [each async for each in cluster.wal.read(vchannel, follow=False)]
    assert [each.time_tick for each in read][-3:] == [each.time_tick for each in sent]
    assert [type(each["exc_info"]) for each in logs if "spans fail" in each["event"]] == [
        Broken.Error
    ]


async def test_what_is_not_traced_costs_no_span(spans: Spans) -> None:
    async with running(Tracing(NoOpTracerProvider())) as cluster, asyncio.timeout(30):
        (vchannel,) = (await cluster.wal.create_collection("c")).vchannels
        await cluster.wal.append(insert(vchannel, b"one"))
        async for message in cluster.wal.read(vchannel, follow=False):
            assert not message.batch.envelope.trace_parent
    assert not Tracing(NoOpTracerProvider()).on


async def test_an_append_that_is_not_sampled_has_no_spans_anywhere(spans: Spans) -> None:
    off = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    off.add_span_processor(SimpleSpanProcessor(spans.exporter))
    async with running(Tracing(off)) as cluster, asyncio.timeout(30):
        (vchannel,) = (await cluster.wal.create_collection("c")).vchannels
        await cluster.wal.append(insert(vchannel, b"one"))
        for parent in ("", "nonsense", f"00-{1:032x}-{1:016x}-00", "00-" + "0" * 32 + "-0-01"):
            traced = entry(b"x", vchannel=vchannel)
            traced.envelope.trace_parent = parent
            await cluster.node.wal("p_0").append(traced)
    assert spans.exporter.get_finished_spans() == ()
