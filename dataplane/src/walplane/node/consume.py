"""One Consume stream: entries out, as far as the client's credit goes. Layer: node.

Contract: entries leave in tick order, several a response; a response is sent only while credit is
above zero, so that at most one response exceeds it. While nothing is delivered, a watermark that
moves leaves as a response of its own, and so does each read of the backend. Without credit the log
is not read on, and without a turn nothing of it is held.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from walplane.message.ids import MessageID, ResumeToken
from walplane.message.registry import spec_of
from walplane.node.config import NodeConfig
from walplane.node.delivery import Part, next_part, response
from walplane.node.edge import Edge
from walplane.node.turns import ReadTurns
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import streaming_pb2
from walplane.wal.scan.raw import RawScanner
from walplane.wal.scan.request import Only, ScanBatch, ScanRequest, ScanStart, StartKind
from walplane.wal.scan.scanner import WALScanner

WriteResponse = Callable[[bytes], Awaitable[None]]
"""Takes a serialised `ConsumeResponse`."""


_KINDS = frozenset(kind.value for kind in StartKind)


class ConsumeStream:
    """What one client reads of one PChannel."""

    def __init__(
        self,
        edge: Edge,
        start: streaming_pb2.StartConsume,
        config: NodeConfig,
        write: WriteResponse,
        turns: ReadTurns,
    ) -> None:
        """Reads through `edge` from `start`; `write` sends one response, when it is its turn.

        Raises:
            WalError: INVALID_ARGUMENT for a start that lacks its token or id.
        """
        self._edge = edge
        self._asked = scan_request(start)
        self._write = write
        self._turns = turns
        self._lost: asyncio.Future[WalError] = asyncio.get_running_loop().create_future()
        self._response_bytes = config.response_bytes
        self._most_credit = config.credit_bytes
        self._patience_s = config.reader_patience_s
        self._credit = min(start.credit_bytes, self._most_credit)
        self._granted = asyncio.Event()

    async def run(self, requests: AsyncIterator[streaming_pb2.ConsumeRequest]) -> None:
        """Serves until the present end (when not following) or the client half-closes.

        Raises:
            WalError: why the log cannot be read on, or why it is no longer held.
        """
        reader = asyncio.create_task(self._read(requests), name="consume-reader")
        sender = asyncio.create_task(self._send(), name="consume-sender")
        gone = self._edge.gone
        try:
            signals: set[asyncio.Future[Any]] = {reader, sender, gone, self._lost}
            await asyncio.wait(signals, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.cancel()
            sender.cancel()
            await asyncio.wait({reader, sender})
        for task in (sender, reader):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        for reason in (gone, self._lost):
            if sender.cancelled() and reason.done():
                raise reason.result()

    async def _read(self, requests: AsyncIterator[streaming_pb2.ConsumeRequest]) -> None:
        async for request in requests:
            if request.WhichOneof("kind") != "credit_bytes":
                raise WalError(
                    ErrorCode.INVALID_ARGUMENT, "a Consume stream is started once, then credit"
                )
            self._credit = min(self._credit + request.credit_bytes, self._most_credit)
            self._granted.set()

    async def _send(self) -> None:
        request = self._edge.pin(self._asked)
        async with self._edge.scan(request) as scanner:
            if request is not self._asked and request.start.token is not None:
                position = request.start.token.to_proto()
                await self._write(response([], streaming_pb2.ConsumeResponse(position=position)))
            end = False
            while not end:
                await self._wait_for_credit(scanner)
                await scanner.ready()
                async with self._turns.turn(self._lost):
                    end = await self._send_read(scanner)

    async def _send_read(self, scanner: WALScanner | RawScanner) -> bool:
        """Sends what one read of the log gives, all of it: nothing is held without a turn.

        Returns:
            Whether that was the end.
        """
        while True:
            batch = await scanner.next(wait=False)
            await self._send_batch(batch)
            end = batch.end
            del batch  # before the next one is made
            if end or not scanner.holding:
                return end
            await self._wait_for_credit()

    async def _send_batch(self, batch: ScanBatch) -> None:
        entries = iter(batch.entries)
        part = await next_part(entries, self._response_bytes) or Part([], 0)
        begins_at = batch.begins_at
        while True:
            await self._wait_for_credit()
            after = await next_part(entries, self._response_bytes)
            self._credit -= part.credit
            self._edge.wal.meter.delivered_bytes += part.credit
            rest = streaming_pb2.ConsumeResponse()
            if begins_at is not None:
                rest.begins_at.CopyFrom(begins_at.to_proto())
                begins_at = None
            if after is None:
                rest.watermark, rest.end = batch.watermark, batch.end
                position = None if part.pieces else self._edge.position(batch.watermark)
                if position is not None:
                    rest.position.CopyFrom(position.to_proto())
            await self._write(response(part.pieces, rest))
            self._turns.taken(self._lost)
            if after is None:
                return
            part = after

    async def _wait_for_credit(self, scanner: WALScanner | RawScanner | None = None) -> None:
        """Returns once there is credit; a reader without any for long lets go of the backend."""
        while self._credit <= 0:
            self._granted.clear()
            try:
                async with asyncio.timeout(self._patience_s if scanner is not None else None):
                    await self._granted.wait()
            except TimeoutError:
                if scanner is not None:
                    await scanner.rest()
                    scanner = None


def scan_request(start: streaming_pb2.StartConsume) -> ScanRequest:
    """What the client asked for, in the WAL's terms.

    Raises:
        WalError: INVALID_ARGUMENT when the position lacks its token or id.
    """
    position = start.start
    kind = StartKind(position.kind) if position.kind in _KINDS else None
    by_id = kind in (StartKind.FROM_ID, StartKind.AFTER_ID)
    by_token = kind is StartKind.TOKEN
    lacks_id = by_id and not position.HasField("message_id")
    lacks_token = by_token and not position.HasField("token")
    if kind is None or lacks_id or lacks_token:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"a read of {start.pchannel} names no start: a kind, with its token or message id",
        )
    return ScanRequest(
        start=ScanStart(
            kind=kind,
            token=ResumeToken.from_proto(position.token) if by_token else None,
            message_id=MessageID.from_proto(position.message_id) if by_id else None,
        ),
        vchannel=start.vchannel,
        follow=start.follow,
        only=Only(
            types=frozenset(spec_of(number).type for number in start.types),
            from_tick=start.from_tick,
            until_tick=start.until_tick,
        ),
        raw=start.raw,
    )
