"""Topics in an embedded RocksDB: one process per directory. Layer: backends.

Contract: an append is acknowledged once RocksDB's log is fsynced; everything that waits meanwhile
is made durable together. Records can be read once they are durable, checksums verified, gaps and
damage reported, never skipped. A write or fsync error is fatal for the database until a restart.

    rocksdb:/var/lib/walplane           a directory on a local disk

`database` is what touches RocksDB, `layout` its keys, `values` the files beside it that hold large
records, `mark` the note of what was acknowledged; `committer` is what writes, `commands` and
`batch` what it writes, `floor` what it may forget; `backend` and `scanner` are the interface.
"""

from __future__ import annotations

from walplane.backends.rocksdb.backend import RocksBackend
from walplane.rpc.errors import ErrorCode, WalError

__all__ = ["RocksBackend", "open_backend"]


async def open_backend(url: str) -> RocksBackend:
    """Opens the database in the directory that `url` names; makes it if it is not there.

    Raises:
        WalError: INVALID_ARGUMENT without a directory, or when it cannot be used;
            RESOURCE_ACQUIRED while another process has it open; UNRECOVERABLE when it is damaged.
    """
    path = url.partition(":")[2]
    if not path:
        raise WalError(ErrorCode.INVALID_ARGUMENT, f"{url!r} names no directory: rocksdb:/path")
    return await RocksBackend.open(path)
