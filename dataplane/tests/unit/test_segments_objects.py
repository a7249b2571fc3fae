"""The segment store on obstore: slow ways get the time they need, and kills leave no files."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path
from typing import Any

import obstore
import pytest

from walplane.rpc.errors import ErrorCode, WalError
from walplane.wal.recovery.segments import objects
from walplane.wal.recovery.segments.objects import ObjectStore, open_store

RATE = 256 << 10


def test_what_is_no_store_is_refused() -> None:
    with pytest.raises(WalError) as error:
        open_store("nowhere://bucket")
    assert error.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize(("size", "arrives"), [(RATE // 100, False), (RATE, True)])
async def test_a_larger_object_has_more_time(
    monkeypatch: pytest.MonkeyPatch, size: int, arrives: bool
) -> None:
    """The way to the store takes 0.2 s, of which 0.05 s are given to any object."""

    async def put(*_args: Any, **_named: Any) -> None:  # noqa: ANN401
        await asyncio.sleep(0.2)

    monkeypatch.setattr(obstore, "put_async", put)
    store = ObjectStore(None, None, timeout_s=0.05)
    if arrives:
        assert await store.create("a", bytes(size))
    else:
        with pytest.raises(TimeoutError):
            await store.create("a", bytes(size))


async def test_what_a_killed_writer_left_is_removed_by_the_next_and_that_of_a_live_one_is_not(
    tmp_path: Path,
) -> None:
    store, folder = open_store(str(tmp_path)), tmp_path / "a"
    folder.mkdir()
    (folder / ".partial-dead").write_bytes(b"half of")
    with (folder / ".partial-live").open("wb") as live:
        fcntl.flock(live, fcntl.LOCK_EX)
        assert await store.create("a/b.parquet", b"whole")
    assert sorted(each.name for each in folder.iterdir()) == [".partial-live", "b.parquet"]
    assert not await store.create("a/b.parquet", b"again")
    assert [each.name for each in folder.iterdir()] == ["b.parquet"]


async def test_a_writer_has_locked_its_file_until_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def linked(partial: str, at: Path) -> None:
        objects._remove_partial(at.parent)  # as another owner of the log does
        link(partial, at)

    monkeypatch.setattr(os, "link", linked)
    store = open_store(str(tmp_path))
    assert await store.create("a/b.parquet", b"whole")
    assert await store.read("a/b.parquet") == b"whole"
