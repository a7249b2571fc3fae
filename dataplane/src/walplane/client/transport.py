"""How a client reaches the owner of a PChannel: over gRPC, or in the same process.

Contract: a stream belongs to one owner under one term. It ends with the `WalError` that tells what
to do next; closing it releases everything at once and is idempotent. Layer: client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from walplane.client.batcher import SendBatch
from walplane.client.discovery import Assignment
from walplane.client.results import Written
from walplane.message.ids import MessageID, ResumeToken
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.interceptors.base import AppendOp
from walplane.wal.ports import AppendResult, LogEntry
from walplane.wal.recovery.named import Standing
from walplane.wal.scan.request import ScanBatch, ScanRequest

Answer = tuple[int, Written | WalError]
"""Number of a request, and what became of it."""


class Delivery(NamedTuple):
    """What a reader gets in one piece.

    Attributes:
        entries: in tick order.
        watermark: no entry at or below this tick will follow; 0 says nothing.
        end: the present end, of a read that does not follow.
        position: when set, a reader that has all of the above may resume here.
        begins_at: where a read without a token begins, once: no message of it lies before.
    """

    entries: Sequence[LogEntry]
    watermark: int
    end: bool
    position: ResumeToken | None
    begins_at: MessageID | None = None


class ProducerOpening(NamedTuple):
    """What is asked about a named producer.

    Attributes:
        vchannel: where it appends.
        name: its name.
        opener: who opens it; empty = only ask.
        after_epoch: the epoch that the opener knows of.
    """

    vchannel: str
    name: str
    opener: bytes = b""
    after_epoch: int = 0


class OpenedProducer(NamedTuple):
    """Where a named producer is.

    Attributes:
        epoch: grows with each open; 0 = nobody opened it yet.
        next_number: of the first message that is not in the log.
    """

    epoch: int
    next_number: int


class ProduceStream(Protocol):
    """Appends to one PChannel."""

    @property
    def max_entry_bytes(self) -> int:
        """An entry whose envelope and body are larger together is refused."""
        ...

    @property
    def packed_bytes(self) -> int:
        """What an entry of several messages should not exceed; may become less."""
        ...

    @property
    def settled_tick(self) -> int:
        """What is sent from now on gets ticks above this one."""
        ...

    async def send(self, request_id: int, batch: SendBatch) -> None:
        """Hands over one batch; batches arrive in the order of the calls.

        Raises:
            WalError: the stream is broken.
        """
        ...

    async def receive(self) -> Sequence[Answer]:
        """The next answers, at least one.

        Raises:
            WalError: why there will be no more.
        """
        ...

    async def close(self) -> None:
        """Lets go; what was sent may still be written."""
        ...


class ConsumeStream(Protocol):
    """Entries of one PChannel."""

    async def receive(self) -> Delivery:
        """The next entries, a higher watermark, or the end.

        Raises:
            WalError: why there will be no more.
        """
        ...

    async def grant(self, size: int) -> None:
        """Allows so many more bytes of entry bodies."""
        ...

    async def close(self) -> None:
        """Stops reading."""
        ...


class Transport(Protocol):
    """A way to an owner."""

    @property
    def remote(self) -> bool:
        """Whether it leads out of this process."""
        ...

    async def open_produce(self, assignment: Assignment) -> ProduceStream:
        """A stream of appends to the owner.

        Raises:
            WalError: it cannot be reached, or does not hold the PChannel under that term.
        """
        ...

    async def open_producer(self, assignment: Assignment, asked: ProducerOpening) -> OpenedProducer:
        """Asks the owner about a named producer, or to open it.

        Raises:
            WalError: it cannot be reached, or refuses.
        """
        ...

    async def open_consume(self, assignment: Assignment, request: ScanRequest) -> ConsumeStream:
        """A stream of entries from the owner.

        Raises:
            WalError: it cannot be reached; the first `receive` tells what else is wrong.
        """
        ...


class LocalScanner(Protocol):
    """One read of a log in this process."""

    async def next(self) -> ScanBatch:
        """The next batch; waits for it."""
        ...


class LocalLog(Protocol):
    """A PChannel's log in this process."""

    @property
    def max_entry_bytes(self) -> int:
        """An entry whose envelope and body are larger together is refused."""
        ...

    @property
    def packed_bytes(self) -> int:
        """What an entry of several messages should not exceed."""
        ...

    @property
    def settled_tick(self) -> int:
        """What is appended from now on gets ticks above this one."""
        ...

    @property
    def gone(self) -> asyncio.Future[WalError]:
        """Done with the reason once the node no longer holds it."""
        ...

    def start_append(self, op: AppendOp) -> asyncio.Future[AppendResult]:
        """Starts an append that was checked; nothing cancels it.

        Raises:
            WalError: the log takes no more.
        """
        ...

    def check(self, entry: log_pb2.Entry) -> AppendOp:
        """The append of `entry`; raises why a client may not append it."""
        ...

    async def open_producer(
        self, vchannel: str, name: str, opener: bytes, after_epoch: int
    ) -> Standing:
        """Where a named producer is; with an `opener` it is opened."""
        ...

    def pin(self, request: ScanRequest) -> ScanRequest:
        """The request with `latest` replaced by where that is now."""
        ...

    def scan(self, request: ScanRequest) -> AbstractAsyncContextManager[LocalScanner]:
        """A read of the log."""
        ...

    def position(self, watermark: int) -> ResumeToken | None:
        """Where a reader that has everything up to `watermark` may go on, where that is known."""
        ...


class LocalNode(Protocol):
    """A StreamingNode in this process."""

    def edge(self, pchannel: str, term: int) -> LocalLog:
        """The log of `pchannel`, held under `term`.

        Raises:
            WalError: it is not held so.
        """
        ...


LocalNodes = Mapping[str, LocalNode]
"""By node id."""


def written(result: AppendResult) -> Written:
    """A result of the log, as parcels take it."""
    return Written(result.message_id, result.first_tick, result.last_confirmed)
