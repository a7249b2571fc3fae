"""One VChannel's appends of one producer: numbered, sent in order, resent until settled.

Contract: batches carry consecutive numbers from 0 under one producer id; outcomes are taken in the
order of the numbers. What happens to a batch:

    result            its callers are answered
    worth a retry     once nothing is awaited, all that are unsettled are sent again, same numbers
    stream broke      the same, on the next stream
    too large         of several calls: these are packed anew into smaller batches, under a new
                      producer id, with all that came behind them.
    waited too long   for a lock: its callers fail, told so while they still wait; as refused.
    refused           its callers fail. The node refuses everything numbered after it, so once all
                      of that is answered, it starts anew from 0 under a new producer id.
    number not known  the node forgot the producer, or its answer. Sent once, the batch was never
                      written, and starts anew as well; sent before, nobody knows: its callers fail.

A new id rather than the old numbers: what an older, broken stream still holds on its way could
otherwise arrive under a number that now means something else.

A batch under a key of the caller's has no number: a repeat of the key is never written, and would
leave a gap. Those with numbers and those with keys wait for each other, so that the order of the
calls holds whatever is refused. No I/O here. Layer: client.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from walplane.client.batcher import Parcel, SendBatch, Waiting, too_large, unfit
from walplane.client.config import ClientConfig
from walplane.client.results import Written
from walplane.rpc.errors import Action, ErrorCode, WalError


class Next(enum.Enum):
    """What the producer does after an answer."""

    GO_ON = "go on"
    BACK_OFF = "send again a little later"
    RECONNECT = "the stream is of no use: ask discovery"


class Verdict(NamedTuple):
    """What to do after an answer, and the error that made it necessary."""

    next: Next
    error: WalError | None = None


_GO_ON = Verdict(Next.GO_ON)


class Pipeline:
    """State of one VChannel; the producer calls it and does the sending.

    Attributes:
        vchannel: its name.
        lone: whether what was settled last was one call's, and nothing waited behind it.
    """

    def __init__(self, vchannel: str, new_id: Callable[[], bytes], config: ClientConfig) -> None:
        """Nothing sent yet; `new_id` gives producer ids."""
        self.vchannel = vchannel
        self.lone = False
        self._new_id = new_id
        self._config = config
        self._producer_id = new_id()
        self._next_number = 0
        self._waiting = Waiting()
        self._unsettled: deque[SendBatch] = deque()
        self._unsettled_bytes = 0
        self._to_send: deque[SendBatch] = deque()  # unsettled, not sent on this stream yet
        self._awaited = 0  # sent on this stream, unanswered
        self._paused = False
        self._refused: SendBatch | None = None  # everything after it starts anew
        self._anew: list[SendBatch] = []
        self._repacks = False  # some of these were too large

    @property
    def idle(self) -> bool:
        """Whether every append is settled."""
        return not self._waiting.messages and not self._unsettled

    @property
    def unsent(self) -> bool:
        """Whether something is left to send on this stream."""
        return bool(self._waiting.messages or self._to_send)

    def offer(self, parcel: Parcel) -> bool:
        """Takes messages to append behind all before them.

        Returns:
            Whether enough wait now for an entry to leave at once.
        """
        self._waiting.add(parcel)
        enough = self._waiting.messages >= self._config.eager_messages
        return enough and not self._holds_back() and self._may_send()

    def next_batch(
        self, max_entry_bytes: int, settled_tick: int = 0, packed_bytes: int = 0
    ) -> SendBatch | None:
        """The batch to send now; None when there is none, or the window is full.

        The caller sends it before it calls again, and reports the answer to `settle`.

        Args:
            max_entry_bytes: what the owner takes.
            settled_tick: what the owner gets from now on lies above it; 0 = not known.
            packed_bytes: what a batch of several calls should not exceed; 0 = all that is taken.
        """
        if self._holds_back():
            return None
        if self._to_send:
            batch: SendBatch | None = self._to_send.popleft()
        else:
            batch = self._new_batch(max_entry_bytes, packed_bytes or max_entry_bytes)
        if batch is not None:
            self._awaited += 1
            if not batch.sent and not batch.number:
                batch.since_tick = settled_tick
            batch.sent += 1
        return batch

    def settle(
        self, batch: SendBatch, outcome: Written | WalError, packed_bytes: int = 0
    ) -> Verdict:
        """Takes the answer to a batch sent on this stream.

        After BACK_OFF nothing is sent until `resume`. Of `packed_bytes`, as in `next_batch`, the
        owner tells no later than that it refused more.
        """
        batch.outcome = outcome
        self._awaited -= 1
        while self._unsettled and (answer := self._unsettled[0].outcome) is not None:
            if isinstance(answer, Written):
                head = self._pop()
                head.resolve(answer)
                self.lone = head.calls == 1 and self.idle
            elif self._never_written(self._unsettled[0], answer):
                self._refused = self._refused or self._unsettled[0]
                self._anew.append(self._pop())
            elif 0 < packed_bytes < self._unsettled[0].size and _divisible(
                self._unsettled[0], answer
            ):
                self._refused, self._repacks = self._refused or self._unsettled[0], True
                self._anew.append(self._pop())
            elif self._unsettled[0].waited_out or _final(answer):
                head = self._pop()
                head.fail(answer)
                if not head.keyed:
                    self._refused = self._refused or head
            else:
                return self._retry(answer)
        if self._refused is None or self._unsettled:
            return _GO_ON
        return self._start_anew(self._refused)

    def resume(self) -> None:
        """Ends the pause that BACK_OFF began."""
        self._paused = False

    def disconnected(self) -> None:
        """The stream broke: whatever is unsettled is sent again on the next one."""
        self._awaited = 0
        self._paused = False
        self._send_again()

    def fail(self, error: WalError) -> None:
        """Fails everything: the client is closed."""
        for batch in [*self._unsettled, *self._anew]:
            batch.fail(error)
        for collection in (self._unsettled, self._to_send, self._anew):
            collection.clear()
        self._awaited = self._unsettled_bytes = 0
        self._waiting.fail(error)

    def _new_batch(self, max_entry_bytes: int, packed_bytes: int) -> SendBatch | None:
        most = min(self._config.entry_bytes, packed_bytes)
        while self._waiting.messages and self._may_send():
            parcels = self._waiting.take(self._config.entry_messages, most)
            batch = self._batch_of(parcels, max_entry_bytes)
            if not isinstance(batch, WalError):
                self._number(batch)
                return batch
            self._refuse(parcels, batch)
        return None

    def _batch_of(self, parcels: Sequence[Parcel], max_entry_bytes: int) -> SendBatch | WalError:
        """The entry of `parcels`, or why there can be none."""
        try:
            batch = SendBatch(parcels)
        except Exception as error:  # they are the caller's own objects, and fail nobody else's
            return unfit(self.vchannel, error)
        if batch.size > max_entry_bytes:
            return too_large(self.vchannel, batch.size, max_entry_bytes)
        return batch

    def _refuse(self, parcels: Sequence[Parcel], error: WalError) -> None:
        """Fails what cannot be sent; it has no number, so what is behind it misses nothing."""
        for parcel in parcels:
            parcel.fail(error)

    def _holds_back(self) -> bool:
        """Whether it backs off, or a refused batch waits until what is awaited is answered."""
        return self._paused or bool(self._unsettled and self._unsettled[0].outcome is not None)

    def _may_send(self) -> bool:
        unsettled, config = len(self._unsettled), self._config
        waiting = self._waiting
        keyed = waiting.first.kind.keyed
        full = (
            keyed or waiting.size >= config.entry_bytes or waiting.messages >= config.entry_messages
        )
        return (
            self._refused is None
            and (not unsettled or self._unsettled[-1].keyed is keyed)
            and unsettled < (config.batches_in_flight if full else config.eager_batches)
            and self._unsettled_bytes < config.in_flight_bytes
        )

    def _number(self, batch: SendBatch) -> None:
        batch.forget()
        batch.sent = batch.since_tick = 0
        if not batch.keyed:
            batch.producer_id, batch.number = self._producer_id, self._next_number
            self._next_number += 1
        self._unsettled.append(batch)
        self._unsettled_bytes += batch.size

    def _pop(self) -> SendBatch:
        batch = self._unsettled.popleft()
        self._unsettled_bytes -= batch.size
        return batch

    def _never_written(self, batch: SendBatch, error: WalError) -> bool:
        """Whether the log cannot hold the first batch that is not settled."""
        unknown = error.code is ErrorCode.OUTCOME_UNKNOWN
        if unknown and batch.sent == 1 and not batch.keyed and not batch.txn_id:
            return True  # the number means nothing to the node, and it got it for the first time
        if self._refused is None:
            return False
        if error.code is ErrorCode.INVALID_REQUEST_SEQ:
            return True
        first = self._refused.outcome
        nothing = self._starts_anew(self._refused) or (
            self._refused.number == 0
            and not (isinstance(first, WalError) and first.code is ErrorCode.OUTCOME_UNKNOWN)
        )
        return unknown and nothing

    def _starts_anew(self, batch: SendBatch) -> bool:
        return not self._repacks and bool(self._anew) and self._anew[0] is batch

    def _retry(self, error: WalError) -> Verdict:
        if error.action is Action.REDISCOVER:
            return Verdict(Next.RECONNECT, error)
        if self._awaited:
            return _GO_ON
        self._send_again()
        self._paused = True
        return Verdict(Next.BACK_OFF, error)

    def _send_again(self) -> None:
        self._to_send.clear()
        for batch in self._unsettled:
            if not isinstance(batch.outcome, Written):
                batch.forget()
                self._to_send.append(batch)

    def _start_anew(self, first: SendBatch) -> Verdict:
        """Numbers what was never written under a new producer; `first` was refused before all."""
        error = first.outcome
        at_once = first.number or not self._starts_anew(first)
        self._refused = None
        self._producer_id, self._next_number = self._new_id(), 0
        anew, self._anew = self._anew, []
        if self._repacks:
            self._repacks = False
            self._put_back(anew)
            return _GO_ON
        for batch in anew:
            self._number(batch)
            self._to_send.append(batch)
        if at_once or not isinstance(error, WalError):
            return _GO_ON
        self._paused = True  # not even number 0 was new: the node has to get on first
        return Verdict(Next.BACK_OFF, error)

    def _put_back(self, batches: Sequence[SendBatch]) -> None:
        """Their parcels wait again, before all that does."""
        for batch in reversed(batches):
            self._waiting.put_back(batch.parcels)


def _divisible(batch: SendBatch, error: WalError) -> bool:
    """Whether a batch that is too large, which may be why it was refused, can become several."""
    return error.code is ErrorCode.INVALID_ARGUMENT and batch.calls > 1


def _final(error: WalError) -> bool:
    """Whether sending the batch again can bring no other answer."""
    return error.action is Action.GIVE_UP or error.code is ErrorCode.CHANNEL_NOT_EXIST
