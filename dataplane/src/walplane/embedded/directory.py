"""The data directory of a cluster in one process. Layer: embedded."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from walplane.rpc.errors import ErrorCode, WalError


def backend_url(data: Path, backend: str) -> str:
    """The URL of `backend`; the bare word `rocksdb` means the one in the data directory."""
    return f"rocksdb:{data / 'log'}" if backend == "rocksdb" else backend


@contextmanager
def only_process(data: Path) -> Iterator[None]:
    """Holds the data directory; the kernel lets go of it however this process ends.

    Processes that it forked meanwhile neither keep it nor let go of it.

    Raises:
        WalError: RESOURCE_ACQUIRED when it is held already, INVALID_ARGUMENT when it cannot be
            made.
    """
    owner = os.getpid()
    try:
        data.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data / "process", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"data directory {data} cannot be used: {error.strerror}",
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            other = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise WalError(
                ErrorCode.RESOURCE_ACQUIRED,
                f"data directory {data} is in use by process {other}: stop it first, or choose "
                "another one",
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{owner}\n".encode())
        yield
    finally:
        if os.getpid() == owner:  # a forked one shares the lock: it would be free for anybody
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
