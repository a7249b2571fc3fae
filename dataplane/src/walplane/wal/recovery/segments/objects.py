"""The segment store on obstore: S3, GCS, Azure, or a local directory. Layer: wal.

Contract: an object is written once, whole, and durable when `create` returns. obstore does not
synchronise local files before they have their names, so those are written here, and what a process
left that died meanwhile is removed by the next one that writes there; credentials come from the
environment, as the store's own tools take them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, from_url

from walplane.disk import sync_directory
from walplane.rpc.errors import ErrorCode, WalError

_TIMEOUT_S = 60.0
_LEAST_BYTES_PER_S = 256 << 10  # of a way to a store that is worth waiting for
_NO_TIMEOUT = timedelta(days=1)  # the client's own for a request; ours grows with the object
_RETRIES_S = 20.0
_PREFIXES = {"s3": "AWS_", "s3a": "AWS_", "gs": "GOOGLE_"}  # all others are Azure's
_HTTP_OPTIONS = (
    *("allow_http", "allow_invalid_certificates", "connect_timeout", "http1_only", "http2_only"),
    *("proxy_url", "proxy_ca_certificate", "proxy_excludes", "user_agent"),
)
_PARTIAL = ".partial-"


class ObjectStore:
    """A `SegmentStore`."""

    def __init__(self, store: Any, root: Path | None, timeout_s: float = _TIMEOUT_S) -> None:  # noqa: ANN401
        """Use `open_store`; `root` is the directory of a local one."""
        self._store = store
        self._root = root
        self._timeout_s = timeout_s

    async def create(self, path: str, data: bytes) -> bool:
        """Writes an object unless there is one."""
        async with asyncio.timeout(self._seconds(len(data))):
            if self._root is not None:
                return await asyncio.to_thread(_create, self._root, path, data)
            try:
                await obstore.put_async(self._store, path, data, mode="create")
            except AlreadyExistsError:
                return False
            return True

    async def read(self, path: str) -> bytes:
        """A whole object."""
        async with asyncio.timeout(self._timeout_s):
            found = await obstore.get_async(self._store, path)
        async with asyncio.timeout(self._seconds(found.meta["size"])):
            return bytes(await found.bytes_async())

    async def paths(self, folder: str) -> list[str]:
        """Every object in a folder, and in those inside it."""
        async with asyncio.timeout(self._timeout_s):
            return [
                found["path"] async for some in obstore.list(self._store, folder) for found in some
            ]

    async def delete(self, paths: Sequence[str]) -> None:
        """Removes objects; the rest stays when somebody else removed one meanwhile."""
        async with asyncio.timeout(self._timeout_s):
            try:
                await obstore.delete_async(self._store, paths)
            except FileNotFoundError:
                pass

    def _seconds(self, size: int) -> float:
        """How long an object of `size` bytes may be on its way."""
        return self._timeout_s + size / _LEAST_BYTES_PER_S


def open_store(where: str) -> ObjectStore:
    """The store at a URL (`s3://bucket/prefix`, `gs://`, `az://`, `file:///`) or a directory.

    Raises:
        WalError: INVALID_ARGUMENT when it is neither, or lacks what its kind needs.
    """
    scheme, found, rest = where.partition("://")
    try:
        if not found or scheme == "file":
            root = Path(rest if found else where).absolute()
            return ObjectStore(LocalStore(root, mkdir=True), root)
        retries = {"max_retries": 5, "retry_timeout": timedelta(seconds=_RETRIES_S)}
        options = cast("Any", _http_options(scheme))
        store = from_url(where, retry_config=cast("Any", retries), client_options=options)
        return ObjectStore(store, None)
    except (BaseError, ValueError, OSError) as error:
        why = str(error).partition("\n")[0]
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"{where} is no segment store ({why}): name a directory, or s3://BUCKET/PREFIX, "
            "gs:// or az:// with its credentials in the environment",
        ) from error


def _http_options(scheme: str) -> dict[str, object]:
    """How its HTTP client is to work, by the environment: obstore asks that only without options.

    `AWS_ALLOW_HTTP=true` is what most stores within a cluster need.
    """
    prefix = _PREFIXES.get(scheme, "AZURE_")
    named = {option: os.environ.get(prefix + option.upper()) for option in _HTTP_OPTIONS}
    told = {option: value for option, value in named.items() if value is not None}
    return {**told, "timeout": _NO_TIMEOUT}


def _create(root: Path, path: str, data: bytes) -> bool:
    """Writes a local object unless there is one; whole and durable before it has its name."""
    at = root / path
    at.parent.mkdir(parents=True, exist_ok=True)
    _remove_partial(at.parent)
    descriptor, partial = tempfile.mkstemp(dir=at.parent, prefix=_PARTIAL)
    try:
        with os.fdopen(descriptor, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # says that its writer lives
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            try:
                os.link(partial, at)
                created = True
            except FileExistsError:
                created = False  # by a process that may have died before its directory was durable
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
    _sync_directories(root, at)
    return created


def _remove_partial(folder: Path) -> None:
    """Removes what processes left that died while they wrote; who lives has locked its file.

    A writer that has not come to its lock yet fails to give its file a name, and tries again.
    """
    for left in folder.glob(f"{_PARTIAL}*"):
        with contextlib.suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _sync_directories(root: Path, at: Path) -> None:
    while at != root:
        at = at.parent
        sync_directory(at)
