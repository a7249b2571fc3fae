"""The way to an owner in the same process: the log itself, no gRPC between. Layer: client."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

import structlog

from walplane.client.batcher import SendBatch
from walplane.client.discovery import Assignment
from walplane.client.results import Written
from walplane.client.transport import (
    Answer,
    ConsumeStream,
    Delivery,
    LocalLog,
    LocalNode,
    LocalScanner,
    OpenedProducer,
    ProducerOpening,
    ProduceStream,
    written,
)
from walplane.message.ids import ResumeToken
from walplane.prompt import PromptFuture, when_done
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.ports import AppendResult
from walplane.wal.scan.request import ScanRequest

_log = structlog.get_logger(__name__)


class LocalTransport:
    """Calls a node in this process."""

    remote = False

    def __init__(self, node: LocalNode) -> None:
        """Reaches `node`."""
        self._node = node

    async def open_produce(self, assignment: Assignment) -> ProduceStream:
        """Appends straight to the log."""
        return _LocalProduce(self._node.edge(assignment.pchannel, assignment.term))

    async def open_producer(self, assignment: Assignment, asked: ProducerOpening) -> OpenedProducer:
        """Asks the log itself."""
        log = self._node.edge(assignment.pchannel, assignment.term)
        standing = await log.open_producer(*asked)
        return OpenedProducer(standing.epoch, standing.next_number)

    async def open_consume(self, assignment: Assignment, request: ScanRequest) -> ConsumeStream:
        """Reads straight from the log."""
        return await _LocalConsume.open(
            self._node.edge(assignment.pchannel, assignment.term), request
        )


class _LocalProduce:
    def __init__(self, log: LocalLog) -> None:
        self._log = log
        self._ready: list[Answer] = []
        self._rest: PromptFuture[None] | None = None  # of `receive`, while there is no answer
        log.gone.add_done_callback(self._gone)

    @property
    def max_entry_bytes(self) -> int:
        return self._log.max_entry_bytes

    @property
    def packed_bytes(self) -> int:
        return self._log.packed_bytes

    @property
    def settled_tick(self) -> int:
        return self._log.settled_tick

    async def send(self, request_id: int, batch: SendBatch) -> None:
        entry = log_pb2.Entry()
        batch.fill(entry)
        try:
            op = self._log.check(entry)
            op.deadline = batch.until
            append = self._log.start_append(op)
        except WalError as error:
            self._answer(request_id, error)
        else:
            when_done(append, partial(self._done, request_id))

    async def receive(self) -> Sequence[Answer]:
        while not self._ready:
            if self._log.gone.done():
                raise self._log.gone.result()
            self._rest = PromptFuture()
            await self._rest
        ready, self._ready = self._ready, []
        return ready

    async def close(self) -> None:
        self._log.gone.remove_done_callback(self._gone)

    def _done(self, request_id: int, append: asyncio.Future[AppendResult]) -> None:
        if append.cancelled():
            stopped = WalError(ErrorCode.ON_SHUTDOWN, "the node stopped: ask discovery")
            self._answer(request_id, stopped)
        elif (error := append.exception()) is None:
            self._answer(request_id, written(append.result()))
        elif isinstance(error, WalError):
            self._answer(request_id, error)
        else:
            _log.error("append failed", exc_info=error)
            self._answer(request_id, WalError(ErrorCode.INNER, f"append failed: {error!r}"))

    def _answer(self, request_id: int, outcome: Written | WalError) -> None:
        self._ready.append((request_id, outcome))
        self._wake()

    def _gone(self, _: asyncio.Future[WalError]) -> None:
        self._wake()

    def _wake(self) -> None:
        rest, self._rest = self._rest, None
        if rest is not None and not rest.done():
            rest.set_result(None)


class _LocalConsume:
    def __init__(
        self,
        log: LocalLog,
        scanner: LocalScanner,
        taken: AsyncExitStack,
        pinned: ResumeToken | None,
    ) -> None:
        self._log = log
        self._scanner = scanner
        self._taken = taken
        self._pinned = pinned

    @classmethod
    async def open(cls, log: LocalLog, asked: ScanRequest) -> _LocalConsume:
        async with AsyncExitStack() as taken:
            request = log.pin(asked)
            scanner = await taken.enter_async_context(log.scan(request))
            pinned = request.start.token if request is not asked else None
            return cls(log, scanner, taken.pop_all(), pinned)

    async def receive(self) -> Delivery:
        if self._pinned is not None:
            pinned, self._pinned = self._pinned, None
            return Delivery([], 0, end=False, position=pinned)
        batch = await self._scanner.next()
        position = None if batch.entries else self._log.position(batch.watermark)
        return Delivery(batch.entries, batch.watermark, batch.end, position, batch.begins_at)

    async def grant(self, size: int) -> None:
        """Nothing to do: the log is read only as far as `receive` is called."""

    async def close(self) -> None:
        await self._taken.aclose()
