"""A `NamedProducer` for programs without an event loop. Layer: client."""

from __future__ import annotations

from collections.abc import Iterable

from walplane.client.blocking import Blocking
from walplane.client.named import NamedProducer
from walplane.client.results import AppendResult, AppendResults
from walplane.message.builder import MutableMessage


class SyncNamedProducer(Blocking[NamedProducer]):
    """Made by `SyncStreamingClient.producer`; a context manager that opens the name."""

    @property
    def name(self) -> str:
        """As `NamedProducer.name`."""
        return self._inner.name

    @property
    def vchannel(self) -> str:
        """As `NamedProducer.vchannel`."""
        return self._inner.vchannel

    @property
    def epoch(self) -> int:
        """As `NamedProducer.epoch`."""
        return self._inner.epoch

    @property
    def next_number(self) -> int:
        """As `NamedProducer.next_number`."""
        return self._inner.next_number

    @property
    def last_number(self) -> int | None:
        """As `NamedProducer.last_number`."""
        return self._inner.last_number

    def append(self, message: MutableMessage, *, timeout: float | None = None) -> AppendResult:
        """As `NamedProducer.append`."""
        result: AppendResult = self._wait(self._inner.append(message, timeout=timeout))
        return result

    def append_many(
        self, messages: Iterable[MutableMessage], *, timeout: float | None = None
    ) -> AppendResults:
        """As `NamedProducer.append_many`; `messages` is iterated by the calling thread."""
        listed = list(messages)
        results: AppendResults = self._wait(self._inner.append_many(listed, timeout=timeout))
        return results
