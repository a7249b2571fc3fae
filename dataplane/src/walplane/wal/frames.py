"""Frames of one open: numbered and completed in order by the sender, judged by the filter.

Contract: a log is, per open, the longest gapless prefix of its frames. The sender acknowledges a
frame only after all before it; the filter delivers a frame number once and voids what follows a
gap or comes from a writer that a later opener fenced (rules §10). Both data and meta topics
go through here. Layer: wal.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from walplane.backends.interface import TopicWriter
from walplane.message.codec import encode_frame, frame_head
from walplane.message.ids import RecordID
from walplane.prompt import when_done
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2


class OpenKey(NamedTuple):
    """Which open of a topic wrote a frame; a higher one voids what a lower one writes later."""

    term: int
    open_number: int


BEFORE_ANY_OPEN = OpenKey(0, 0)


class FrameFilter:
    """Decides which frames of a topic, read in log order, count.

    Args:
        topic: name for errors.
        floor: frames of a lower (term, open number) than this are void from the start.

    Attributes:
        void: frames dropped because a later opener had fenced their writer.
        repeated: frames dropped because their number was delivered before.
        orphaned: frames dropped because one before them was never written.
    """

    def __init__(self, topic: str, floor: OpenKey = BEFORE_ANY_OPEN) -> None:
        """Starts before the first frame; the first one seen may lie anywhere in its open."""
        self._topic = topic
        self._key = floor
        self._next: int | None = None
        self._started = False
        self.void = 0
        self.repeated = 0
        self.orphaned = 0

    @property
    def key(self) -> OpenKey:
        """The highest (term, open number) seen."""
        return self._key

    def admit(self, content: log_pb2.FrameContent) -> bool:
        """Whether `content`, the next frame in log order, is part of the log.

        Raises:
            WalError: UNRECOVERABLE when a frame that its writer knew to be written is missing.
        """
        key = (content.term, content.open_number)
        if key < self._key:
            self.void += 1
            return False
        if key > self._key:
            self._key = OpenKey(*key)
            # Whoever reads on from an earlier open meets a new one at its first frame.
            self._next = 0 if self._started else None
        self._started = True
        return self._admit_number(content)

    def _admit_number(self, content: log_pb2.FrameContent) -> bool:
        expected = content.number if self._next is None else self._next
        if content.number < expected:
            self.repeated += 1
            return False
        if content.number > expected:
            if content.acked > expected:
                raise WalError(
                    ErrorCode.UNRECOVERABLE,
                    f"{self._topic} misses acknowledged frame {expected} of term {content.term}, "
                    f"open {content.open_number}: restore the topic from a replica or backup",
                )
            self.orphaned += 1
            self._next = expected
            return False
        self._next = expected + 1
        return True


class SentFrame(NamedTuple):
    """A frame in flight: its number and what comes of it, completed in frame order."""

    number: int
    done: asyncio.Future[RecordID | None]

    def tell(self, record_id: RecordID | None, error: WalError | None) -> None:
        """Completes it."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(record_id)
        else:
            self.done.set_exception(error)
            self.done.exception()  # whoever still waits sees it; nobody must


Tell = Callable[[RecordID | None, WalError | None], None]
"""Takes what became of a frame: its record's id, None when that is unknown; or why it failed."""


class _InFlight(NamedTuple):
    written: asyncio.Future[RecordID | None]
    number: int
    tell: Tell


class FrameSender:
    """Sends the frames of one open through a writer; acknowledges them in order.

    After the first failure every frame in flight and every later one ends as OUTCOME_UNKNOWN:
    only a new open can tell what became of them.
    """

    def __init__(self, topic: str, writer: TopicWriter, key: OpenKey) -> None:
        """Wraps `writer`, which was opened under `key`."""
        self._topic = topic
        self._writer = writer
        self._key = key
        self._number = 0
        self._acked = 0
        self._failure: WalError | None = None
        self._in_flight: deque[_InFlight] = deque()

    @property
    def in_flight(self) -> int:
        """Frames handed over and not yet acknowledged."""
        return len(self._in_flight)

    @property
    def due(self) -> int:
        """The first frame that is not acknowledged; after a failure, the one that failed."""
        return self._acked

    @property
    def failure(self) -> WalError | None:
        """What ended this sender, if something did."""
        return self._failure

    def send(
        self,
        *,
        entries: Sequence[log_pb2.Entry] = (),
        meta: Sequence[log_pb2.MetaRecord] = (),
    ) -> SentFrame:
        """Hands one frame over, in the order of the calls.

        The future yields the record's id, or None when it is written but its id unknown. It
        raises OUTCOME_UNKNOWN or CHANNEL_FENCED after a failure of this frame or an earlier one.
        """
        sent = SentFrame(self._number, asyncio.get_running_loop().create_future())
        self.hand_over(sent.tell, entries=entries, meta=meta)
        return sent

    def hand_over(
        self,
        tell: Tell,
        *,
        entries: Sequence[log_pb2.Entry] = (),
        bodies: Sequence[bytes] | None = None,
        meta: Sequence[log_pb2.MetaRecord] = (),
    ) -> int:
        """As `send`, for one who wants to be told at once; the number of the frame.

        `tell` is called in the order of the frames, never before this returns.
        """
        number = self._number
        if self._failure is not None:
            asyncio.get_running_loop().call_soon(tell, None, self._failure)
            return number
        content = frame_head(*self._key, number, self._acked)
        if meta:
            content += log_pb2.FrameContent(meta=meta).SerializeToString()
        self._number += 1
        written = self._writer.append(encode_frame(content, entries, bodies))
        self._in_flight.append(_InFlight(written, number, tell))
        when_done(written, self._settle)
        return number

    async def written(self, sent: SentFrame, timeout_s: float) -> RecordID | None:
        """Waits for `sent`; after `timeout_s` its outcome counts as unknown.

        Raises:
            WalError: as `send` says; every later frame fails as well.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(sent.done)
        except TimeoutError as error:
            self.abandon(_lost(self._topic))
            raise _lost(self._topic) from error

    def abandon(self, reason: WalError) -> None:
        """Ends every frame in flight with `reason`; later acknowledgements change nothing."""
        if self._failure is None:
            self._failure = reason
        while self._in_flight:
            frame = self._in_flight.popleft()
            frame.written.cancel()
            frame.tell(None, self._failure)

    def _settle(self, _written: asyncio.Future[RecordID | None]) -> None:
        # after a failure, which may be under way further up, nothing is acknowledged any more
        while not self._failure and self._in_flight and self._in_flight[0].written.done():
            written = self._in_flight[0].written
            error = _lost(self._topic) if written.cancelled() else written.exception()
            if error is not None:
                self.abandon(error if isinstance(error, WalError) else _lost(self._topic, error))
                return
            frame = self._in_flight.popleft()
            self._acked = frame.number + 1
            frame.tell(written.result(), None)


def _lost(topic: str, cause: BaseException | None = None) -> WalError:
    detail = f": {cause!r}" if cause is not None else ""
    return WalError(ErrorCode.OUTCOME_UNKNOWN, f"no acknowledgement from {topic}{detail}")
