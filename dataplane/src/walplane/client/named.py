"""Named producers: exactly once over restarts of the program that appends. Layer: client.

Contract: a name on a VChannel numbers the messages that were ever appended under it, from 0.
Opening it tells the number that is due, and keeps out whoever opened it before. Appends take the
numbers in the order of the calls. After anything but a result the producer takes nothing more, so
that a number never comes to mean something else; opening the name again tells what is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from walplane.client.asked import check_seconds
from walplane.client.batcher import Parcel
from walplane.client.config import ClientConfig
from walplane.client.naming import NamedPipeline
from walplane.client.outgoing import Packed, check_messages, pack
from walplane.client.results import Answers, AppendResult, AppendResults, Part
from walplane.client.transport import OpenedProducer
from walplane.message.builder import MutableMessage
from walplane.message.registry import IDEMPOTENCY_KEY
from walplane.message.txn import BODY_TYPES
from walplane.rpc.errors import ErrorCode, WalError


class Late(Protocol):
    """Makes the error of an append that took too long."""

    def __call__(self, vchannel: str, seconds: float, *, sent: bool) -> WalError:
        """`sent`: whether it may be written."""
        ...


@dataclass(frozen=True)
class NamedOutlet:
    """What a named producer needs of its client.

    Attributes:
        config: limits.
        open: opens a name on a VChannel.
        entry_bytes: what an entry for a VChannel may hold; waits so many seconds for an owner.
        offer: appends a parcel behind all that a pipeline has; waits for room in the byte budget.
        forget: drops a lane of a VChannel that has served its purpose.
        late: see `Late`.
    """

    config: ClientConfig
    open: Callable[[str, str], Awaitable[OpenedProducer]]
    entry_bytes: Callable[[str, float], Awaitable[int]]
    offer: Callable[[str, Parcel, NamedPipeline], Awaitable[None]]
    forget: Callable[[str, str], None]
    late: Late


class NamedProducer:
    """Made by `StreamingClient.producer`; an async context manager that opens the name.

    ```python
    async with wal.producer("loader", vchannel) as producer:
        for row in rows[producer.next_number :]:
            await producer.append(insert(vchannel, row))
    ```

    Attributes:
        name: its name.
        vchannel: where it appends.
        epoch: tells this open from all others, and is higher than those before it; 0 before.
        next_number: of the message that is appended next; what lies below was appended.
    """

    def __init__(self, outlet: NamedOutlet, name: str, vchannel: str, seconds: float) -> None:
        """Not open yet; `seconds` is what opening and each append may take."""
        self.name = name
        self.vchannel = vchannel
        self.epoch = self.next_number = 0
        self._outlet = outlet
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._pipeline: NamedPipeline | None = None
        self._failure: WalError | None = None

    @property
    def last_number(self) -> int | None:
        """Of the message that was appended last; None when there is none."""
        return self.next_number - 1 if self.next_number else None

    async def __aenter__(self) -> NamedProducer:
        """Opens the name.

        Raises:
            WalError: INVALID_ARGUMENT or CHANNEL_NOT_EXIST for a wrong name or VChannel;
                RESOURCE_ACQUIRED when time ran out; PRODUCER_FENCED when somebody else opened it at
                the same time.
        """
        self.epoch, self.next_number = await self._outlet.open(self.vchannel, self.name)
        identity = (self.name, self.epoch, self.next_number)
        self._pipeline = NamedPipeline(self.vchannel, *identity, self._outlet.config)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Takes nothing more; the name keeps its place."""
        if self._pipeline is not None:
            self._outlet.forget(self.vchannel, self._pipeline.vchannel)
        self._fail(_closed(self))

    async def append(
        self,
        message: MutableMessage,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the unanswered get an error each
    ) -> AppendResult:
        """Appends one message under the next number, and waits until it is durable.

        A message of several payloads takes a number for each.

        Raises:
            WalError: PRODUCER_FENCED when the name was opened again; else as
                `StreamingClient.append`. After it, and after a cancellation, the producer takes
                nothing more.
        """
        parts, _ = await self._append([message], timeout)
        outcome = parts[0][0]
        if isinstance(outcome, WalError):
            raise outcome
        return outcome.result(0, len(message.payloads))

    async def append_many(
        self,
        messages: Iterable[MutableMessage],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the unanswered get an error each
    ) -> AppendResults:
        """Appends messages under the next numbers, in their order; much cheaper a message.

        Raises:
            PartialAppendError: some were not acknowledged; it tells which, and why.
            WalError: as `append`.
        """
        parts, packed = await self._append(list(messages), timeout)
        return Answers(parts, packed.slots, packed.counts).results()

    async def _append(
        self, messages: Sequence[MutableMessage], seconds: float | None
    ) -> tuple[list[Part], Packed]:
        try:
            for message in messages:
                self._check_message(message)
        except AttributeError:
            check_messages(messages)
            raise
        self._ready()
        limit = self._seconds if seconds is None else check_seconds(seconds)
        packed, sent = Packed([], [], []), set[Parcel]()
        try:
            async with asyncio.timeout(limit):
                async with self._turn:
                    room = await self._outlet.entry_bytes(self.vchannel, limit)
                    packed = pack(messages, self._outlet.config.entry_messages, room)
                    await self._offer(packed, sent)
                if sent:
                    await asyncio.wait([parcel.done for parcel in sent])
        except TimeoutError:
            late = self._outlet.late(self.vchannel, limit, sent=bool(sent))
            self._fail(late)
            if not sent:
                raise late from None
        except BaseException as error:
            self._fail(error if isinstance(error, WalError) else _cancelled(self))
            raise
        return [self._part(parcel, limit, parcel in sent) for _, parcel in packed.parcels], packed

    async def _offer(self, packed: Packed, sent: set[Parcel]) -> None:
        """Hands the parcels over under the next numbers, and notes in `sent` which were."""
        pipeline = self._ready()
        for _, parcel in packed.parcels:
            self.next_number += len(parcel.payloads)
            await self._outlet.offer(self.vchannel, parcel, pipeline)
            sent.add(parcel)

    def _part(self, parcel: Parcel, seconds: float, sent: bool) -> Part:
        count = len(parcel.payloads)
        if not parcel.done.done():
            return self._outlet.late(self.vchannel, seconds, sent=sent), count
        error = parcel.done.exception()
        if error is None:
            return parcel.done.result(), count
        failure = error if isinstance(error, WalError) else _cancelled(self)
        self._fail(failure)
        return failure, count

    def _ready(self) -> NamedPipeline:
        if self._pipeline is None:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT, f"{_title(self)} is not open: use `async with`"
            )
        if self._failure is not None:
            raise WalError(
                self._failure.code,
                f"{_title(self)} takes nothing more: {self._failure.message}; open it again, which "
                "tells what is written",
            )
        return self._pipeline

    def _fail(self, error: WalError) -> None:
        self._failure = self._failure or error

    def _check_message(self, message: MutableMessage) -> None:
        wrong = message.vchannel != self.vchannel or message.type not in BODY_TYPES
        if wrong or IDEMPOTENCY_KEY in message.properties:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"a {message.type.name} for {message.vchannel!r} of {_title(self)}: it appends "
                "Inserts and Deletes of its VChannel, without keys of their own",
            )


def _title(producer: NamedProducer) -> str:
    return f"producer {producer.name} on {producer.vchannel}"


def _closed(producer: NamedProducer) -> WalError:
    return WalError(ErrorCode.ON_SHUTDOWN, f"{_title(producer)} is closed")


def _cancelled(producer: NamedProducer) -> WalError:
    return WalError(ErrorCode.OUTCOME_UNKNOWN, f"an append of {_title(producer)} was cancelled")
