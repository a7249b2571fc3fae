"""What RocksDB's complaints mean for whoever runs walplane. Layer: backends."""

from __future__ import annotations

import errno
import os

from walplane.rpc.errors import ErrorCode, WalError

_NO_FILES = (os.strerror(errno.EMFILE), os.strerror(errno.ENFILE))


def damaged(path: str, what: str) -> WalError:
    """The error of data that is not what was written."""
    return WalError(
        ErrorCode.UNRECOVERABLE,
        f"the data in {path} is damaged: {what}; restore the directory from a copy",
    )


def failed(path: str, what: str, error: Exception) -> WalError:
    """The error of a call that RocksDB or the system refused.

    Args:
        path: the database's directory.
        what: what was tried, a verb.
        error: the complaint.
    """
    text = str(error)
    if "lock hold by current process" in text or "While lock file" in text:
        return WalError(
            ErrorCode.RESOURCE_ACQUIRED,
            f"{path} is in use by another walplane process: stop it, or use another directory",
        )
    if "No space left on device" in text:
        return WalError(
            ErrorCode.UNRECOVERABLE,
            f"the disk of {path} is full: free space and start again, everything acknowledged is "
            "kept",
        )
    if "Corruption" in text:
        return damaged(path, text)
    if "Permission denied" in text or "Read-only file system" in text:
        return WalError(ErrorCode.INVALID_ARGUMENT, f"cannot {what} {path}: {text}")
    return WalError(
        ErrorCode.UNRECOVERABLE,
        f"cannot {what} {path}: {text}; check the disk and start again, or restore the directory "
        "from a copy",
    )


def unread(path: str, error: Exception) -> WalError:
    """The error of a read that RocksDB or the system refused."""
    text = str(error)
    if any(short in text for short in _NO_FILES):
        # RocksDB gives but the text. Nothing is wrong with the data, and it passes.
        return WalError(
            ErrorCode.INNER,
            f"cannot read {path} now: {text}; close some files, or raise the limit (ulimit -n)",
        )
    return failed(path, "read", error)
