"""Transactions on one log in a test: entries to append, and a client's reader over a bare WAL.

Layer: testkit; for tests only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import cast

from walplane.client.config import ClientConfig
from walplane.client.discovery import Assignment, Discovery
from walplane.client.local_transport import LocalTransport
from walplane.client.reader import Reader
from walplane.client.transport import Transport
from walplane.message import codec
from walplane.message.ids import ResumeToken
from walplane.message.registry import MessageType, spec_of
from walplane.message.txn_view import AnyBatch, ImmutableTxnMessage
from walplane.node.edge import Edge
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.testkit.wal_world import V
from walplane.wal.ports import AppendResult
from walplane.wal.scan.request import EVERYTHING, Only, ScanRequest, ScanStart, StartKind
from walplane.wal.scan.scanner import WALScanner
from walplane.wal.wal import WAL

HOUR_MS = 3_600_000


def txn_entry(
    kind: MessageType,
    vchannel: str,
    txn_id: int = 0,
    *payloads: bytes,
    keepalive_ms: int = 0,
    whole: bool = False,
    producer: tuple[bytes, int] | None = None,
) -> log_pb2.Entry:
    """An entry of a transaction, of any kind; `producer` is (id, batch number)."""
    payloads = payloads or (b"",)
    envelope = log_pb2.Envelope(version=1, type=kind, vchannel=vchannel, count=len(payloads))
    envelope.txn.kind = log_pb2.TXN_KIND_WHOLE if whole else log_pb2.TXN_KIND_PART
    envelope.txn.txn_id = txn_id
    envelope.txn.keepalive_ms = keepalive_ms
    if producer is not None:
        envelope.producer.producer_id, envelope.producer.number = producer
    header = spec_of(kind).header().SerializeToString()
    return codec.seal_entry(envelope, codec.encode_body(header, payloads))


def exclusive_entry(vchannel: str) -> log_pb2.Entry:
    """A ManualFlush of `vchannel`, or a FlushAll of the whole PChannel when that is empty."""
    kind = MessageType.MANUAL_FLUSH if vchannel else MessageType.FLUSH_ALL
    envelope = log_pb2.Envelope(
        version=1, type=kind, vchannel=vchannel, count=1, is_pchannel_level=not vchannel
    )
    return codec.seal_entry(envelope, codec.encode_body(b"", [b""]))


async def begin(wal: WAL, vchannel: str, keepalive_ms: int = HOUR_MS) -> int:
    """Begins a transaction; its id."""
    entry = txn_entry(MessageType.BEGIN_TXN, vchannel, keepalive_ms=keepalive_ms)
    return (await wal.append(entry)).first_tick


async def body(wal: WAL, txn: int, *payloads: bytes, vchannel: str = V) -> AppendResult:
    """Appends an Insert to a transaction."""
    return await wal.append(txn_entry(MessageType.INSERT, vchannel, txn, *payloads))


async def end(
    wal: WAL, txn: int, kind: MessageType = MessageType.COMMIT_TXN, vchannel: str = V
) -> AppendResult:
    """Commits a transaction, or rolls it back."""
    return await wal.append(txn_entry(kind, vchannel, txn))


def shape(batches: Iterable[AnyBatch]) -> list[list[bytes] | bytes]:
    """The payloads: those of a transaction as a list, others by themselves."""
    found: list[list[bytes] | bytes] = []
    for batch in batches:
        if isinstance(batch, ImmutableTxnMessage):
            found.append(batch.payloads)
        else:
            found.extend(batch.payloads)
    return found


async def refused(work: Awaitable[object]) -> ErrorCode:
    """Why an append is refused; fails when it is not."""
    try:
        await work
    except WalError as error:
        return error.code
    raise AssertionError("it was not refused")


async def read_batches(
    wal: WAL,
    token: ResumeToken | None = None,
    vchannel: str = "",
    config: ClientConfig | None = None,
) -> list[AnyBatch]:
    """What a client's reader gives up to the present end, CreateCollections apart."""
    reader = client_reader(wal, token, vchannel, follow=False, config=config)
    async with asyncio.timeout(20):
        batches = [batch async for batch in reader.batches()]
    return [batch for batch in batches if not creates(batch)]


def creates(batch: AnyBatch) -> bool:
    """Whether it is the CreateCollection with which a test's log begins."""
    if isinstance(batch, ImmutableTxnMessage):
        return False
    return batch.type is MessageType.CREATE_COLLECTION


def client_reader(
    wal: WAL,
    token: ResumeToken | None = None,
    vchannel: str = "",
    *,
    start: ScanStart | None = None,
    follow: bool = True,
    only: Only = EVERYTHING,
    config: ClientConfig | None = None,
    transport: Transport | None = None,
) -> Reader:
    """A client's reader of `wal`, without a client; from a token, or from `start` on."""
    if token is not None:
        start = ScanStart(StartKind.TOKEN, token)
    way = transport or LocalTransport(OneLog(wal))
    return Reader(
        wal.pchannel,
        ScanRequest(start or ScanStart(StartKind.EARLIEST), vchannel, follow, only),
        cast(Discovery, _NoDiscovery(wal)),
        lambda _: way,
        config or ClientConfig(),
        None,
    )


class OneLog:
    """What a `LocalTransport` reaches: one WAL, under whatever term."""

    def __init__(self, wal: WAL) -> None:
        """All of it, whether its VChannels were created or not."""
        self._edge = _AnyVChannel(wal)

    def edge(self, _pchannel: str, _term: int) -> Edge:
        """Always the same."""
        return self._edge


class _AnyVChannel(Edge):
    """Does not ask whether a VChannel was created."""

    def scan(self, request: ScanRequest) -> WALScanner:
        return self.wal.scan(request)


class _NoDiscovery:
    """Always the same owner."""

    def __init__(self, wal: WAL) -> None:
        self._assignment = Assignment(wal.pchannel, wal.term, "node")

    async def served(self, _pchannel: str, **_: object) -> Assignment:
        return self._assignment

    async def moved(self, _assignment: Assignment) -> None:
        await asyncio.get_running_loop().create_future()

    def report(self, _assignment: Assignment, _error: WalError) -> None:
        """Nobody listens."""
