"""The coordinator's timestamp oracle, over gRPC: `TimestampOracle` for nodes in other processes.

Contract: every call has a deadline. A coordinator that cannot be reached, or does not lead, is
`CoordinatorAwayError`; what the oracle itself refuses keeps its code, INNER when it cannot write. A
process that answers but does not lead is left: the next call goes over a new connection, which a
Service may send to another. `fresh` and `answers` wait for a coordinator, and for what it writes
to, for a while, so that its change of leader fails no open. Layer: node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import grpc
import structlog

from walplane.lease.report import CoordinatorAwayError
from walplane.rpc.channel import Connect
from walplane.rpc.channel import connect as connect_grpc
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import coord_pb2, coord_pb2_grpc
from walplane.wal.ports import TickBatch

_log = structlog.get_logger(__name__)

CALL_TIMEOUT_S = 5.0
"""Longer than the oracle waits for its meta topic, so that its answer comes first."""

FRESH_PATIENCE_S = 30.0
_PAUSE_S = (0.1, 1.0)
_AWAY = {ErrorCode.ON_SHUTDOWN, ErrorCode.UNKNOWN}

_Answer = TypeVar("_Answer")
_Call = Callable[["coord_pb2_grpc.TimestampOracleAsyncStub"], Awaitable[_Answer]]


class RemoteOracle:
    """Ticks from the coordinator at one address."""

    def __init__(
        self,
        address: str,
        call_timeout_s: float = CALL_TIMEOUT_S,
        fresh_patience_s: float = FRESH_PATIENCE_S,
        connect: Connect = connect_grpc,
    ) -> None:
        """Connects at the first call; `address` is host:port."""
        self._address = address
        self._call_timeout_s = call_timeout_s
        self._fresh_patience_s = fresh_patience_s
        self._connect = connect
        self._channel: grpc.aio.Channel | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def batch(self, terms: Mapping[str, int], size: int) -> TickBatch:
        """See `TimestampOracle`."""
        request = coord_pb2.TickBatchRequest(terms=terms, count=size)
        answer = await self._call(
            lambda stub: stub.TickBatch(request, timeout=self._call_timeout_s)
        )
        return TickBatch(answer.first, answer.count, frozenset(answer.lost), answer.ahead_ms)

    async def fresh(self, pchannel: str, term: int) -> int:
        """See `TimestampOracle`."""
        request = coord_pb2.FreshTickRequest(pchannel=pchannel, term=term)
        answer = await self._patiently(
            lambda stub: stub.FreshTick(request, timeout=self._call_timeout_s)
        )
        return answer.tick

    async def answers(self) -> None:
        """Returns once the coordinator has given a tick, which is thrown away.

        What a node has in reserve says nothing of that: it lasts while the coordinator is away.

        Raises:
            WalError: as `fresh`, after it waited as long.
        """
        request = coord_pb2.TickBatchRequest(count=1)
        await self._patiently(lambda stub: stub.TickBatch(request, timeout=self._call_timeout_s))

    async def close(self) -> None:
        """Ends the connection."""
        self._leave()
        if self._closing:
            await asyncio.wait(self._closing)

    async def _patiently(self, call: _Call[_Answer]) -> _Answer:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._fresh_patience_s
        pause, most = _PAUSE_S
        while True:
            try:
                return await self._call(call)
            except WalError as error:  # one that is away is INNER too
                if error.code is not ErrorCode.INNER or loop.time() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, most)

    async def _call(self, call: _Call[_Answer]) -> _Answer:
        if self._channel is None:
            self._channel = self._connect(self._address)
        channel = self._channel
        try:
            return await call(coord_pb2_grpc.TimestampOracleStub(channel))
        except grpc.aio.AioRpcError as error:
            subject = f"the coordinator at {self._address}"
            typed = WalError.from_rpc(error, subject)
            if typed.code is ErrorCode.INNER:
                raise WalError(
                    typed.code,
                    f"{subject} answers: {typed.message}",
                    retry_after_ms=typed.retry_after_ms,
                ) from error
            if typed.code not in _AWAY:
                raise typed from error
            if self._channel is channel:
                self._leave()
            raise CoordinatorAwayError(typed.message) from error

    def _leave(self) -> None:
        """The next call makes a new connection."""
        channel, self._channel = self._channel, None
        if channel is not None:
            closing = asyncio.create_task(channel.close(self._call_timeout_s), name="leave-coord")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
