"""One PChannel's log and its owners in a test: a backend that misbehaves on demand, one oracle.

Layer: testkit; for tests only.
"""

from __future__ import annotations

import asyncio

from walplane.message import codec
from walplane.message.registry import MessageType
from walplane.rpc.v1 import log_pb2
from walplane.runtime import Runtime
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.outside import TestAuthority, TestNode, TestOracle
from walplane.wal.config import WALConfig
from walplane.wal.ports import LogEntry
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind
from walplane.wal.wal import WAL

CH = "test_0"
V = "test_0_1v0"
EARLIEST = ScanStart(StartKind.EARLIEST)


def entry(
    *payloads: bytes,
    number: int | None = None,
    vchannel: str = V,
    properties: dict[str, str] | None = None,
    producer: bytes = b"producer",
) -> log_pb2.Entry:
    """An Insert of `payloads`; `number` makes it a batch of `producer`."""
    envelope = log_pb2.Envelope(
        version=1,
        type=MessageType.INSERT,
        vchannel=vchannel,
        count=len(payloads),
        properties=properties or {},
    )
    if number is not None:
        envelope.producer.producer_id = producer
        envelope.producer.number = number
    return codec.seal_entry(envelope, codec.encode_body(b"", payloads))


def payloads_of(items: list[LogEntry]) -> list[bytes]:
    """The payloads of all messages, in order."""
    return [payload for item in items for payload in codec.decode_body(item.entry.body)[1]]


async def read_all(wal: WAL, start: ScanStart = EARLIEST, vchannel: str = "") -> list[LogEntry]:
    """Everything from `start` to the present end, within ten seconds."""
    items: list[LogEntry] = []
    async with asyncio.timeout(10):
        async with wal.scan(ScanRequest(start, vchannel, follow=False)) as scanner:
            while True:
                batch = await scanner.next()
                items.extend(batch.entries)
                if batch.end:
                    return items


class World:
    """A backend that survives its nodes, one oracle, one authority."""

    def __init__(self, backend: FaultyBackend) -> None:
        """Nobody owns anything on `backend` yet."""
        self.backend = backend
        self.oracle = TestOracle()
        self.authority = TestAuthority()
        self.opened: list[tuple[TestNode, WAL]] = []

    async def open(self, term: int, config: WALConfig | None = None, channel: str = CH) -> WAL:
        """A new owner of `channel`, under `term`."""
        node = TestNode(self.backend, self.oracle, self.authority, Runtime.system())
        wal = await node.open(channel, term, config or WALConfig(idle_tick_s=0.02))
        self.opened.append((node, wal))
        return wal

    async def close(self) -> None:
        """Closes every owner and the backend."""
        for node, wal in self.opened:
            await wal.close()
            await node.reserve.close()
        await self.backend.close()
