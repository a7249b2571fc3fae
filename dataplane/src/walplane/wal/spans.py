"""The spans of one append in the node: `wal.append` and, while it is written, `wal.appendimpl`.

Contract: only entries with a sampled context have them. What is stored carries the context of
`wal.appendimpl`, so that whoever reads goes on from there. Layer: wal.
"""

from __future__ import annotations

import asyncio

from opentelemetry.trace import Span

from walplane.message.types import TYPE_NAMES
from walplane.rpc.v1 import log_pb2
from walplane.tracing import Tracing, attributes_of, end, note, parent_of
from walplane.wal.ports import AppendResult, LogEntry


class AppendSpans:
    """Of one entry; made by `start`."""

    def __init__(self, tracing: Tracing, span: Span) -> None:
        """`span` is that of the whole append."""
        self._tracing = tracing
        self._span = span
        self._writing: Span | None = None

    @classmethod
    def start(cls, tracing: Tracing, envelope: log_pb2.Envelope) -> AppendSpans | None:
        """None when the entry is not traced."""
        if not envelope.trace_parent:
            return None
        attributes = attributes_of(envelope, type_name(envelope.type))
        span = tracing.after(envelope.trace_parent, "wal.append", attributes)
        return None if span is None else cls(tracing, span)

    def sent(self, envelope: log_pb2.Envelope) -> None:
        """Its frame leaves; again, if what became of the one before is not known."""
        if self._writing is not None:
            end(self._writing, LookupError("its outcome is unknown: it is written again"))
        attributes = attributes_of(envelope, type_name(envelope.type))
        self._writing = self._tracing.after(parent_of(self._span), "wal.appendimpl", attributes)
        envelope.trace_parent = parent_of(self._writing) or envelope.trace_parent

    def written(self, log_entry: LogEntry) -> None:
        """It is durable as `log_entry`."""
        note(self._span, "message.timetick", str(log_entry.first_tick))
        end(self._writing)
        self._writing = None

    def ended(self, append: asyncio.Future[AppendResult]) -> None:
        """The append is over: it has its answer."""
        error = None if append.cancelled() else append.exception()
        end(self._writing, error)
        end(self._span, error)


def type_name(number: int) -> str:
    """Name of a message type."""
    return TYPE_NAMES.get(number, str(number))
