"""Sends the spans of this process where the standard variables of OpenTelemetry say. Layer: cli."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from walplane.cli.errors import CommandError

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@contextmanager
def exporting_traces() -> Iterator[None]:
    """Exports spans over OTLP/gRPC while its body runs, when an endpoint is set; else does nothing.

    Sampling, headers, resource attributes and the service's name are those of the standard
    variables too.

    Raises:
        CommandError: an endpoint is set, and the extra `otel` is not installed.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        yield
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise CommandError(f"traces need {error.name}: pip install 'walplane[otel]'") from error
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "walplane"}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
