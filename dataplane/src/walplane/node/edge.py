"""One PChannel of a node as clients use it, over gRPC or in the same process. Layer: node.

Contract: what a client may not do is refused before it touches the log. An append that has started
is never cancelled, even when its client goes away: what it does to the log must not depend on who
still listens.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from walplane.message.ids import ResumeToken
from walplane.node.checks import check_append, check_read, check_vchannel
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.interceptors.base import AppendOp
from walplane.wal.ports import AppendResult
from walplane.wal.recovery.named import Standing
from walplane.wal.scan.raw import RawScanner
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind, check_token
from walplane.wal.scan.scanner import WALScanner
from walplane.wal.wal import WAL


class Edge:
    """A WAL that serves, and the moment it ceases to.

    Attributes:
        wal: the log itself.
        gone: done with the reason once the node no longer holds it.
    """

    def __init__(self, wal: WAL) -> None:
        """Wraps an open WAL."""
        self.wal = wal
        self.gone: asyncio.Future[WalError] = asyncio.get_running_loop().create_future()

    @property
    def max_entry_bytes(self) -> int:
        """An entry whose envelope and body are larger together is refused."""
        return self.wal.max_entry_bytes

    @property
    def packed_bytes(self) -> int:
        """What an entry of several messages should not exceed; above, it may be refused."""
        return self.wal.limits.packed_bytes

    @property
    def settled_tick(self) -> int:
        """What is appended from now on gets ticks above this one."""
        return self.wal.settled_tick()

    def check(self, entry: log_pb2.Entry) -> AppendOp:
        """The append of `entry`; raises why a client may not append it: `check_append`."""
        return check_append(entry, self.wal)

    def start_append(self, op: AppendOp) -> asyncio.Future[AppendResult]:
        """Starts an append that was checked; appends keep the order of these calls.

        Raises:
            WalError: the WAL is over or being closed.
        """
        return self.wal.start_append(op)

    async def open_producer(
        self, vchannel: str, name: str, opener: bytes, after_epoch: int
    ) -> Standing:
        """Where a named producer is; with an `opener` it is opened, unless others did meanwhile.

        Raises:
            WalError: CHANNEL_NOT_EXIST or INVALID_ARGUMENT for a wrong VChannel; all else as
                `ProducerOpens.open`.
        """
        check_vchannel(vchannel, self.wal)
        self.wal.check()
        return await self.wal.opens.open(vchannel, name, opener, after_epoch)

    def pin(self, request: ScanRequest) -> ScanRequest:
        """The request with `latest` replaced by where that is now, so that it can be resumed.

        Raises:
            WalError: as `scan`, for which the token would vouch that the VChannel was there.
        """
        if request.start.kind is not StartKind.LATEST:
            return request
        self._check_read(request)
        return replace(request, start=ScanStart(StartKind.TOKEN, self._live_token()))

    def scan(self, request: ScanRequest) -> WALScanner | RawScanner:
        """A read of the log.

        Raises:
            WalError: CHANNEL_NOT_EXIST or INVALID_ARGUMENT for a wrong VChannel or token;
                INVALID_ARGUMENT for a raw read that is more than raw.
        """
        if request.raw:
            self.wal.check()
            return RawScanner(self.wal, request, self.wal.check)
        self._check_read(request)
        check_token(request.start.token, self.wal.pchannel)
        return self.wal.scan(request)

    def position(self, watermark: int) -> ResumeToken | None:
        """Where a reader that has everything up to `watermark` may go on.

        None while `watermark` lags behind the log's own: the entry last delivered tells then.
        """
        token = self._live_token()
        return token if token.time_tick == watermark else None

    def end(self, reason: WalError) -> None:
        """Ends every stream over this WAL; idempotent."""
        if not self.gone.done():
            self.gone.set_result(reason)

    def _check_read(self, request: ScanRequest) -> None:
        looks = bool(request.vchannel) and not request.raw
        if looks and not self.wal.has_vchannel(request.vchannel):
            check_read(request, self.wal, self.wal.recovery.shards)

    def _live_token(self) -> ResumeToken:
        live = self.wal.live_position()
        wal = self.wal
        return ResumeToken(
            live.last_confirmed, live.watermark, wal.term, live.open_number, wal.pchannel
        )
