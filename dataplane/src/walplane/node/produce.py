"""One Produce stream: appends in, grouped answers out.

Contract: appends start in the order they arrive; any number are in flight, bounded in bytes, of the
stream, of its PChannel and of the node: above it the stream is not read on, and an append that may
not wait any longer is refused. Answers leave in the order they become ready, all that are
ready in one response; a client that takes too few of them is not read on either. Layer: node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import structlog

from walplane.node.config import NodeConfig
from walplane.node.edge import Edge
from walplane.prompt import PromptTask, when_done
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.flow import ByteBudget
from walplane.rpc.v1 import streaming_pb2
from walplane.wal.interceptors.base import AppendOp
from walplane.wal.interceptors.lock import waited_too_long
from walplane.wal.ports import AppendResult

_log = structlog.get_logger(__name__)

MOST_UNTAKEN = 4096
"""Answers that wait to be taken; above it the stream is not read on."""

WriteResponse = Callable[[streaming_pb2.ProduceResponse], Coroutine[Any, Any, None]]


class ProduceStream:
    """The appends of one client to one PChannel.

    Attributes:
        budgets: bytes in flight: its own, then those it shares; an append takes of each in turn.
    """

    def __init__(
        self, edge: Edge, shared: Sequence[ByteBudget], config: NodeConfig, write: WriteResponse
    ) -> None:
        """Appends through `edge`.

        Args:
            edge: the log.
            shared: bytes in flight over all streams of the PChannel, then over those of the node.
            config: limits.
            write: sends one response to the client.
        """
        self._edge = edge
        self._write = write
        self._drain_timeout_s = config.drain_timeout_s
        self.budgets = (ByteBudget(config.stream_append_bytes), *shared)
        self._in_flight = 0
        self._ready = streaming_pb2.ProduceResponse()
        self._taken = asyncio.Event()
        self._flush_due = False
        self._writing: PromptTask[None] | None = None
        self._finished = False  # nothing more is read
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, requests: AsyncIterator[streaming_pb2.ProduceRequest]) -> None:
        """Serves until the client half-closes and everything is answered.

        Raises:
            WalError: why the PChannel is no longer held; INVALID_ARGUMENT for a broken protocol.
        """
        reader = asyncio.create_task(self._read(requests), name="produce-reader")
        gone = self._edge.gone
        try:
            signals: set[asyncio.Future[Any]] = {reader, self._over, gone}
            await asyncio.wait(signals, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                reader.cancel()
            self._finished = True
            self._flush()
            async with asyncio.timeout(self._drain_timeout_s):
                await self._over
        except TimeoutError:
            _log.warning("produce stream ends unanswered", appends=self._in_flight)
        finally:
            self._over.cancel()
            left: list[asyncio.Future[None]] = [reader]
            if self._writing is not None:
                left.append(self._writing)
            for task in left:  # a client that reads nothing lets a write wait for ever
                task.cancel()
            await asyncio.wait(left)
        if not reader.cancelled() and (error := reader.exception()) is not None:
            raise error
        if gone.done():
            raise gone.result()

    async def _read(self, requests: AsyncIterator[streaming_pb2.ProduceRequest]) -> None:
        async for request in requests:
            if request.WhichOneof("kind") != "append":
                raise WalError(
                    ErrorCode.INVALID_ARGUMENT, "a Produce stream is opened once, then appends"
                )
            await self._start(request.append)
            if self._writing is not None and len(self._ready.appends) > MOST_UNTAKEN:
                self._taken.clear()
                await self._taken.wait()

    async def _start(self, request: streaming_pb2.AppendRequest) -> None:
        try:
            op = self._edge.check(request.entry)
        except WalError as error:
            self._refuse(request.request_id, error)
            return
        if request.wait_ms:
            op.deadline = asyncio.get_running_loop().time() + request.wait_ms / 1000
        try:
            for place, budget in enumerate(self.budgets):
                if not budget.try_acquire(op.stored):  # first: a coroutine each costs more
                    await self._wait_for_room(op, place)
                    break
        except WalError as error:
            self._refuse(request.request_id, error)
            return
        op.answer = partial(self._durable, request.request_id, op)
        try:
            append = self._edge.start_append(op)
        except WalError as error:
            self._release(op.stored)
            self._refuse(request.request_id, error)
            return
        self._in_flight += 1
        when_done(append, partial(self._done, request.request_id, op))

    async def _wait_for_room(self, op: AppendOp, full: int) -> None:
        """Waits for room in the budgets from `full` on; those before it gave theirs.

        Raises:
            WalError: RESOURCE_ACQUIRED at the append's deadline. Then, and cancelled, it has none.
        """
        taken, meter = list(self.budgets[:full]), self._edge.wal.meter
        meter.held_back += 1
        try:
            async with asyncio.timeout_at(op.deadline):
                for budget in self.budgets[full:]:
                    await budget.acquire(op.stored)
                    taken.append(budget)
        except BaseException as error:
            for budget in taken:
                budget.release(op.stored)
            if isinstance(error, TimeoutError):
                raise waited_too_long(op, "room among what is in flight") from None
            raise
        finally:
            meter.held_back -= 1

    def _answer(self, request_id: int, result: AppendResult) -> None:
        self._in_flight -= 1
        result.write_to(self._ready.appends.add(request_id=request_id).result)
        self._answered()

    def _durable(self, request_id: int, op: AppendOp, entry: asyncio.Future[AppendResult]) -> None:
        """Answers before the chain lets go; a failure is told when the append is over."""
        if not entry.cancelled() and entry.exception() is None:
            op.answer = None
            self._answer(request_id, entry.result())

    def _done(self, request_id: int, op: AppendOp, append: asyncio.Future[AppendResult]) -> None:
        self._release(op.stored)
        error = _error_of(append)
        if op.answer is None:  # it was answered
            return
        if error is None:
            self._answer(request_id, append.result())
        else:
            self._in_flight -= 1
            self._refuse(request_id, error)

    def _refuse(self, request_id: int, error: WalError) -> None:
        self._edge.wal.meter.refused[error.code] += 1
        self._ready.appends.add(request_id=request_id, error=error.to_proto())
        self._answered()

    def _answered(self) -> None:
        """Sends an answer with all others of this turn; the last one due goes at once."""
        if not self._in_flight:
            self._flush()
        elif not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _release(self, size: int) -> None:
        for budget in self.budgets:
            budget.release(size)

    def _flush(self) -> None:
        """Sends what is ready, unless something is being sent; notes when that was the last."""
        self._flush_due = False
        if self._writing is not None or self._over.done():
            return
        if self._ready.appends:
            ready, self._ready = self._ready, streaming_pb2.ProduceResponse()
            self._taken.set()
            ready.settled_tick = self._edge.settled_tick
            ready.packed_bytes = self._edge.packed_bytes
            self._writing = PromptTask(self._write(ready))
            self._writing.listen(self._written)
        elif self._finished and not self._in_flight:
            self._over.set_result(None)

    def _written(self, write: asyncio.Future[None]) -> None:
        self._writing = None
        if write.cancelled():
            self._over.cancel()
        elif (error := write.exception()) is None:
            self._flush()
        elif not self._over.done():
            self._over.set_exception(error)


def _error_of(append: asyncio.Future[AppendResult]) -> WalError | None:
    if append.cancelled():
        return WalError(ErrorCode.ON_SHUTDOWN, "the node stopped: send it again to the owner")
    error = append.exception()
    if error is None or isinstance(error, WalError):
        return error
    _log.error("append failed", exc_info=error)
    return WalError(ErrorCode.INNER, f"append failed: {error!r}; send it again")
