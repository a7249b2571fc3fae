"""The client library's end of one topic: sends, sends again, gives up. Layer: testkit.

Contract: a `TopicWriter`. While its connection stands, frames arrive in order; when it breaks, what
has no answer is sent again on the next one, for as long as the process lives and the session is
open. Of a process that was killed, only what is on its way may still arrive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from walplane.backends.sequenced import closed, given_up, oversized
from walplane.message.ids import RecordID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.sim.process import Process

if TYPE_CHECKING:
    from walplane.testkit.sim.backend import Broker
    from walplane.testkit.sim.disk import Topic

_GAP_S = 60e-6  # above the jitter of timers, so that arrivals keep their order
_RECONNECT_S = (0.01, 0.4)
_STALL_S = 3.0


class _Frame(NamedTuple):
    sequence: int
    data: bytes
    told: asyncio.Future[RecordID | None]
    mute: bool


class SimWriter:
    """The exclusive writer of one topic, until another one opens it.

    Attributes:
        topic: where it writes.
        key: (term, open number) it was opened under.
        arrived: sequence of the last frame the broker took, for deduplication.
        durable: the same, of what a crash cannot take.
    """

    def __init__(
        self,
        broker: Broker,
        topic: Topic,
        process: Process,
        key: tuple[int, int],
        max_record_bytes: int,
    ) -> None:
        """Connected."""
        self.topic = topic
        self.key = key
        self.arrived = self.durable = -1
        self._broker = broker
        self._process = process
        self._max_record_bytes = max_record_bytes
        self._pending: dict[int, _Frame] = {}  # without an answer, in order
        self._travelling: deque[_Frame] = deque()
        self._sequence = 0
        self._connection = 0
        self._arrival = self._answer_at = 0.0
        self._closed = self._down = False

    # --- the client's end ------------------------------------------------------------------------

    def append(self, data: bytes) -> asyncio.Future[RecordID | None]:
        """Hands over one record."""
        told: asyncio.Future[RecordID | None] = asyncio.get_running_loop().create_future()
        if self._closed:
            told.set_exception(closed(self.topic.name))
            return told
        if len(data) > self._max_record_bytes:
            told.set_exception(oversized(self.topic.name, len(data), self._max_record_bytes))
            return told
        manners, chance = self._broker.manners, self._broker.network.chance
        frame = _Frame(self._sequence, data, told, chance(manners.mute))
        self._sequence += 1
        if chance(manners.gap):
            told.set_exception(_unknown(self.topic.name))
            return told
        self._pending[frame.sequence] = frame
        if chance(manners.stalls):
            self._arrival = self._now() + self._broker.random.random() * _STALL_S
        if not self._down:
            self._send(frame)
        if chance(manners.times_out):
            self._broker.network.world(self._broker.network.delay(), self._time_out)
        if chance(manners.resets):
            self._broker.network.world(self._broker.network.delay(), self.reset)
        return told

    def close(self) -> None:
        """Ends what is pending as unknown; of what is on its way, some arrives now."""
        if self._closed:
            return
        self._closed = True
        arriving = self._broker.random.randint(0, len(self._travelling))
        if self._broker.reachable(self._process):
            for frame in list(self._travelling)[:arriving]:
                self._broker.receive(self, frame.sequence, frame.data)
        self._connection += 1
        self._travelling.clear()
        self._fail_pending(given_up(self.topic.name))

    def reset(self) -> None:
        """The connection breaks: what travels is lost, what has no answer is sent again later."""
        if self._closed or self._down:
            return
        self._down = True
        self._connection += 1
        self._travelling.clear()
        self._reconnect_later()

    def _reconnect_later(self) -> None:
        delay = self._broker.random.uniform(*_RECONNECT_S)
        self._broker.network.world(delay, self._reconnect)

    def _reconnect(self) -> None:
        if self._closed or not self._process.alive:
            return
        if not self._broker.reachable(self._process):
            self._reconnect_later()
            return
        self._down = False
        for frame in self._pending.values():
            self._send(frame)

    def _send(self, frame: _Frame) -> None:
        network = self._broker.network
        self._arrival = max(self._arrival + _GAP_S, self._now() + network.delay())
        self._travelling.append(frame)
        network.world(self._arrival - self._now(), self._arrive, frame, self._connection)

    def _time_out(self) -> None:
        """The library gives up everything at once, though nearly all of it is or gets written."""
        self._fail_pending(_unknown(self.topic.name))

    def _fail_pending(self, error: WalError) -> None:
        pending, self._pending = self._pending, {}
        for frame in pending.values():
            if not frame.told.done():
                frame.told.set_exception(error)
                frame.told.exception()

    def _now(self) -> float:
        return self._broker.network.loop.time()

    # --- the broker's end ------------------------------------------------------------------------

    def _arrive(self, frame: _Frame, connection: int) -> None:
        if connection != self._connection:
            return
        self._travelling.popleft()
        if self._broker.reachable(self._process):
            self._broker.receive(self, frame.sequence, frame.data)
        elif self._process.alive:
            self.reset()

    def acknowledge(self, sequence: int, record_id: RecordID | None) -> None:
        """The broker has the frame, durably; None when it does not say where."""
        self.durable = max(self.durable, sequence)
        if record_id is not None and self._broker.network.chance(self._broker.manners.no_id):
            record_id = None
        self._answer(sequence, record_id, None)

    def refuse(self, sequence: int, error: WalError) -> None:
        """The broker has another writer, or nowhere to write."""
        self._answer(sequence, None, error)

    def fail_unsynced(self, error: WalError) -> None:
        """What the broker took and did not sync is lost, and it says so."""
        for sequence in self._pending:
            if sequence > self.durable:
                self.refuse(sequence, error)

    def _answer(self, sequence: int, record_id: RecordID | None, error: WalError | None) -> None:
        now = self._now()
        self._answer_at = max(self._answer_at + _GAP_S, now + self._broker.network.delay())
        self._broker.network.world(self._answer_at - now, self._told, sequence, record_id, error)

    def _told(self, sequence: int, record_id: RecordID | None, error: WalError | None) -> None:
        frame = self._pending.get(sequence)
        if frame is None or frame.mute or self._down:
            return
        if not self._broker.reachable(self._process):
            self.reset()
            return
        del self._pending[sequence]
        if frame.told.done():
            return
        if error is not None:
            frame.told.set_exception(error)
            frame.told.exception()
        else:
            frame.told.set_result(record_id)


def _unknown(topic: str) -> WalError:
    return WalError(ErrorCode.OUTCOME_UNKNOWN, f"no acknowledgement from {topic}")
