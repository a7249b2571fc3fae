"""What the blocking classes share: an async context manager behind a plain one. Layer: client."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Wait = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine on the client's loop, and returns what it returns."""

_Inner = TypeVar("_Inner", bound="AbstractAsyncContextManager[Any, None]")


class Blocking(Generic[_Inner]):
    """Enters and leaves `_inner` on the client's loop, while the caller waits."""

    def __init__(self, inner: _Inner, wait: Wait) -> None:
        """Use `SyncStreamingClient`, which makes them."""
        self._inner = inner
        self._wait = wait

    def __enter__(self) -> Self:
        """As what is behind it."""
        self._wait(self._inner.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """As what is behind it."""
        self._wait(self._inner.__aexit__(kind, error, trace))
