"""Segments in a real S3, told of by the environment alone, as in a pod."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pyarrow.parquet as pq

from walplane.client import StreamingClient
from walplane.message.builder import insert
from walplane.testkit.standalone import StandaloneProcess
from walplane.wal.recovery.segments.objects import ObjectStore, open_store

ROWS = 300
STORED_S = 60.0


async def test_what_was_flushed_is_in_the_bucket_row_by_row(tmp_path: Path, s3_url: str) -> None:
    server = StandaloneProcess(tmp_path / "data", pchannels=2, segments=s3_url)
    await server.start()
    try:
        async with StreamingClient.connect(server.address) as wal:
            info = await wal.create_collection("flights", 2)
            for row in range(ROWS):
                await wal.append(
                    insert(
                        info.vchannels[row % 2],
                        b"row %d" % row,
                        collection_id=info.collection_id,
                        partition_id=info.default_partition_id,
                        schema_version=info.schema_version,
                    )
                )
            await wal.flush_collection(info.name)
        found = await stored(open_store(s3_url), ROWS)
    finally:
        assert await server.stop() == 0
    assert found == sorted(b"row %d" % row for row in range(ROWS))


async def stored(store: ObjectStore, rows: int) -> list[bytes]:
    """The payloads of all Parquet files, once there are `rows` of them."""
    async with asyncio.timeout(STORED_S):
        while True:
            paths = [path for path in await store.paths("") if path.endswith(".parquet")]
            files = [await store.read(path) for path in paths]
            tables = [pq.read_table(io.BytesIO(data)) for data in files]
            payloads = [row for table in tables for row in table.column("payload").to_pylist()]
            if len(payloads) >= rows:
                return sorted(payloads)
            await asyncio.sleep(0.1)
