"""What every segment store promises: a directory, a real S3, and Azure's emulator."""

from __future__ import annotations

import pytest

from walplane.wal.recovery.segments.objects import ObjectStore, open_store


@pytest.fixture(params=["tmp_path", "s3_url", "azure_url"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return open_store(str(request.getfixturevalue(request.param)))


async def test_the_first_object_of_a_name_is_kept(store: ObjectStore) -> None:
    assert await store.create("a/b.parquet", b"first")
    assert not await store.create("a/b.parquet", b"second")
    assert await store.read("a/b.parquet") == b"first"
    assert await store.paths("a") == ["a/b.parquet"]


async def test_objects_are_found_by_their_folder_and_deleted(store: ObjectStore) -> None:
    for path in ("a/1/x/1", "a/1/y/1", "a/12/x/1", "b/1/x/1"):
        await store.create(path, b"")
    assert sorted(await store.paths("a/1")) == ["a/1/x/1", "a/1/y/1"]
    assert await store.paths("c") == []
    await store.delete(["a/1/x/1", "a/1/y/1"])
    await store.delete(["a/1/x/1"])
    assert await store.paths("a/1") == []
    assert sorted(await store.paths("a")) == ["a/12/x/1"]
