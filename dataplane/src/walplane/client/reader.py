"""One reader of a VChannel or PChannel that survives its owners.

Contract: messages come in tick order, each once, none is left out, and a transaction whole at its
Commit's tick or not at all; after any failure the reader goes on from its token, whoever owns the
PChannel then. A read that does not follow ends at the
present end and gives up when nobody answers for `patience_s`. Layer: client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any

import structlog
from opentelemetry.trace import Span, SpanKind

from walplane.client.closing import unless_closed
from walplane.client.config import ClientConfig
from walplane.client.discovery import Assignment, Discovery
from walplane.client.transport import ConsumeStream, Delivery, Transport
from walplane.message.ids import MessageID, ResumeToken
from walplane.message.registry import MessageType
from walplane.message.txn import is_part
from walplane.message.txn_view import AnyBatch, ImmutableTxnMessage
from walplane.message.view import Batch, ImmutableMessage
from walplane.prompt import PromptTask
from walplane.rpc.errors import Action, ErrorCode, WalError
from walplane.rpc.flow import MOST_UNGRANTED_BYTES
from walplane.tracing import Attributes, Tracing, end
from walplane.wal.ports import LogEntry
from walplane.wal.scan.assembly import TxnAssembler
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind

_log = structlog.get_logger(__name__)


class Reader:
    """Use `StreamingClient.reader`; an async context manager and an iterator over messages.

    Attributes:
        watermark: every message at or below this tick has been delivered.
    """

    def __init__(
        self,
        pchannel: str,
        request: ScanRequest,
        discovery: Discovery,
        transport: Callable[[Assignment], Transport],
        config: ClientConfig,
        patience_s: float | None,
        tracing: Tracing | None = None,
    ) -> None:
        """Reads nothing until it is iterated.

        Args:
            pchannel: where to read.
            request: from where, what, and how far.
            discovery: says who owns the PChannel.
            transport: the way to an owner.
            config: limits.
            patience_s: how long to go on without any answer; None = for ever.
            tracing: makes a span for each traced batch while the program has it.
        """
        self._tracing = tracing or Tracing()
        self._remote = True
        self._trace_parent = ""
        self.watermark = 0
        self._pchannel = pchannel
        self._request = request
        self._discovery = discovery
        self._transport = transport
        self._config = config
        self._patience_s = patience_s
        self._token = request.start.token
        self._only = request.only
        self._begins: MessageID | None = None
        self._tick = max(self._only.from_tick - 1, self._token.time_tick if self._token else 0)
        self._before = (self._token, self._tick)  # the batch that was given last
        self._owner: _Owner | None = None
        self._tried: Assignment | None = None
        self._delay = 0.0
        self._trouble = "it is not served"
        self._ungranted = 0
        self._iteration = 0  # number of the latest; those before it are over
        self._under_way = False  # rather than waiting for its program to take the next batch
        self._left: Iterator[ImmutableMessage] = iter(())  # of the batch that is handed out
        self._txns = TxnAssembler(config.open_txn_bytes)
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def token(self) -> ResumeToken | None:
        """Where a reader that has taken all delivered batches goes on; None before anything.

        Behind a read up to a tick at which nothing was found, None means: where that read began.
        """
        return None if self._token is None else self._token._replace(pchannel=self._pchannel)

    @property
    def _place(self) -> MessageID | None:
        """Where in the log it would go on: never back, since that may be cut off by now."""
        return self._begins if self._token is None else self._token.last_confirmed

    @property
    def held_bytes(self) -> int:
        """What it keeps of transactions that did not end yet."""
        return self._txns.held_bytes

    async def __aenter__(self) -> Reader:
        """The reader itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes it."""
        await self.close()

    async def close(self) -> None:
        """Ends the read, also one under way in another task, and releases it; idempotent."""
        if not self._closed.done():
            self._closed.set_result(None)
        self._left = iter(())
        await self._let_go()

    async def __aiter__(self) -> AsyncIterator[ImmutableMessage]:
        """The messages, one by one; those of a transaction follow each other.

        Goes on behind the last message that an iteration broken off before has given.
        """
        iteration = self._begin()
        for message in self._left:
            yield message
            if self._iteration != iteration:
                raise self._two_at_once()
        async for batch in self.batches():
            self._left, iteration = iter(batch), self._iteration
            for message in self._left:
                yield message
                if self._iteration != iteration:
                    raise self._two_at_once()

    async def batches(self) -> AsyncIterator[AnyBatch]:
        """The messages as they lie in the log: by entry, or by transaction.

        Both have a length, `payloads`, and messages to iterate over. An entry that is a transaction
        by itself comes as a transaction too. Goes on behind the last batch that an iteration broken
        off before has given, also if that gave it in part, by messages.

        Raises:
            WalError: INVALID_ARGUMENT when the reader is iterated twice at once.
            WalError: RESOURCE_ACQUIRED when open transactions exceed `open_txn_bytes`.
            WalError: DATA_TRUNCATED, UNRECOVERABLE or INVALID_ARGUMENT when reading on is
                impossible; CHANNEL_NOT_EXIST for an unknown channel; INNER when nobody answered
                for `patience_s`.
        """
        iteration = self._begin()
        self._under_way, self._left = True, iter(())
        try:
            await self._let_go()  # what is left of a delivery comes again, as after a failure
            while not self._closed.done():
                delivery = await self._next()
                if delivery is None:
                    return
                for batch in self._take(delivery):
                    span = self._span_of(batch) if self._tracing.on else None
                    self._under_way = False
                    try:
                        yield batch
                    finally:
                        end(span)
                    if self._iteration != iteration:
                        raise self._two_at_once()
                    self._under_way = True
                if delivery.end:
                    return
                await self._grant(delivery)
        finally:
            if self._iteration == iteration:  # the stream is not the next one's by now
                self._under_way = False
                await self._let_go()

    def _give_back(self, batch: AnyBatch) -> None:
        """Has `batch`, given last and taken by nobody, come again with the next iteration."""
        if self._tick == batch.last_tick:
            self._token, self._tick = self._before

    def _begin(self) -> int:
        """Ends the iteration before, which was broken off, and begins the one of this number."""
        if self._under_way:
            raise self._two_at_once()
        self._iteration += 1
        return self._iteration

    def _two_at_once(self) -> WalError:
        return WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"a reader of {self._name} is iterated twice at once: make one for each",
        )

    async def _next(self) -> Delivery | None:
        """The next piece, from whoever owns the PChannel; None when the reader was closed."""
        if self._patience_s is None:
            return await self._piece()
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._piece()
        except TimeoutError:
            raise WalError(
                ErrorCode.INNER,
                f"nobody answered a read of {self._name} for {self._patience_s:g} s: "
                f"{self._trouble}",
            ) from None

    async def _piece(self) -> Delivery | None:
        """As `_next`, however long it takes."""
        while not self._closed.done():
            try:
                owner = self._owner or await self._connected()
                return await owner.receive() if owner is not None else None
            except WalError as error:
                await self._recover(error)
        return None

    @property
    def _name(self) -> str:
        return self._request.vchannel or self._pchannel

    async def _connected(self) -> _Owner | None:
        """A stream from whoever owns the PChannel; None when the reader is closed first."""
        return await unless_closed(self._closed, self._connect(), f"read-{self._name}")

    async def _connect(self) -> _Owner:
        assignment = await self._discovery.served(
            self._pchannel, unlike=self._tried, patience_s=self._delay
        )
        self._tried = assignment
        request = self._request
        if self._token is not None:
            self._tick = max(self._tick, self._token.time_tick)
            request = replace(request, start=ScanStart(StartKind.TOKEN, self._token))
        transport = self._transport(assignment)
        self._remote = transport.remote
        stream = await transport.open_consume(assignment, request)
        self._ungranted = 0
        self._txns.clear()  # whatever is still needed comes again
        moved = asyncio.create_task(self._discovery.moved(assignment))
        self._owner = _Owner(stream, moved, self._closed)  # here: whoever asked may be gone
        return self._owner

    async def _recover(self, error: WalError) -> None:
        """Prepares the next attempt, or raises `error` when there is no point in one."""
        await self._let_go()
        if error.action is Action.GIVE_UP or error.code is ErrorCode.CHANNEL_NOT_EXIST:
            raise error
        _log.debug("read interrupted", channel=self._name, error=str(error))
        self._trouble = error.message
        if self._tried is not None and error.action is Action.REDISCOVER:
            self._discovery.report(self._tried, error)
        least, most = self._config.backoff_min_s, self._config.backoff_max_s
        self._delay = min(max(self._delay * 2, least, error.retry_after_ms / 1000), most)

    async def _let_go(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            await owner.close()

    async def _grant(self, delivery: Delivery) -> None:
        """Gives the credit of what was taken back, some at a time."""
        self._ungranted += sum(item.size for item in delivery.entries)
        # no more: the node keeps a bounded credit, whatever may be read ahead
        enough = max(min(self._config.read_ahead_bytes // 4, MOST_UNGRANTED_BYTES), 1)
        if self._owner is not None and self._ungranted >= enough:
            granted, self._ungranted = self._ungranted, 0
            try:
                await self._owner.stream.grant(granted)
            except WalError as error:
                await self._recover(error)

    def _take(self, delivery: Delivery) -> Iterator[AnyBatch]:
        """The new messages of a delivery; the position moves with each batch."""
        self._delay = 0.0
        self._begins = delivery.begins_at or self._begins
        for item in delivery.entries:
            envelope = item.entry.envelope  # kept: protobuf makes one anew for each who asks, else
            batch = self._batch_of(item)
            if batch is not None:
                token = item.token()
                self._before = (self._token, self._tick)
                self._tick = batch.last_tick
                if token.time_tick > self._tick:
                    token = token.at(self._tick)
                self._token = token.reaching(self._place)
                self._trace_parent = envelope.trace_parent
                yield batch
        until = self._only.until_tick
        self._go_on_at(delivery.position, until)
        watermark = min(delivery.watermark, until or delivery.watermark)
        self.watermark = max(self.watermark, watermark)
        if self._token is not None and self._token.time_tick < self.watermark:
            self._token = self._token.at(self.watermark)

    def _go_on_at(self, position: ResumeToken | None, until: int) -> None:
        """Takes a place over behind which it has everything, unless its own is later."""
        if position is None or (self._token and position.time_tick < self._token.time_tick):
            return
        pinned = self._token is None and self._request.start.kind is StartKind.LATEST
        if until and position.time_tick > until and not pinned:
            return  # what it did not ask for lies before that place: its own, at `until`, will do
        self._token = position.reaching(self._place)
        self._tick = max(self._tick, position.time_tick)

    def _span_of(self, batch: AnyBatch) -> Span | None:
        """The span of the program's work on what `_take` gave last."""
        attributes: Attributes = {
            "message.type": batch.type.name,
            "message.timetick": str(batch.last_tick),
        }
        if isinstance(batch, ImmutableTxnMessage):
            attributes["txn.id"] = str(batch.txn_id)
            attributes["message.vchannel"] = batch.vchannel
        else:
            attributes["message.vchannel"] = batch.envelope.vchannel
        name = "wal.dist_consume" if self._remote else "wal.consume"
        return self._tracing.after(self._trace_parent, name, attributes, SpanKind.CONSUMER)

    def _batch_of(self, item: LogEntry) -> AnyBatch | None:
        """What is new with an entry, if anything is."""
        if item.entry.envelope.HasField("txn"):
            return self._txn_of(item)
        self._txns.pass_by(item)
        skip, only = self._known(item), self._only
        unwanted = only.types and item.entry.envelope.type not in only.types
        if unwanted or skip >= item.entry.envelope.count:
            return None
        batch = Batch(item.entry, item.message_id, item.open_number, skip)
        return batch.up_to(only.until_tick) if only.until_tick else batch

    def _txn_of(self, item: LogEntry) -> ImmutableTxnMessage | None:
        """The transaction that is complete with an entry, if it is new; it is never divided."""
        if not is_part(item.entry.envelope):
            new = self._known(item) < item.entry.envelope.count
        elif self._before_start(item):
            return None  # of a transaction that begins before the asked place: no part of the read
        else:
            new = item.last_tick > self._tick
        txn = self._txns.take(item)
        return txn if new and txn is not None and self._wants_txn(txn) else None

    def _wants_txn(self, txn: ImmutableTxnMessage) -> bool:
        """Whether one of its messages was asked for: it is never divided."""
        types, until = self._only.types, self._only.until_tick
        if until and txn.time_tick > until:
            return False
        if not types or MessageType.TXN in types:
            return True
        return any(batch.type in types for batch in txn.batches)

    def _before_start(self, item: LogEntry) -> bool:
        start = self._request.start
        if start.message_id is None:
            return False
        return item.message_id[:3] < start.message_id[:3]

    def _known(self, item: LogEntry) -> int:
        """How many messages at the head of an entry the reader has, or did not ask for."""
        known = max(self._tick + 1 - item.first_tick, 0)
        start = self._request.start
        if start.message_id is not None and item.message_id[:3] == start.message_id[:3]:
            after = start.kind is StartKind.AFTER_ID
            known = max(known, start.message_id.message_index + after)
        return known


