"""The appends of one client: whose turn it is, what fits, and what becomes of each message.

Contract: appends to one VChannel keep the order of the calls; every message has exactly one
outcome, within the caller's time. Bytes of what is not answered are bounded. Layer: client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from math import isfinite
from typing import Any

from walplane.channel import InvalidChannelName, pchannel_of
from walplane.client.batcher import MESSAGE_OVERHEAD_BYTES, Parcel
from walplane.client.config import ClientConfig
from walplane.client.discovery import Assignment, Discovery
from walplane.client.named import NamedOutlet, NamedProducer
from walplane.client.naming import NamedPipeline
from walplane.client.opening import open_named
from walplane.client.outgoing import Kinds, Packed, by_vchannel, pack
from walplane.client.producer import ChannelProducer
from walplane.client.results import (
    Answers,
    AppendResult,
    AppendResults,
    Part,
    Written,
    joined,
    refused,
)
from walplane.client.spans import autocommit
from walplane.client.transport import OpenedProducer, Transport
from walplane.client.turns import Turn, Turns
from walplane.client.txn import Outlet, Txn
from walplane.message.builder import MutableMessage
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.flow import ByteBudget
from walplane.tracing import Tracing

_GONE = WalError(ErrorCode.UNKNOWN, "the caller has gone")

_ANSWER_SHARE, _ANSWER_SECONDS = 0.1, 1.0
"""Of a caller's time, at most, what is kept for the answer that a lock was not to be had."""


