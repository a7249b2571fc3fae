"""Spans of OpenTelemetry around appends, and the context that travels in messages.

Contract: without a configured provider nothing is made, and asking costs one comparison. A context
is the text of a W3C traceparent, as it lies in an envelope; what follows an entry is traced only
when it says that it is sampled. Providers run code of the program's, samplers and processors: when
that fails it costs spans, each kind of failure is logged once, and what they are about goes on.
Layer: above rpc, below message.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    NoOpTracerProvider,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
)
from opentelemetry.util.types import AttributeValue

from walplane.rpc.v1 import log_pb2

_log = structlog.get_logger(__name__)

_PARTS = 4
_UNCONFIGURED = (ProxyTracerProvider, NoOpTracerProvider)

Attributes = dict[str, AttributeValue]

_told: set[type[Exception]] = set()
"""How spans have failed in this process."""


class Tracing:
    """Makes the spans of one process.

    Attributes:
        on: whether a provider is configured.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """Spans go to `provider`, by default to that of the process, if it has one by now."""
        provider = provider or trace.get_tracer_provider()
        self.on = not isinstance(provider, _UNCONFIGURED)
        self._tracer: Tracer = provider.get_tracer("walplane")

    def root(self, name: str, attributes: Attributes) -> Span | None:
        """A span within what the program traces now; None when it is not sampled."""
        if not self.on:
            return None
        span = self._start(name, None, SpanKind.INTERNAL, attributes)
        return span if span is not None and span.is_recording() else None

    def after(
        self, parent: str, name: str, attributes: Attributes, kind: SpanKind = SpanKind.INTERNAL
    ) -> Span | None:
        """A span after the context `parent`; None when that is none, or not sampled."""
        if not parent or not self.on:
            return None
        context = _context_of(parent)
        if context is None:
            return None
        return self._start(name, context, kind, attributes)

    @contextmanager
    def around(self, parent: str, name: str, attributes: Attributes) -> Iterator[Span | None]:
        """A span around the body; what the body raises is its status."""
        span = self.after(parent, name, attributes)
        try:
            yield span
        except BaseException as error:
            end(span, error)
            raise
        end(span)

    def _start(
        self, name: str, context: Context | None, kind: SpanKind, attributes: Attributes
    ) -> Span | None:
        try:
            return self._tracer.start_span(name, context, kind, attributes)
        except Exception as failure:
            _tell(failure)
            return None


def parent_of(span: Span | None) -> str:
    """The context to send along: that of `span`; empty for None."""
    if span is None:
        return ""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def end(span: Span | None, error: BaseException | None = None) -> None:
    """Ends `span`, which failed if there is an `error`."""
    if span is None:
        return
    try:
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, str(error)))
        span.end()
    except Exception as failure:
        _tell(failure)


def note(span: Span, name: str, value: str) -> None:
    """Sets an attribute that was not known when `span` began."""
    try:
        span.set_attribute(name, value)
    except Exception as failure:
        _tell(failure)


def attributes_of(envelope: log_pb2.Envelope, type_name: str) -> Attributes:
    """What spans say of an entry (rules §15); `type_name` of its message type."""
    found: Attributes = {"message.type": type_name, "message.vchannel": envelope.vchannel}
    if envelope.first_tick:
        found["message.timetick"] = str(envelope.first_tick)
    if envelope.txn.txn_id:
        found["txn.id"] = str(envelope.txn.txn_id)
    if envelope.HasField("broadcast"):
        found["broadcast.id"] = str(envelope.broadcast.broadcast_id)
        found["broadcast.vchannels"] = list(envelope.broadcast.vchannels)
    return found


def _tell(failure: Exception) -> None:
    if type(failure) not in _told:  # it comes again with each span
        _told.add(type(failure))
        _log.error("spans fail: see to the program's OpenTelemetry set-up", exc_info=failure)


def _context_of(parent: str) -> Context | None:
    """The context of a W3C traceparent, if it is one and sampled."""
    parts = parent.split("-")
    try:
        version, trace_id, span_id, flags = parts[:_PARTS]
        found = SpanContext(
            int(trace_id, 16),
            int(span_id, 16),
            is_remote=True,
            trace_flags=TraceFlags(int(flags, 16)),
        )
    except ValueError:
        return None
    if version == "ff" or not found.is_valid or not found.trace_flags.sampled:
        return None
    return trace.set_span_in_context(NonRecordingSpan(found), Context())
