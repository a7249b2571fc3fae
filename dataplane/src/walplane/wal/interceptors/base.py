"""The contract of the append chain. Layer: wal.

Law: after the backend has acknowledged, no interceptor may fail the append. An interceptor that
does not wait keeps the order of the calls, and the log's order with it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from walplane.rpc.v1 import log_pb2
from walplane.wal.ports import AppendResult
from walplane.wal.timetick.acks import TickRange


@dataclass(slots=True)
class AppendOp:
    """One entry on its way to the log.

    Attributes:
        entry: what is appended.
        size: bytes of its body.
        stored: bytes of its envelope and body.
        ticks: there once the timetick link gave them.
    """

    entry: log_pb2.Entry
    size: int
    stored: int
    ticks: TickRange | None = None


def append_op(entry: log_pb2.Entry, ticks: TickRange | None = None) -> AppendOp:
    """`entry`, measured: protobuf copies and encodes to tell, so this is done once."""
    body = len(entry.body)
    return AppendOp(entry, body, entry.envelope.ByteSize() + body, ticks)


Forward = Callable[[AppendOp], Coroutine[Any, Any, AppendResult]]


class Interceptor(Protocol):
    """One link of the chain."""

    async def append(self, op: AppendOp, forward: Forward) -> AppendResult:
        """Does its part and hands `op` on through `forward`, or answers by itself.

        Raises:
            WalError: `op` is refused; nothing of it was written.
        """
        ...


def chain(links: Sequence[Interceptor], last: Forward) -> Forward:
    """The links, outermost first, before `last`."""
    forward = last
    for link in reversed(links):
        forward = partial(link.append, forward=forward)
    return forward