class Appends:
    """Everything that one client appends."""

    def __init__(
        self,
        name: str,
        discovery: Discovery,
        transport: Callable[[Assignment], Transport],
        new_id: Callable[[], bytes],
        config: ClientConfig,
        tracing: Tracing | None = None,
    ) -> None:
        """Sends nothing yet.

        Args:
            name: the client, for errors.
            discovery: says who owns a PChannel.
            transport: the way to an owner.
            new_id: gives producer ids.
            config: limits.
            tracing: makes the spans of what is appended.
        """
        self._name = name
        self._tracing = tracing or Tracing()
        self._discovery = discovery
        self._transport = transport
        self._new_id = new_id
        self._config = config
        self._producers: dict[str, ChannelProducer] = {}
        self._by_vchannel: dict[str, ChannelProducer] = {}
        self._kinds = Kinds()
        self._turns = Turns()
        self._pending = ByteBudget(config.pending_bytes)
        self._openings: set[asyncio.Task[OpenedProducer]] = set()
        self._closed = False
        self._outlet = Outlet(
            kinds=self._kinds,
            entry_bytes=self._entry_bytes,
            entry_messages=config.entry_messages,
            offer=self._offer,
            offer_at_once=self._offer_at_once,
            append_alone=self._in_turn,
            forget=self._forget,
            late=self._unanswered,
        )

    def stop(self) -> None:
        """Takes no more."""
        self._closed = True

    async def close(self) -> None:
        """Takes no more, ends opens under way, and fails what has no answer."""
        self.stop()
        openings = list(self._openings)
        for opening in openings:
            opening.cancel()
        await asyncio.gather(*openings, return_exceptions=True)
        error = WalError(
            ErrorCode.OUTCOME_UNKNOWN,
            f"{self._name} was closed before the append was answered: it may or may not be written",
        )
        await asyncio.gather(*(producer.close(error) for producer in self._producers.values()))

    @property
    def closed(self) -> bool:
        """Whether it takes no more."""
        return self._closed

    def check_open(self) -> None:
        """Raises ON_SHUTDOWN once it is closed."""
        if self._closed:
            raise WalError(ErrorCode.ON_SHUTDOWN, f"{self._name} is closed")

    def pchannel_of(self, vchannel: str) -> str:
        """The PChannel of `vchannel`.

        Raises:
            WalError: INVALID_ARGUMENT or CHANNEL_NOT_EXIST when there is none.
        """
        try:
            pchannel = pchannel_of(vchannel)
        except InvalidChannelName as error:
            raise WalError(ErrorCode.INVALID_ARGUMENT, str(error)) from error
        self._discovery.known(pchannel)
        return pchannel

    def one(self, message: MutableMessage, seconds: float) -> Coroutine[Any, Any, AppendResult]:
        """See `StreamingClient.append`."""
        if self._tracing.on:
            return self._one_traced(message, seconds)
        return self._one(message, seconds)

    async def _one_traced(self, message: MutableMessage, seconds: float) -> AppendResult:
        with autocommit(self._tracing, [message]) as traced:
            return await self._one(traced[0], seconds)

    async def _one(self, message: MutableMessage, seconds: float) -> AppendResult:
        vchannel, count = message.vchannel, len(message.payloads)
        parcel = self._kinds.parcel(message)
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        parcel.until = _wait_until(end, seconds)
        if vchannel in self._turns.last or not self._offer_at_once(vchannel, parcel):
            return (await self._in_turn(vchannel, parcel, seconds)).result(0, count)
        # without the two tasks' worth of `asyncio.wait` and `asyncio.timeout`
        timer = loop.call_at(end, self._expire, vchannel, parcel, seconds)
        try:
            return (await parcel.done).result(0, count)
        except asyncio.CancelledError:
            parcel.give_up(_GONE)
            raise
        finally:
            timer.cancel()

    async def many(self, messages: Sequence[MutableMessage], seconds: float) -> AppendResults:
        """See `StreamingClient.append_many`."""
        if self._tracing.on:
            with autocommit(self._tracing, messages) as traced:
                return await self._many(traced, seconds)
        return await self._many(messages, seconds)

    async def _many(self, messages: Sequence[MutableMessage], seconds: float) -> AppendResults:
        vchannels = {message.vchannel for message in messages}
        rooms = [self._producer(vchannel).entry_limit for vchannel in vchannels]
        known = [room for room in rooms if room is not None]
        if len(known) < len(rooms):
            return (await self._append_apart(messages, seconds)).results()
        packed = self._pack(messages, known)
        with self._turns.take(vchannels) as turn:
            parts = await self._append(packed, seconds, turn)
        return Answers(parts, packed.slots, packed.counts).results()

    def txn(self, vchannel: str, keepalive: float, seconds: float) -> Txn:
        """See `StreamingClient.txn`."""
        self._producer(vchannel)
        txn = Txn(self._outlet, vchannel, keepalive, seconds)
        if self._tracing.on:
            txn.trace(self._tracing.root("wal.txn", {"message.vchannel": vchannel}))
        return txn

    def producer(self, name: str, vchannel: str, seconds: float) -> NamedProducer:
        """See `StreamingClient.producer`."""
        self._producer(vchannel)
        outlet = NamedOutlet(
            config=self._config,
            open=partial(self._open_named, seconds),
            entry_bytes=self._entry_bytes,
            offer=self._offer_named,
            forget=self._forget,
            late=self._unanswered,
        )
        return NamedProducer(outlet, name, vchannel, seconds)

    async def _open_named(self, seconds: float, vchannel: str, name: str) -> OpenedProducer:
        self.check_open()
        asked = (self._new_id(), self.pchannel_of(vchannel), vchannel, name, self._config)
        opening = asyncio.create_task(
            open_named(self._discovery, self._transport, *asked), name=f"open-{name}"
        )
        self._openings.add(opening)
        try:
            await asyncio.wait({opening}, timeout=seconds)
            late = not opening.done()
        finally:
            self._openings.discard(opening)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        if late:
            raise WalError(
                ErrorCode.RESOURCE_ACQUIRED,
                f"producer {name} on {vchannel} could not be opened within {seconds:g} s: try "
                "again",
            )
        if opening.cancelled():
            self.check_open()  # it was closed meanwhile
        return opening.result()

    async def _offer_named(self, vchannel: str, parcel: Parcel, pipeline: NamedPipeline) -> None:
        try:
            if not self._pending.try_acquire(parcel.size):
                await self._pending.acquire(parcel.size)
            parcel.budget = self._pending
            self._producer(vchannel).offer_to(pipeline, parcel)
        except WalError as error:  # the client is closed
            parcel.fail(error)

    def _forget(self, vchannel: str, lane: str) -> None:
        producer = self._by_vchannel.get(vchannel)
        if producer is not None:
            producer.forget(lane)

    async def _entry_bytes(self, vchannel: str, seconds: float) -> int:
        """What an entry for `vchannel` may hold, once its owner has said so."""
        try:
            async with asyncio.timeout(seconds):
                room = await self._producer(vchannel).first_entry_limit()
        except TimeoutError:
            raise self._unanswered(vchannel, seconds, sent=False) from None
        return self._room([room])

    async def _in_turn(self, vchannel: str, parcel: Parcel, seconds: float) -> Written:
        with self._turns.take([vchannel]) as turn:
            packed = Packed([(vchannel, parcel)], [0], [len(parcel.payloads)])
            [(outcome, _)] = await self._append(packed, seconds, turn)
        if isinstance(outcome, WalError):
            raise outcome
        return outcome

    def _pack(self, messages: Sequence[MutableMessage], rooms: Iterable[int]) -> Packed:
        """The parcels of `messages`, for owners whose entries have `rooms` bytes."""
        return pack(messages, self._config.entry_messages, self._room(rooms))

    def _room(self, rooms: Iterable[int]) -> int:
        """Bytes of an entry besides the sizes of its messages, for owners that take `rooms`."""
        sizes = MESSAGE_OVERHEAD_BYTES * self._config.entry_messages
        return min([self._config.entry_bytes, *(room - sizes for room in rooms)])

    async def _append_apart(self, messages: Sequence[MutableMessage], seconds: float) -> Answers:
        """Each VChannel by itself, for the first contact: owners come when they come.

        One that is never reached keeps nothing from the others, and has an answer like them.
        """
        self._pack(messages, [])  # refuses what no client may append, before anything is sent
        lanes = by_vchannel(messages)
        with ExitStack() as stack:
            # every turn is taken before anything waits: calls go in the order they were made
            turns = [stack.enter_context(self._turns.take([vchannel])) for vchannel in lanes]
            async with asyncio.TaskGroup() as tasks:
                answers = [
                    tasks.create_task(self._append_lane([messages[i] for i in lane], seconds, turn))
                    for lane, turn in zip(lanes.values(), turns, strict=True)
                ]
        results = [answer.result() for answer in answers]
        return joined(zip(lanes.values(), results, strict=True))

    async def _append_lane(
        self, messages: Sequence[MutableMessage], seconds: float, turn: Turn
    ) -> Answers:
        """Messages of one VChannel, once its owner has said how much an entry may hold."""
        now = asyncio.get_running_loop().time
        began, vchannel = now(), messages[0].vchannel
        try:
            async with asyncio.timeout(seconds):
                room = await self._producer(vchannel).first_entry_limit()
        except TimeoutError:
            return refused(messages, self._unanswered(vchannel, seconds, sent=False))
        except WalError as error:  # the client is closed
            return refused(messages, error)
        packed = self._pack(messages, [room])
        parts = await self._append(packed, seconds - (now() - began), turn)
        return Answers(parts, packed.slots, packed.counts)

    async def _append(self, packed: Packed, seconds: float, turn: Turn) -> list[Part]:
        until = _wait_until(asyncio.get_running_loop().time() + seconds, seconds)
        try:
            async with asyncio.timeout(seconds):
                await turn.come()
                for vchannel, parcel in packed.parcels:
                    parcel.until = until
                    await self._offer(vchannel, parcel)
                turn.end()
                if packed.parcels:
                    await asyncio.wait([parcel.done for _, parcel in packed.parcels])
        except TimeoutError:
            self._give_up(packed, seconds)
        except BaseException:
            for _, parcel in packed.parcels:
                parcel.give_up(_GONE)
            raise
        return [(parcel.outcome(), len(parcel.payloads)) for _, parcel in packed.parcels]

    async def _offer(self, vchannel: str, parcel: Parcel, lane: str = "") -> None:
        try:
            if not self._offer_at_once(vchannel, parcel, lane):
                await self._pending.acquire(parcel.size)
                parcel.budget = self._pending
                self._producer(vchannel).offer(lane or vchannel, parcel)
        except WalError as error:  # the client is closed: those before it keep their own outcome
            parcel.fail(error)

    def _offer_at_once(self, vchannel: str, parcel: Parcel, lane: str = "") -> bool:
        """Offers `parcel` if the byte budget has room for it; see `ChannelProducer.offer`."""
        producer = self._by_vchannel.get(vchannel)
        if producer is None or self._closed:
            producer = self._by_vchannel[vchannel] = self._producer(vchannel)
        if not self._pending.try_acquire(parcel.size):
            return False
        parcel.budget = self._pending
        producer.offer(lane or vchannel, parcel)
        return True

    def _expire(self, vchannel: str, parcel: Parcel, seconds: float) -> None:
        if not parcel.done.done():
            error = self._unanswered(vchannel, seconds, sent=parcel.taken)
            parcel.done.set_exception(error)
            parcel.give_up(error)

    def _give_up(self, packed: Packed, seconds: float) -> None:
        """Gives every parcel without an answer its error."""
        for vchannel, parcel in packed.parcels:
            if not parcel.done.done():
                parcel.give_up(self._unanswered(vchannel, seconds, sent=parcel.taken))

    def _unanswered(self, vchannel: str, seconds: float, *, sent: bool) -> WalError:
        producer = self._producers.get(pchannel_of(vchannel))
        why = f": {producer.trouble}" if producer is not None and producer.trouble else ""
        if sent:
            return WalError(
                ErrorCode.OUTCOME_UNKNOWN,
                f"append to {vchannel} was not answered within {seconds:g} s{why}; it may or may "
                "not be written: read the channel to find out",
            )
        return WalError(
            ErrorCode.RESOURCE_ACQUIRED,
            f"append to {vchannel} could not be sent within {seconds:g} s{why}; nothing of it is "
            "written: try again later",
        )

    def _producer(self, vchannel: str) -> ChannelProducer:
        self.check_open()
        pchannel = self.pchannel_of(vchannel)
        producer = self._producers.get(pchannel)
        if producer is None:
            producer = self._producers[pchannel] = ChannelProducer(
                pchannel, self._discovery, self._transport, self._new_id, self._config
            )
        return producer


def _wait_until(end: float, seconds: float) -> float | None:
    """How long what was given `seconds`, until `end`, may wait for a lock: it is to be told.

    As long as it takes, when that has no end.
    """
    return end - min(seconds * _ANSWER_SHARE, _ANSWER_SECONDS) if isfinite(end) else None
