"""Segments in a real S3, told of by the environment alone, as in a pod."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from devservices.peers import s3_server
from devservices.peers.s3 import CREDENTIALS
from devservices.pulsar import PrerequisiteMissingError
from walplane.client import StreamingClient
from walplane.message.builder import insert
from walplane.testkit.standalone import StandaloneProcess
from walplane.wal.recovery.segments.objects import ObjectStore, open_store

BUCKET = "segments"
ROWS = 300
STORED_S = 60.0


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        with s3_server(tmp_path_factory.mktemp("s3") / "server.log", BUCKET) as server:
            yield f"http://127.0.0.1:{server.port}"
    except PrerequisiteMissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture(autouse=True)
def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")


async def test_a_bucket_keeps_the_first_object_of_a_name() -> None:
    store = open_store(f"s3://{BUCKET}/first")
    assert await store.create("a/b.parquet", b"first")
    assert not await store.create("a/b.parquet", b"second")
    assert await store.read("a/b.parquet") == b"first"
    assert await store.paths("a") == ["a/b.parquet"]


async def test_objects_in_a_bucket_are_found_by_their_folder_and_deleted() -> None:
    store = open_store(f"s3://{BUCKET}/folders")
    for path in ("a/1/x/1", "a/1/y/1", "a/12/x/1", "b/1/x/1"):
        await store.create(path, b"")
    assert sorted(await store.paths("a/1")) == ["a/1/x/1", "a/1/y/1"]
    assert await store.paths("c") == []
    await store.delete(["a/1/x/1", "a/1/y/1"])
    await store.delete(["a/1/x/1"])
    assert await store.paths("a/1") == []
    assert sorted(await store.paths("a")) == ["a/12/x/1"]


async def test_what_was_flushed_is_in_the_bucket_row_by_row(tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/cluster"
    server = StandaloneProcess(tmp_path / "data", pchannels=2, segments=url)
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
        found = await stored(open_store(url), ROWS)
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
