"""A segment store in memory that fails on demand, and logs made by hand for it. Layer: testkit."""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from walplane.message import codec
from walplane.message.registry import MessageType
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.wal.recovery.segments.budget import SegmentBudget
from walplane.wal.recovery.segments.parquet import ParquetFormat
from walplane.wal.recovery.segments.storing import MANIFEST, SegmentDeps

V = "test_0_1v0"
BUDGET_BYTES = 64 << 20


async def at_once() -> None:
    """Nothing comes before a call."""


class MemoryStore:
    """A `SegmentStore`.

    Attributes:
        objects: by path.
        before: awaited before each `create` and `paths`, may raise.
        after: awaited after each `create`, may raise: it was written, and nobody is told.
    """

    def __init__(self) -> None:
        """Empty."""
        self.objects: dict[str, bytes] = {}
        self.before: Callable[[], Awaitable[object]] = at_once
        self.after: Callable[[], Awaitable[object]] = at_once

    async def create(self, path: str, data: bytes) -> bool:
        """See `SegmentStore`."""
        await self.before()
        created = self.objects.setdefault(path, data) is data
        await self.after()
        return created

    async def read(self, path: str) -> bytes:
        """See `SegmentStore`."""
        return self.objects[path]

    async def paths(self, folder: str) -> list[str]:
        """See `SegmentStore`."""
        await self.before()
        return [path for path in self.objects if path.startswith(f"{folder}/")]

    async def delete(self, paths: Sequence[str]) -> None:
        """See `SegmentStore`."""
        for path in paths:
            self.objects.pop(path, None)

    def manifests(self) -> list[dict[str, Any]]:
        """The segments that are whole."""
        return [json.loads(data) for path, data in self.objects.items() if path.endswith(MANIFEST)]

    def tables(self, segment_id: int) -> list[pa.Table]:
        """The parts of a whole segment, by its manifest; none when it is not whole."""
        for manifest in self.manifests():
            if manifest["segment_id"] == str(segment_id):
                paths = [part["path"] for part in manifest["parts"]]
                return [pq.read_table(io.BytesIO(self.objects[path])) for path in paths]
        return []

    def payloads(self, segment_id: int) -> list[bytes]:
        """The payloads of a whole segment; empty when it is not whole."""
        tables = self.tables(segment_id)
        return [payload for each in tables for payload in each.column("payload").to_pylist()]


def whole(store: MemoryStore) -> set[str]:
    """The ids of the segments that are whole."""
    return {manifest["segment_id"] for manifest in store.manifests()}


async def inline(work: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Runs at once what would run beside the loop."""
    return work()


def segment_deps(store: MemoryStore, max_bytes: int = BUDGET_BYTES) -> SegmentDeps:
    """What a WAL needs to store segments in `store`."""
    return SegmentDeps(store, ParquetFormat(), SegmentBudget(max_bytes), inline)


def insert(
    segment_id: int,
    *payloads: bytes,
    vchannel: str = V,
    arrow: bool = False,
    kind: MessageType = MessageType.INSERT,
    txn: log_pb2.TxnContext | None = None,
) -> log_pb2.Entry:
    """An entry of `segment_id`, 0 for none."""
    envelope = log_pb2.Envelope(
        version=1,
        type=kind,
        vchannel=vchannel,
        count=len(payloads),
        segment_id=segment_id,
        txn=txn,
        payload_format=log_pb2.PAYLOAD_FORMAT_ARROW_STREAM if arrow else 0,  # type: ignore[arg-type]
    )
    return codec.seal_entry(envelope, codec.encode_body(b"", payloads))


def flush(segment_id: int, *, vchannel: str = V) -> log_pb2.Entry:
    """Seals one segment."""
    header = headers_pb2.FlushHeader(segment_id=segment_id)
    return headed(MessageType.FLUSH, header.SerializeToString(), vchannel)


def headed(kind: MessageType, header: bytes = b"", vchannel: str = V) -> log_pb2.Entry:
    """An entry of one message that is all header."""
    envelope = log_pb2.Envelope(
        version=1, type=kind, vchannel=vchannel, count=1, is_pchannel_level=not vchannel
    )
    return codec.seal_entry(envelope, codec.encode_body(header, [b""]))


def arrow_payload(columns: dict[str, Sequence[object]]) -> bytes:
    """An Arrow IPC stream of one table."""
    return table_payload(pa.table(columns))


def table_payload(table: pa.Table, compression: str | None = None) -> bytes:
    """`table` as an Arrow IPC stream."""
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()
