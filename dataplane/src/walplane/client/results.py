"""What an append gives back. Layer: client."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, overload

from walplane.message.builder import MutableMessage
from walplane.message.ids import MessageID
from walplane.rpc.errors import WalError


class AppendResult(NamedTuple):
    """A message is durable.

    Attributes:
        message_id: where it is; of its first payload when it has several.
        time_tick: its place in the order of its PChannel; of its first payload.
        last_confirmed_message_id: reading from here yields everything after it; None while
            nothing is confirmed yet.
        message_count: payloads; they take consecutive ticks and message indexes.
    """

    message_id: MessageID
    time_tick: int
    last_confirmed_message_id: MessageID | None
    message_count: int = 1


class Written(NamedTuple):
    """Consecutive payloads of one entry that are durable.

    Attributes:
        message_id: of the first of them.
        first_tick: of the first of them; each next one has the next tick.
        last_confirmed: as in `AppendResult`, for all of them.
    """

    message_id: MessageID
    first_tick: int
    last_confirmed: MessageID | None

    def result(self, offset: int, count: int) -> AppendResult:
        """The result of a message of `count` payloads that begins with the `offset`-th of these."""
        message_id = self.message_id
        if offset:
            message_id = message_id._replace(message_index=message_id.message_index + offset)
        return AppendResult(message_id, self.first_tick + offset, self.last_confirmed, count)


Part = tuple[Written | WalError, int]
"""What became of so many payloads, laid end to end with those of other parts."""


class AppendResults(Sequence[AppendResult]):
    """The results of `append_many`, in the order of its messages; each is made when asked for."""

    def __init__(
        self, parts: Sequence[tuple[Written, int]], slots: Sequence[int], counts: Sequence[int]
    ) -> None:
        """Takes what became of all payloads, and which of them belong to which message."""
        self._parts = [written for written, _ in parts]
        self._starts = _starts(parts)
        self._slots = slots
        self._counts = counts

    def __len__(self) -> int:
        """Number of messages."""
        return len(self._slots)

    @overload
    def __getitem__(self, index: int) -> AppendResult: ...
    @overload
    def __getitem__(self, index: slice) -> list[AppendResult]: ...
    def __getitem__(self, index: int | slice) -> AppendResult | list[AppendResult]:
        """The result of one message, or of several."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        slot = self._slots[index]
        part = bisect_right(self._starts, slot) - 1
        return self._parts[part].result(slot - self._starts[part], self._counts[index])

    def __iter__(self) -> Iterator[AppendResult]:
        """All results, in order."""
        return map(self.__getitem__, range(len(self)))


class PartialAppendError(WalError):
    """Some messages of one `append_many` were not acknowledged; the rest were.

    Attributes:
        outcomes: one per message, in order: its result, or why it has none.
        first: index of the first message without a result.
    """

    def __init__(self, parts: Sequence[Part], slots: Sequence[int], counts: Sequence[int]) -> None:
        """Takes what became of all payloads, and which of them belong to which message."""
        self.outcomes: list[AppendResult | WalError] = []
        starts = _starts(parts)
        for slot, count in zip(slots, counts, strict=True):
            part = bisect_right(starts, slot) - 1
            outcome = parts[part][0]
            if isinstance(outcome, Written):
                self.outcomes.append(outcome.result(slot - starts[part], count))
            else:
                self.outcomes.append(outcome)
        failed = [
            (index, outcome)
            for index, outcome in enumerate(self.outcomes)
            if isinstance(outcome, WalError)
        ]
        self.first, error = failed[0]
        super().__init__(
            error.code,
            f"{len(failed)} of {len(self.outcomes)} messages failed, the first: {error.message}",
            retry_after_ms=error.retry_after_ms,
        )


class Answers(NamedTuple):
    """What became of the messages of one call.

    Attributes:
        parts: of all payloads, laid end to end.
        slots: per message, where its first payload is among these.
        counts: per message, how many payloads it has.
    """

    parts: Sequence[Part]
    slots: Sequence[int]
    counts: Sequence[int]

    def results(self) -> AppendResults:
        """The result of every message.

        Raises:
            PartialAppendError: some have none.
        """
        done = [(outcome, n) for outcome, n in self.parts if not isinstance(outcome, WalError)]
        if len(done) < len(self.parts):
            raise PartialAppendError(self.parts, self.slots, self.counts)
        return AppendResults(done, self.slots, self.counts)


def refused(messages: Sequence[MutableMessage], error: WalError) -> Answers:
    """The answers when `error` is that of every one of `messages`."""
    counts = [len(message.payloads) for message in messages]
    return Answers([(error, sum(counts))], _starts([(error, count) for count in counts]), counts)


def joined(lanes: Iterable[tuple[Sequence[int], Answers]]) -> Answers:
    """The answers of one call from those of its lanes, each with its messages' places in the call.

    Together the places are 0 .. n-1, each once.
    """
    parts: list[Part] = []
    found: list[tuple[int, int, int]] = []
    base = 0
    for places, answers in lanes:
        parts += answers.parts
        slots = (base + slot for slot in answers.slots)
        found += zip(places, slots, answers.counts, strict=True)
        base += sum(answers.counts)
    found.sort()
    return Answers(parts, [slot for _, slot, _ in found], [count for _, _, count in found])


def _starts(parts: Sequence[tuple[object, int]]) -> list[int]:
    """The slot at which each part begins."""
    return [0, *accumulate(count for _, count in parts)][: len(parts)]
