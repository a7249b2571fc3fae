"""Reads a PChannel's entries as they lie in its log, over failures of its owners. Layer: client.

Contract: each entry once, in the order of the log, to the end that the log had when an owner was
last asked. After a failure it goes on behind the last entry it had. Closing it ends what waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import structlog

from walplane.client.closing import unless_closed
from walplane.client.config import ClientConfig
from walplane.client.discovery import Assignment, Discovery
from walplane.client.transport import ConsumeStream, Delivery, Transport
from walplane.message.ids import MessageID
from walplane.rpc.errors import Action, ErrorCode, WalError
from walplane.wal.ports import LogEntry
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind

_Step = TypeVar("_Step")

_log = structlog.get_logger(__name__)


class RawReader:
    """One read of one PChannel."""

    def __init__(
        self,
        pchannel: str,
        discovery: Discovery,
        transport: Callable[[Assignment], Transport],
        config: ClientConfig,
    ) -> None:
        """Reads nothing before `pieces` is iterated."""
        self._pchannel = pchannel
        self._discovery = discovery
        self._transport = transport
        self._config = config
        self._last: MessageID | None = None
        self._ended = False
        self._stream: ConsumeStream | None = None
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        """Ends the read, also one under way in another task; idempotent."""
        if not self._closed.done():
            self._closed.set_result(None)
        self._ended = True
        await self._let_go()

    async def pieces(self) -> AsyncGenerator[Sequence[LogEntry], None]:
        """The entries, some at a time; they end when the reader is closed.

        Raises:
            WalError: it cannot be read on, or nobody answered for `append_timeout_s`.
        """
        delay = least = self._config.backoff_min_s
        failed_since: float | None = None
        while not self._ended:
            try:
                async with aclosing(self._from_one_owner()) as owner:
                    async for new in owner:
                        delay, failed_since = least, None
                        yield new
            except WalError as error:
                now = asyncio.get_running_loop().time()
                if self._closed.done():
                    return
                failed_since = failed_since or now
                late = now - failed_since > self._config.append_timeout_s
                if error.action is Action.GIVE_UP or late:
                    raise
                _log.debug("raw read interrupted", pchannel=self._pchannel, error=str(error))
                await asyncio.wait({self._closed}, timeout=delay)
                delay = min(delay * 2, self._config.backoff_max_s)

    async def _from_one_owner(self) -> AsyncGenerator[Sequence[LogEntry], None]:
        try:
            stream = await self._unless_closed(self._open())
            while stream is not None and not self._ended:
                delivery = await self._unless_closed(self._receive(stream))
                if delivery is None:
                    return
                new = [item for item in delivery.entries if self._is_new(item)]
                if new:
                    self._last = new[-1].message_id
                    yield new
                self._ended = self._ended or delivery.end
                if delivery.entries and not self._ended:
                    await stream.grant(sum(item.size for item in delivery.entries))
        finally:
            await self._let_go()

    async def _unless_closed(self, step: Coroutine[Any, Any, _Step]) -> _Step | None:
        return await unless_closed(self._closed, step, f"read-raw-{self._pchannel}")

    async def _open(self) -> ConsumeStream:
        patience = self._config.append_timeout_s
        assignment = await self._discovery.wait_for_assignment(self._pchannel, patience)
        transport = self._transport(assignment)
        self._stream = await transport.open_consume(assignment, self._request())
        return self._stream  # kept first: whoever asked may be gone

    async def _let_go(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    async def _receive(self, stream: ConsumeStream) -> Delivery:
        try:
            async with asyncio.timeout(self._config.append_timeout_s):
                return await stream.receive()
        except TimeoutError as error:
            text = f"nobody answered a read of {self._pchannel}: see `walplane status`"
            raise WalError(ErrorCode.INNER, text) from error

    def _request(self) -> ScanRequest:
        start = ScanStart(StartKind.EARLIEST)
        if self._last is not None:
            start = ScanStart(StartKind.FROM_ID, message_id=self._last)
        return ScanRequest(start, follow=False, raw=True)

    def _is_new(self, item: LogEntry) -> bool:
        return self._last is None or item.message_id > self._last
