"""The exclusive writer of one topic. Layer: backends.

`append` hands the record to pulsar-client, which copies it and returns; acknowledgements come on
the client's own thread and are carried to the loop in groups. After the first failure the writer
sends nothing more: what came later would lie behind a gap, and a fenced client that goes on sending
throws the rightful owner out for a moment.

Sequence ids are ours, 1, 2, 3 … within this writer. Those that the client makes by itself start
anew if it is disconnected before its first acknowledgement: the broker's deduplication then took
new records for copies, acknowledged them, and did not write them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Any

import _pulsar
import pulsar

from walplane.backends.pulsar.failures import append_failure
from walplane.backends.pulsar.threads import keep_thread_state
from walplane.message.ids import RecordID
from walplane.prompt import PromptFuture
from walplane.rpc.errors import ErrorCode, WalError

MAX_RECORD_BYTES = 5 * 1024 * 1024 - 64 * 1024
"""The broker's default limit of 5 MiB, less room for headers."""

_OK = pulsar.Result.Ok.value  # comparing two results takes four times as long
_Ack = PromptFuture[RecordID | None]


class PulsarWriter:
    """Writes one topic from one event loop."""

    def __init__(self, topic: str, producer: Any) -> None:  # noqa: ANN401 - no types
        """Takes over an exclusive producer, which the session's client closes."""
        self._topic = topic
        self._producer = producer
        self._loop = asyncio.get_running_loop()
        self._pending: set[_Ack] = set()
        self._answers: deque[tuple[_Ack, Any, Any]] = deque()
        self._settling = False
        self._sent = 0
        self._failure: WalError | None = None

    def append(self, data: bytes) -> _Ack:
        """See `TopicWriter.append`."""
        future: _Ack = PromptFuture()
        if len(data) > MAX_RECORD_BYTES:
            future.set_exception(self._too_large(data))
        elif self._failure is not None:
            future.set_exception(self._failure)
        else:
            self._pending.add(future)
            self._sent += 1
            message = _pulsar.MessageBuilder().content(data).sequence_id(self._sent).build()
            self._producer.send_async(message, partial(self._answered, future))
        return future

    def close(self) -> None:
        """Ends every pending append as OUTCOME_UNKNOWN and sends nothing more."""
        if self._failure is None:
            self._failure = append_failure(self._topic, "closed")
        for future in self._pending:
            if not future.done():
                future.set_exception(append_failure(self._topic, "closed"))
        self._pending.clear()

    def _answered(self, future: _Ack, result: Any, message_id: Any) -> None:  # noqa: ANN401
        """Runs on the client's thread, where an exception would end the process.

        What can be done on the loop is done there: the sooner it is woken, the sooner it runs.
        """
        keep_thread_state()
        self._answers.append((future, result, message_id))
        if not self._settling:
            self._settling = True
            try:
                self._loop.call_soon_threadsafe(self._settle)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def _settle(self) -> None:
        self._settling = False  # first: an answer that comes from now on calls again
        while self._answers:
            future, result, message_id = self._answers.popleft()
            self._pending.discard(future)
            if result.value == _OK:
                if not future.done():
                    ledger, entry = message_id.ledger_id(), message_id.entry_id()
                    # (-1, -1): written before, recognised as a copy
                    future.set_result((ledger, entry) if ledger >= 0 and entry >= 0 else None)
                continue
            error = append_failure(self._topic, result.name)
            if error.code is not ErrorCode.INVALID_ARGUMENT and self._failure is None:
                self._failure = error
            if not future.done():
                future.set_exception(error)

    def _too_large(self, data: bytes) -> WalError:
        return WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"a record of {len(data)} bytes is above the {MAX_RECORD_BYTES} bytes that a Pulsar "
            f"topic takes: split what goes to {self._topic}",
        )
