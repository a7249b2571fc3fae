"""The command exports spans over OTLP when the standard variables name an endpoint."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc

from walplane.testkit.command import walplane
from walplane.testkit.standalone import StandaloneProcess, free_port
from walplane.testkit.waiting import until


class Collector(otlp_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.traces: dict[bytes, set[str]] = {}
        self.services: set[str] = set()

    async def Export(
        self, request: otlp.ExportTraceServiceRequest, _context: object
    ) -> otlp.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            for attribute in resource.resource.attributes:
                if attribute.key == "service.name":
                    self.services.add(attribute.value.string_value)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.traces.setdefault(span.trace_id, set()).add(span.name)
        return otlp.ExportTraceServiceResponse()


async def test_a_trace_crosses_the_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector, server = Collector(), grpc.aio.server()
    otlp_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    node = StandaloneProcess(tmp_path / "data", pchannels=1)
    await node.start()
    try:
        ran = await walplane("-a", node.address, "collection", "create", "c")
        assert ran.code == 0, ran.err
        ran = await walplane("-a", node.address, "append", "--collection", "c", stdin=b"one\n")
        assert ran.code == 0, ran.err
        ran = await walplane("-a", node.address, "tail", "c")
        assert ran.code == 0, ran.err
        whole = {"wal.autocommit", "wal.dist_append", "wal.append", "wal.appendimpl"}
        read = whole | {"wal.dist_consume"}
        async with asyncio.timeout(30):
            await until(lambda: read in collector.traces.values())
            await until(lambda: any("wal.bc_callback" in t for t in collector.traces.values()))
        assert collector.services == {"walplane"}
    finally:
        assert await node.stop() == 0
        await server.stop(0)


async def test_a_collector_that_is_away_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    ran = await walplane("-a", f"127.0.0.1:{free_port()}", "status")
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
