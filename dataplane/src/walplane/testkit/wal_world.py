"""One PChannel's log and its owners in a test: a backend that misbehaves on demand, one oracle.

Layer: testkit; for tests only.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any

from walplane.channel import VChannelName
from walplane.message import codec
from walplane.message.registry import MessageType
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.runtime import Runtime
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.outside import TestAuthority, TestNode, TestOracle
from walplane.ticks import TICKS_PER_MS
from walplane.wal.config import WALConfig
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.segments.storing import SegmentDeps
from walplane.wal.scan.request import ScanBatch, ScanRequest, ScanStart, StartKind
from walplane.wal.wal import WAL

CH = "test_0"
V = "test_0_1v0"
VCHANNELS = (V, "test_0_1v1", "test_0_2v0")
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


def create_entry(
    vchannel: str, *, partitions: Sequence[int] = (), schema_version: int = 0
) -> log_pb2.Entry:
    """The CreateCollection of the collection that `vchannel` names."""
    header = headers_pb2.CreateCollectionHeader(
        collection_id=VChannelName.parse(vchannel).collection_id,
        partition_ids=partitions,
        schema_version=schema_version,
    )
    envelope = log_pb2.Envelope(
        version=1,
        type=MessageType.CREATE_COLLECTION,
        vchannel=vchannel,
        collection_id=header.collection_id,
        schema_version=schema_version,
        count=1,
    )
    return codec.seal_entry(envelope, codec.encode_body(header.SerializeToString(), [b""]))


def drop_entry(vchannel: str) -> log_pb2.Entry:
    """The DropCollection of the collection that `vchannel` names."""
    envelope = log_pb2.Envelope(
        version=1,
        type=MessageType.DROP_COLLECTION,
        vchannel=vchannel,
        collection_id=VChannelName.parse(vchannel).collection_id,
        count=1,
    )
    header = headers_pb2.CollectionHeader(collection_id=envelope.collection_id)
    return codec.seal_entry(envelope, codec.encode_body(header.SerializeToString(), [b""]))


async def create(wal: WAL, *vchannels: str) -> None:
    """Creates the collections of those VChannels that are not there yet."""
    for vchannel in vchannels:
        if not wal.has_vchannel(vchannel):
            await wal.append(create_entry(vchannel))


async def cancelled_ever_later(
    read: Callable[[], Coroutine[Any, Any, ScanBatch]],
) -> AsyncIterator[ScanBatch | None]:
    """What `read` gives, again and again cancelled after one to three turns; None for those."""
    for turns in itertools.cycle((2, 3, 1)):
        reading = asyncio.create_task(read())
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})
        yield None if reading.cancelled() else reading.result()


def payloads_of(items: list[LogEntry]) -> list[bytes]:
    """The payloads of all messages but CreateCollections, in order."""
    kept = without_creations(items)
    return [payload for item in kept for payload in codec.decode_body(item.entry.body)[1]]


def without_creations(items: Iterable[LogEntry]) -> list[LogEntry]:
    """All but the CreateCollections."""
    created = MessageType.CREATE_COLLECTION
    return [item for item in items if item.entry.envelope.type != created]


async def read_all(wal: WAL, start: ScanStart = EARLIEST, vchannel: str = "") -> list[LogEntry]:
    """All but CreateCollections from `start` to the present end, within ten seconds."""
    items: list[LogEntry] = []
    async with asyncio.timeout(10):
        async with wal.scan(ScanRequest(start, vchannel, follow=False)) as scanner:
            while True:
                batch = await scanner.next()
                items.extend(without_creations(batch.entries))
                if batch.end:
                    return items


class World:
    """A backend that survives its nodes, one oracle, one authority.

    Attributes:
        segments: what the next owners store segments with; None = they store none.
    """

    def __init__(self, backend: FaultyBackend) -> None:
        """Nobody owns anything on `backend` yet."""
        self.backend = backend
        self.oracle = TestOracle()
        self.authority = TestAuthority()
        self.segments: SegmentDeps | None = None
        self.opened: list[tuple[TestNode, WAL]] = []

    async def open(self, term: int, config: WALConfig | None = None, channel: str = CH) -> WAL:
        """A new owner of `channel`, under `term`; the VChannels of `CH` are there."""
        outside = (self.backend, self.oracle, self.authority, Runtime.system())
        node = TestNode(*outside, self.segments)
        wal = await node.open(channel, term, config or WALConfig(idle_tick_s=0.02))
        self.opened.append((node, wal))
        if channel == CH:
            await create(wal, *VCHANNELS)
        return wal

    async def skip_ticks(self, milliseconds: int) -> None:
        """Tick time goes on for the latest owner."""
        reserve = self.opened[-1][0].reserve
        while reserve.take(milliseconds * TICKS_PER_MS, 0) is None:
            await reserve.ready(milliseconds * TICKS_PER_MS, 0)

    async def close(self) -> None:
        """Closes every owner and the backend."""
        for node, wal in self.opened:
            await wal.close()
            await node.reserve.close()
        await self.backend.close()
