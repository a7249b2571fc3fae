"""The spans of what a program appends. Layer: client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from walplane.message.builder import MutableMessage
from walplane.tracing import Attributes, Tracing, end, parent_of


@contextmanager
def autocommit(
    tracing: Tracing, messages: Sequence[MutableMessage]
) -> Iterator[Sequence[MutableMessage]]:
    """Gives the messages with the context of a `wal.autocommit` around the body.

    Those that have a context of their own keep it; all are as they were when it is not sampled.
    """
    attributes: Attributes = {}
    if messages:
        first = messages[0]
        attributes = {"message.type": first.type.name, "message.vchannel": first.vchannel}
    span = tracing.root("wal.autocommit", attributes)
    if span is None:
        yield messages
        return
    parent = parent_of(span)
    traced = [replace(each, trace_parent=each.trace_parent or parent) for each in messages]
    try:
        yield traced
    except BaseException as error:
        end(span, error)
        raise
    end(span)
