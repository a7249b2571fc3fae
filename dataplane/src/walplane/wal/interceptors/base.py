"""The contract of the append chain. Layer: wal.

Law: after the backend has acknowledged, no interceptor may fail the append. An interceptor that
does not wait keeps the order of the calls, and the log's order with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from walplane.message.txn import is_part, txn_of
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.ports import AppendResult
from walplane.wal.spans import AppendSpans
from walplane.wal.timetick.acks import TickRange


@dataclass(slots=True)
class AppendOp:
    """One entry on its way to the log.

    Attributes:
        entry: what is appended.
        envelope: that of `entry`; this and the next five are read many times, and protobuf makes an
            object or looks a name up for each who asks.
        kind: number of its type.
        vchannel: its VChannel.
        count: messages in it.
        part: whether it is a part of a transaction of several entries.
        txn_id: which one it continues or ends; 0 for all else.
        size: bytes of its body.
        stored: bytes of its envelope and body.
        body: that of `entry`, until it is sent: protobuf copies it for each who asks.
        ticks: there once the timetick link gave them.
        lead: the tick just below, of an entry of the WAL's own that must precede this one.
        before: the outcome of its producer's batch before it, when that was in flight too.
        own: whether the WAL made it, and no client.
        since: when it came, in monotonic seconds.
        spans: when it is traced.
        deadline: until when it may wait for a lock, in the loop's time; None = as long as it takes.
        answer: told what became of the entry before the chain learns of it; never of one that was
            not queued: what was refused before, or a repeat.
    """

    entry: log_pb2.Entry
    envelope: log_pb2.Envelope
    kind: int
    vchannel: str
    count: int
    part: bool
    txn_id: int
    size: int
    stored: int
    body: bytes | None = None
    ticks: TickRange | None = None
    lead: TickRange | None = None
    before: asyncio.Future[AppendResult] | None = None
    own: bool = False
    since: float = 0.0
    spans: AppendSpans | None = None
    deadline: float | None = None
    answer: Callable[[asyncio.Future[AppendResult]], object] | None = None

    def take_body(self) -> bytes:
        """The body of the entry, which is kept no longer."""
        body, self.body = self.body, None
        return self.entry.body if body is None else body

    def check_before(self) -> None:
        """Makes sure that the batch before was not refused while both waited.

        Raises:
            WalError: INVALID_REQUEST_SEQ; the log must not hold batch n + 1 without n.
        """
        before = self.before
        if before is not None and before.done() and before.exception() is not None:
            raise WalError(
                ErrorCode.INVALID_REQUEST_SEQ,
                f"the batch before this one for {self.vchannel} was refused: send that again first",
            )


def append_op(entry: log_pb2.Entry, ticks: TickRange | None = None) -> AppendOp:
    """`entry`, measured: protobuf copies and encodes to tell, so this is done once."""
    body, envelope = entry.body, entry.envelope
    size = len(body)
    part = is_part(envelope)
    return AppendOp(
        entry,
        envelope,
        envelope.type,
        envelope.vchannel,
        envelope.count,
        part,
        txn_of(envelope) if part else 0,
        size,
        envelope.ByteSize() + size,
        body,
        ticks,
    )


Forward = Callable[[AppendOp], Awaitable[AppendResult]]


class Interceptor(Protocol):
    """One link of the chain."""

    def append(self, op: AppendOp, forward: Forward) -> Awaitable[AppendResult]:
        """Does its part and hands `op` on through `forward`, or answers by itself.

        A link that has nothing to do afterwards returns what `forward` returns: no coroutine of
        its own has to be made and resumed then.

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
