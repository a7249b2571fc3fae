"""A `NamedProducer` for programs without an event loop. Layer: client."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any

from walplane.client.named import NamedProducer
from walplane.client.results import AppendResult, AppendResults
from walplane.message.builder import MutableMessage


class SyncNamedProducer:
    """Made by `SyncStreamingClient.producer`; a context manager that opens the name."""

    def __init__(
        self, producer: NamedProducer, wait: Callable[[Coroutine[Any, Any, Any]], Any]
    ) -> None:
        """Use `SyncStreamingClient.producer`."""
        self._producer = producer
        self._wait = wait

    def __enter__(self) -> SyncNamedProducer:
        """As `NamedProducer`."""
        self._wait(self._producer.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """As `NamedProducer`."""
        self._wait(self._producer.__aexit__(kind, error, trace))

    @property
    def next_number(self) -> int:
        """As `NamedProducer.next_number`."""
        return self._producer.next_number

    @property
    def last_number(self) -> int | None:
        """As `NamedProducer.last_number`."""
        return self._producer.last_number

    def append(self, message: MutableMessage, *, timeout: float | None = None) -> AppendResult:
        """As `NamedProducer.append`."""
        result: AppendResult = self._wait(self._producer.append(message, timeout=timeout))
        return result

    def append_many(
        self, messages: Iterable[MutableMessage], *, timeout: float | None = None
    ) -> AppendResults:
        """As `NamedProducer.append_many`."""
        results: AppendResults = self._wait(self._producer.append_many(messages, timeout=timeout))
        return results
