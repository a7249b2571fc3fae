"""One pulsar-client: every blocking call on a thread, with a deadline. Layer: backends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any, TypeVar

import pulsar
import structlog

from walplane.backends.pulsar.config import PulsarConfig
from walplane.backends.pulsar.failures import call_failure
from walplane.backends.pulsar.offload import offload
from walplane.backends.pulsar.topics import Position

_OPERATION_S = 5
_CALL_S = 8.0  # above what the client gives itself, which ends most calls
_CLOSE_S = 2.0
_SEND_MS = 5000  # long after the WAL has stopped waiting, so that its own rule decides
_RECEIVE = 32  # records that the client reads ahead, of up to 5 MiB each

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class PulsarClient:
    """A connection of its own to one Pulsar.

    `shutdown` of pulsar-client is never called: it holds the interpreter's lock while it waits
    for callbacks that need it, which froze the whole process for ten seconds.
    """

    def __init__(self, config: PulsarConfig) -> None:
        """Connects to nothing yet."""
        self._config = config
        self._client = pulsar.Client(
            config.service_url,
            operation_timeout_seconds=_OPERATION_S,
            connection_timeout_ms=3000,
            stats_interval_in_seconds=0,
            # a Python logger would be called with the client's own locks held
            logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull),
        )

    async def check(self) -> None:
        """Asks the broker something.

        Raises:
            WalError: INNER when it does not answer.
        """
        probe = self._config.topic_url("walplane-probe")
        what = f"connecting to Pulsar at {self._config.service_url}"
        try:
            await offload(lambda: self._client.get_topic_partitions(probe), _CALL_S, _forget)
        except TimeoutError as error:
            raise call_failure(what, error) from error
        except pulsar.PulsarException as error:
            if type(error).__name__ not in ("TopicNotFound", "NotFound"):  # also an answer
                raise call_failure(what, error) from error

    async def producer(self, topic: str, name: str) -> Any:  # noqa: ANN401 - no types
        """An exclusive producer, older ones fenced; closed again if nobody waits any more.

        The pending queue is unbounded here: the caller bounds what it has in flight, and a record
        refused in the middle of others would be a gap.

        Raises:
            WalError: CHANNEL_FENCED, CHANNEL_NOT_EXIST, INNER.
        """
        return await self._call(
            f"opening the writer of topic {topic}",
            lambda: self._client.create_producer(
                self._config.topic_url(topic),
                producer_name=name,
                access_mode=pulsar.ProducerAccessMode.ExclusiveWithFencing,
                send_timeout_millis=_SEND_MS,
                batching_enabled=False,
                compression_type=pulsar.CompressionType.NONE,
                block_if_queue_full=False,
                max_pending_messages=0,
                max_pending_messages_across_partitions=0,
            ),
            lambda producer: producer.close(),
        )

    async def reader(self, topic: str, after: Position) -> Any:  # noqa: ANN401 - no types
        """A reader whose first message is not above the first record after `after`.

        Raises:
            WalError: CHANNEL_NOT_EXIST, INNER.
        """
        ledger, entry = after
        start = pulsar.MessageId(-1, ledger, max(entry, 0), -1)
        return await self._call(
            f"opening a reader of topic {topic}",
            lambda: self._client.create_reader(
                self._config.topic_url(topic),
                start,
                receiver_queue_size=_RECEIVE,
                start_message_id_inclusive=entry < 0,
            ),
            lambda reader: reader.close(),
        )

    async def close(self) -> None:
        """Drops everything; returns after 2 seconds even if pulsar-client does not."""
        try:
            await offload(self._client.close, _CLOSE_S, _forget)
        except TimeoutError:
            _log.warning("pulsar client is slow to close", service_url=self._config.service_url)
        except pulsar.PulsarException as error:
            _log.debug("pulsar client closed", result=type(error).__name__)

    def close_at_exit(self) -> None:
        """Drops everything when the process ends without `close`; blocks for some seconds at most.

        A callback of pulsar-client into an interpreter that ends would abort the process.
        """
        with contextlib.suppress(pulsar.PulsarException):
            self._client.close()

    async def _call(self, what: str, call: Callable[[], T], abandon: Callable[[T], object]) -> T:
        try:
            return await offload(call, _CALL_S, abandon)
        except (TimeoutError, pulsar.PulsarException) as error:
            raise call_failure(what, error) from error


def _forget(_: object) -> None:
    """Nothing to let go of."""
