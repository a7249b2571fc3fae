"""One pulsar-client: every call asynchronous and with a deadline. Layer: backends.

Uses the extension module behind pulsar-client, as its own asyncio package does, which is not enough
here: that one loses a producer whose caller was cancelled, and ends the process when an answer
meets a closed loop. Three findings rule this file. A callback must not raise: the process would
end. `shutdown` is never called: it holds the interpreter's lock while it waits for callbacks that
need it, which froze the process for ten seconds. And the process does not end before its clients
are closed: a callback into an interpreter that ends would abort it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import _pulsar
import pulsar
import structlog

from walplane.backends.pulsar.calls import Callback, CallFailedError, Calls
from walplane.backends.pulsar.config import PulsarConfig
from walplane.backends.pulsar.failures import call_failure
from walplane.backends.pulsar.topics import Position

_OPERATION_S = 5
_CALL_S = 8.0  # above what the client gives itself, which ends most calls
_CLOSE_S = 2.0
_EXIT_S = 5.0
_LEAVE_S = 0.05
_SEND_MS = 5000  # long after the WAL has stopped waiting, so that its own rule decides
_RECEIVE = 32  # records that the client reads ahead, of up to 5 MiB each

_log = structlog.get_logger(__name__)


class PulsarClient:
    """A connection of its own to one Pulsar."""

    def __init__(self, config: PulsarConfig) -> None:
        """Connects to nothing yet."""
        conf = _pulsar.ClientConfiguration()
        conf.operation_timeout_seconds(_OPERATION_S)
        conf.connection_timeout(3000)
        conf.stats_interval_in_seconds(0)
        # a Python logger would be called with the client's own locks held
        conf.set_file_logger(pulsar.LoggerLevel.Error, os.devnull)
        self._config = config
        self._client = _pulsar.Client(config.service_url, conf)
        self._calls = Calls()
        self._close_started = False
        self._closed = threading.Event()
        self._closed_at = 0.0
        atexit.register(self._at_exit)

    async def check(self) -> None:
        """Asks the broker something.

        Raises:
            WalError: INNER when it does not answer.
        """
        probe = self._config.topic_url("walplane-probe")
        try:
            await self._calls.answer(
                partial(self._client.get_topic_partitions_async, probe), _CALL_S, _forget
            )
        except CallFailedError as error:
            if error.result not in ("TopicNotFound", "NotFound"):  # these answer as well
                what = f"connecting to Pulsar at {self._config.service_url}"
                raise call_failure(what, error.result) from error

    async def producer(self, topic: str, name: str) -> Any:  # noqa: ANN401 - no types
        """An exclusive producer, older ones fenced; closed again if nobody waits any more.

        The pending queue is unbounded here: the caller bounds what it has in flight, and a record
        refused in the middle of others would be a gap.

        Raises:
            WalError: CHANNEL_FENCED, CHANNEL_NOT_EXIST, ON_SHUTDOWN, INNER.
        """
        conf = _pulsar.ProducerConfiguration()
        conf.producer_name(name)
        conf.access_mode(pulsar.ProducerAccessMode.ExclusiveWithFencing)
        conf.send_timeout_millis(_SEND_MS)
        conf.batching_enabled(False)
        conf.block_if_queue_full(False)
        conf.max_pending_messages(0)
        conf.max_pending_messages_across_partitions(0)
        start = partial(self._client.create_producer_async, self._config.topic_url(topic), conf)
        return await self._open(f"opening the writer of topic {topic}", start)

    async def reader(self, topic: str, after: Position) -> Any:  # noqa: ANN401 - no types
        """A reader whose first message is not above the first record after `after`.

        Raises:
            WalError: CHANNEL_NOT_EXIST, ON_SHUTDOWN, INNER.
        """
        ledger, entry = after
        place = _pulsar.MessageId(-1, ledger, max(entry, 0), -1)
        conf = _pulsar.ReaderConfiguration()
        conf.receiver_queue_size(_RECEIVE)
        conf.start_message_id_inclusive(entry < 0)
        url = self._config.topic_url(topic)
        start = partial(self._client.create_reader_async, url, place, conf)
        return await self._open(f"opening a reader of topic {topic}", start)

    async def drop(self, opened: Any) -> None:  # noqa: ANN401 - no types
        """Closes a producer or reader; bounded in time, also when it fails."""
        try:
            await self._calls.answer(opened.close_async, _CLOSE_S, _forget)
        except CallFailedError as error:
            _log.debug("pulsar producer or reader closed", result=error.result)

    async def close(self) -> None:
        """Drops everything; returns after 2 seconds even if pulsar-client does not."""
        if self._close_started:
            return
        self._calls.close()
        asyncio.get_running_loop().call_later(_EXIT_S, self._leave_exit)
        try:
            await self._calls.answer(self._close, _CLOSE_S, _forget)
        except CallFailedError as error:  # also the answer of one of its fenced producers
            if not self._closed.is_set():
                _log.warning(
                    "pulsar client is slow to close",
                    service_url=self._config.service_url,
                    result=error.result,
                )

    async def _open(self, what: str, start: Callable[[Callback], None]) -> Any:  # noqa: ANN401
        if self._close_started:
            raise call_failure(what, pulsar.Result.AlreadyClosed.name)
        try:
            return await self._calls.answer(start, _CALL_S, _abandon)
        except CallFailedError as error:
            raise call_failure(what, error.result) from error

    def _close(self, callback: Callback) -> None:
        self._close_started = True

        def closed(result: Any) -> None:  # noqa: ANN401 - no types
            self._closed_at = time.monotonic()
            self._closed.set()
            callback(result)

        self._client.close_async(closed)

    def _leave_exit(self) -> None:
        if self._closed.is_set():
            atexit.unregister(self._at_exit)
        else:
            asyncio.get_running_loop().call_later(_EXIT_S, self._leave_exit)

    def _at_exit(self) -> None:
        if self._close_started:
            self._closed.wait(_EXIT_S)
            # the thread that said so needs the interpreter once more to leave its callback
            time.sleep(max(0.0, self._closed_at + _LEAVE_S - time.monotonic()))
            return
        self._close_started = True
        with contextlib.suppress(pulsar.PulsarException):
            self._client.close()  # blocking: there must be no callback that still returns


def _forget(*_: object) -> None:
    """Nothing to let go of."""


def _abandon(opened: Any) -> None:  # noqa: ANN401 - no types
    opened.close_async(_forget)
