"""Backends by URL; each is imported only when it is asked for. Layer: backends.

rocksdb:/var/lib/walplane                     embedded, one process per directory
pulsar://host:6650?admin=http://host:8080&namespace=tenant/namespace
memory:                                       for tests
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module

from walplane.backends.interface import Backend
from walplane.rpc.errors import ErrorCode, WalError

_MODULES = {
    "memory": ("walplane.backends.memory", "standalone"),
    "rocksdb": ("walplane.backends.rocksdb", "standalone"),
    "pulsar": ("walplane.backends.pulsar", "pulsar"),
}


async def open_backend(url: str) -> Backend:
    """Opens the backend that `url` names.

    Every backend module offers `async def open_backend(url: str) -> Backend`.

    Raises:
        WalError: INVALID_ARGUMENT for an unknown scheme or bad options; INNER when an extra is
            not installed or the backend cannot be opened.
    """
    scheme = scheme_of(url)
    module, extra = _MODULES[scheme]
    try:
        opener: Callable[[str], Awaitable[Backend]] = import_module(module).open_backend
    except ModuleNotFoundError as error:
        raise WalError(
            ErrorCode.INNER,
            f"backend {scheme} needs {error.name}: pip install 'walplane[{extra}]'",
        ) from error
    return await opener(url)


def scheme_of(url: str) -> str:
    """The backend that `url` names; nothing is imported.

    Raises:
        WalError: INVALID_ARGUMENT for an unknown one.
    """
    scheme = url.partition(":")[0]
    if scheme not in _MODULES:
        known = ", ".join(sorted(_MODULES))
        raise WalError(
            ErrorCode.INVALID_ARGUMENT, f"unknown backend {scheme!r} in {url!r}: one of {known}"
        )
    return scheme