class _Owner:
    """A stream from one owner, and the watch for the next one."""

    def __init__(
        self, stream: ConsumeStream, moved: asyncio.Task[None], closed: asyncio.Future[None]
    ) -> None:
        self.stream = stream
        self._moved = moved
        self._closed = closed
        self._news: asyncio.Future[None] | None = None  # for the `receive` under way
        for over in (moved, closed):
            over.add_done_callback(self._tell)

    async def receive(self) -> Delivery | None:
        """The next piece; None when the reader is closed first.

        A task of its own for each: whoever is cancelled ends, whatever the stream makes of it.
        """
        receiving = PromptTask(self.stream.receive())
        try:
            if receiving.done():
                await asyncio.sleep(0)  # a log in this process may have any number of them ready
            elif not (self._moved.done() or self._closed.done()):
                self._news = asyncio.get_running_loop().create_future()
                receiving.listen(self._tell)
                await self._news
            if receiving.done():
                return receiving.result()
            if self._closed.done():
                return None
            raise WalError(ErrorCode.CHANNEL_FENCED, "the channel has moved to another owner")
        finally:
            self._news = None
            if not receiving.done():
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)
            elif not receiving.cancelled():
                receiving.exception()  # whoever cancels the read does not ask for it

    async def close(self) -> None:
        """Releases both."""
        for over in (self._moved, self._closed):
            over.remove_done_callback(self._tell)
        self._moved.cancel()
        await self.stream.close()

    def _tell(self, _over: asyncio.Future[Any]) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def start_position(start: str | ResumeToken | MessageID, *, after: bool = False) -> ScanStart:
    """The start that a user names.

    Args:
        start: `earliest`, `latest`, a resume token, a message id, or the text of one of these.
        after: with a message id: begin behind that message instead of with it.

    Raises:
        WalError: INVALID_ARGUMENT when it is none of them.
    """
    if isinstance(start, ResumeToken):
        return ScanStart(StartKind.TOKEN, token=start)
    if isinstance(start, MessageID):
        kind = StartKind.AFTER_ID if after else StartKind.FROM_ID
        return ScanStart(kind, message_id=start)
    if start in ("earliest", "latest"):
        return ScanStart(StartKind.EARLIEST if start == "earliest" else StartKind.LATEST)
    try:
        place = ResumeToken.parse(start) if "@" in start else MessageID.parse(start)
        place.to_proto()  # refuses numbers that no place has
    except (AttributeError, TypeError, ValueError):  # no text, or no such place
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"{start!r} is no start: earliest, latest, a resume token or a message id",
        ) from None
    return start_position(place, after=after)
