"""The data directory of a cluster in one process. Layer: embedded."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from walplane.rpc.errors import ErrorCode, WalError


@contextmanager
def only_process(data: Path) -> Iterator[None]:
    """Holds the data directory; the kernel lets go of it however this process ends.

    Raises:
        WalError: RESOURCE_ACQUIRED when it is held already, INVALID_ARGUMENT when it cannot be
            made.
    """
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
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise WalError(
                ErrorCode.RESOURCE_ACQUIRED,
                f"data directory {data} is in use by process {owner}: stop it first, or choose "
                "another one",
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
