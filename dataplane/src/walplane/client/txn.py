"""One transaction of a program: all of it becomes visible at its commit, or none. Layer: client.

Contract: messages are kept back while one entry can hold them, and leave as that entry at the
commit: such a transaction costs one append and never expires. One that outgrows an entry is begun
then; from there on its messages leave as they come, under numbers of their own, so that a retry
doubles nothing, whoever owns the channel. After a message that failed, the transaction can only be
rolled back.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import structlog
from opentelemetry.trace import Span

from walplane.client.batcher import Kind, Parcel
from walplane.client.outgoing import Kinds, check_message
from walplane.client.results import AppendResult, Written
from walplane.message.builder import VERSION, MutableMessage
from walplane.message.registry import MessageType
from walplane.message.txn import BODY_TYPES, MAX_KEEPALIVE_MS
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.tracing import end, note, parent_of

_SAYS_NOTHING = {ErrorCode.OUTCOME_UNKNOWN, ErrorCode.UNRECOVERABLE}
"""Errors of a Commit that may be in the log: a log that fails refuses also what was sent before,
and perhaps written."""

_log = structlog.get_logger(__name__)

DEFAULT_KEEPALIVE_S = 10.0


class Late(Protocol):
    """Makes the error of an append that took too long."""

    def __call__(self, vchannel: str, seconds: float, *, sent: bool) -> WalError:
        """See `Outlet.late`."""
        ...


@dataclass(frozen=True)
class Outlet:
    """What a transaction needs of its client.

    Attributes:
        kinds: makes parcels.
        entry_bytes: what an entry for a VChannel may hold; waits so many seconds for an owner.
        entry_messages: messages an entry may hold.
        offer: appends a parcel to a VChannel's lane; waits for room in the byte budget.
        offer_at_once: the same without waiting; False when there is no room.
        append_alone: appends a parcel to the VChannel itself and waits so many seconds for it.
        forget: drops a lane that has served its purpose.
        late: the error of an append that was not answered in so many seconds; `sent` tells
            whether it was handed over at all.
    """

    kinds: Kinds
    entry_bytes: Callable[[str, float], Awaitable[int]]
    entry_messages: int
    offer: Callable[[str, Parcel, str], Awaitable[None]]
    offer_at_once: Callable[[str, Parcel, str], bool]
    append_alone: Callable[[str, Parcel, float], Awaitable[Written]]
    forget: Callable[[str, str], None]
    late: Late


class TxnState(enum.Enum):
    """Where a transaction stands, as its program knows."""

    OPEN = "open"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    UNKNOWN = "ended, but how is not known"


class Txn:
    """Made by `StreamingClient.txn`; an async context manager that commits, or rolls back.

    ```python
    async with wal.txn(vchannel) as txn:
        await txn.append(delete(vchannel, b"old"))
        await txn.append(insert(vchannel, b"new"))
    ```

    Attributes:
        vchannel: where it is.
        txn_id: tick of its Begin; 0 while it is kept back.
        state: whether it can still be appended to.
        result: what the commit gave; None before, and of an empty transaction.
    """

    def __init__(self, outlet: Outlet, vchannel: str, keepalive: float, seconds: float) -> None:
        """Nothing is begun yet.

        Raises:
            WalError: INVALID_ARGUMENT for a keepalive out of range.
        """
        self.vchannel = vchannel
        self.txn_id = 0
        self.state = TxnState.OPEN
        self.result: AppendResult | None = None
        self._outlet = outlet
        self._keepalive_ms = _keepalive_ms(keepalive)
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._kept: list[Parcel] = []
        self._kept_bytes = self._messages = 0
        self._limit = 0
        self._sent: set[asyncio.Future[Written]] = set()
        self._failure: WalError | None = None
        self._kinds: tuple[Kind, Kind] | None = None
        self._span: Span | None = None

    def trace(self, span: Span | None) -> None:
        """Takes the span of the whole transaction, before anything is appended."""
        self._span = span

    async def __aenter__(self) -> Txn:
        """The transaction itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commits, or rolls back when the block raised; see `commit`.

        A cancelled block asks for the rollback without waiting for it.
        """
        if self.state is not TxnState.OPEN:
            return
        if error is None:
            await self.commit()
            return
        try:
            if isinstance(error, Exception):
                await self._roll_back_quietly()
            else:
                self._offer_rollback()
        finally:
            self._end_span(error)

    async def append(self, message: MutableMessage) -> None:
        """Adds a message; returns once it is handed over, not when it is durable.

        Cancelling it dooms the transaction when the message was being sent already.

        Raises:
            WalError: INVALID_ARGUMENT for a message that cannot be in this transaction, which then
                goes on without it; TRANSACTION_EXPIRED when it was ended from elsewhere: do the
                whole of it again; INVALID_TRANSACTION_STATE when it has ended; otherwise as
                `StreamingClient.append`.
        """
        try:
            parcel = self._parcel(message)
        except AttributeError:
            check_message(message)
            raise
        async with self._turn:
            self._check()
            if not self.txn_id and await self._keep(parcel):
                return
            await self._flush()
            await self._send(parcel)

    async def append_many(self, messages: Iterable[MutableMessage]) -> None:
        """Adds messages in their order; as `append`."""
        for message in messages:
            await self.append(message)

    async def flush(self) -> None:
        """Begins, and sends what was kept back; it is not durable when this returns.

        Raises:
            WalError: as `append`.
        """
        async with self._turn:
            self._check()
            await self._flush()

    async def commit(self) -> AppendResult | None:
        """Makes all of it visible at once; returns its place, None when it is empty.

        Raises:
            WalError: what a message failed with, then it is rolled back; TRANSACTION_EXPIRED when
                it was ended from elsewhere; OUTCOME_UNKNOWN when nobody answered, UNRECOVERABLE
                when the log fails: it may or may not be committed, and `state` says so;
                INVALID_TRANSACTION_STATE when it has ended.
        """
        async with self._turn:
            self._check(failed=True)  # what failed is rolled back first
            begun = self.txn_id or self._failure is not None
            if not begun and not self._kept:
                self.state = TxnState.COMMITTED
                self._end_span(None)
                return None
            try:
                written = await (self._commit() if begun else self._append_whole())
            except BaseException as error:
                if self.state is TxnState.OPEN:  # cancelled before the Commit was sent
                    self._offer_rollback()
                self._end_span(error)
                raise
            self._end_span(None)
            self.state = TxnState.COMMITTED
            self.result = written.result(0, self._messages)
            return self.result

    async def rollback(self) -> None:
        """Makes nothing of it visible; returns once that is durable. Idempotent.

        Raises:
            WalError: INVALID_TRANSACTION_STATE when it is committed; OUTCOME_UNKNOWN when nobody
                answered, ON_SHUTDOWN when the client is closed: its keepalive ends it then.
        """
        async with self._turn:
            if self.state is TxnState.ROLLED_BACK:
                return
            self._check(failed=True)
            rollback = self._offer_rollback()
            self._end_span(None)
            try:
                if rollback is not None:
                    await self._answer(rollback)
            except WalError as error:
                if error.code is not ErrorCode.TRANSACTION_EXPIRED:  # then it is rolled back too
                    raise

    def _end_span(self, error: BaseException | None) -> None:
        span, self._span = self._span, None
        if span is not None and self.txn_id:
            note(span, "txn.id", str(self.txn_id))
        end(span, error)

    @property
    def _lane(self) -> str:
        return f"{self.vchannel} txn {self.txn_id}"

    def _parcel(self, message: MutableMessage) -> Parcel:
        if message.vchannel != self.vchannel or message.type not in BODY_TYPES:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"a {message.type.name} for {message.vchannel!r} in a transaction on "
                f"{self.vchannel}: a transaction holds Inserts and Deletes of one VChannel",
            )
        parcel = self._outlet.kinds.parcel(message)
        if parcel.kind.keyed:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"an idempotency key in a transaction on {self.vchannel}: append the message by "
                "itself, or leave out the key",
            )
        return parcel

    def _check(self, *, failed: bool = False) -> None:
        if self.state is not TxnState.OPEN:
            raise WalError(
                ErrorCode.INVALID_TRANSACTION_STATE,
                f"this transaction on {self.vchannel} is {self.state.value}: begin another",
            )
        if self._failure is not None and not failed:
            raise self._failure

    async def _keep(self, parcel: Parcel) -> bool:
        """Keeps `parcel` back if it and all before it fit one entry."""
        if not self._limit:
            self._limit = await self._outlet.entry_bytes(self.vchannel, self._seconds)
        size = parcel.size + (0 if self._kept else parcel.kind.overhead)
        count = self._messages + len(parcel.payloads)
        joins = not self._kept or parcel.kind.joins(self._kept[0].kind)
        fits = self._kept_bytes + size <= self._limit and count <= self._outlet.entry_messages
        if not joins or (not fits and self._kept):
            return False
        self._kept.append(parcel)
        self._kept_bytes += size
        self._messages = count
        return True

    async def _append_whole(self) -> Written:
        kept, self._kept = self._kept, []
        context = log_pb2.TxnContext(kind=log_pb2.TXN_KIND_WHOLE)
        parcel = _merged(kept, self._in_txn(kept[0].kind, context, merges=False))
        self.state = TxnState.UNKNOWN
        try:
            written = await self._outlet.append_alone(self.vchannel, parcel, self._seconds)
        except WalError as error:
            if error.code not in _SAYS_NOTHING:
                self.state = TxnState.ROLLED_BACK
            raise
        last = self._messages - 1
        place = written.result(last, 1)
        return Written(place.message_id, place.time_tick, written.last_confirmed)

    async def _flush(self) -> None:
        if not self.txn_id:
            begin = self._control(MessageType.BEGIN_TXN)
            try:
                await self._offer(begin, f"{self.vchannel} begins")
                self.txn_id = (await self._answer(begin)).first_tick
            except BaseException as error:
                self._fail(error)
                begin.done.add_done_callback(self._begun_late)
                raise
        if self._kept:
            kept, self._kept = self._kept, []
            self._messages = 0
            await self._send(_merged(kept, kept[0].kind))

    def _begun_late(self, done: asyncio.Future[Written]) -> None:
        """A Begin that its caller did not wait for was written: what it began is ended."""
        if done.cancelled() or done.exception() is not None:
            return
        self.txn_id = done.result().first_tick
        if self.state is not TxnState.OPEN:  # else its end finds it
            self._offer_rollback()

    async def _send(self, parcel: Parcel) -> None:
        sent = Parcel(self._kind_of_body(parcel.kind), parcel.payloads, parcel.payload_bytes)
        try:
            await self._offer(sent, self._lane)
        except BaseException as error:
            self._fail(error)
            raise
        self._messages += len(parcel.payloads)
        self._sent.add(sent.done)
        sent.done.add_done_callback(self._note)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error if isinstance(error, WalError) else _broken(self.vchannel)

    def _note(self, done: asyncio.Future[Written]) -> None:
        self._sent.discard(done)
        error = None if done.cancelled() else done.exception()
        if error is not None:
            self._fail(error)

    async def _commit(self) -> Written:
        if self._sent and self._failure is None:
            answered, late = await asyncio.wait(list(self._sent), timeout=self._seconds)
            for done in answered:
                self._note(done)
            if late:
                self._fail(self._outlet.late(self.vchannel, self._seconds, sent=True))
        if self._failure is not None:
            await self._roll_back_quietly()
            raise self._failure
        commit = self._ending(MessageType.COMMIT_TXN)
        await self._offer(commit, self._lane)
        self.state = TxnState.UNKNOWN
        try:
            return await self._answer(commit)
        except WalError as error:
            if error.code not in _SAYS_NOTHING:
                self.state = TxnState.ROLLED_BACK
            raise
        finally:
            self._outlet.forget(self.vchannel, self._lane)

    async def _roll_back_quietly(self) -> None:
        rollback = self._offer_rollback()
        if rollback is not None:
            try:
                await self._answer(rollback)
            except WalError as error:  # its keepalive ends it then, if nothing has
                _log.debug("rollback", vchannel=self.vchannel, txn=self.txn_id, error=str(error))

    def _offer_rollback(self) -> Parcel | None:
        """Ends it here, and there when something of it is there."""
        self.state = TxnState.ROLLED_BACK
        self._kept.clear()
        if not self.txn_id:
            return None
        rollback = self._ending(MessageType.ROLLBACK_TXN)
        try:
            self._outlet.offer_at_once(self.vchannel, rollback, self._lane)
        except WalError as error:  # the client is closed: the keepalive ends it
            rollback.fail(error)
        self._outlet.forget(self.vchannel, self._lane)
        return rollback

    async def _answer(self, parcel: Parcel) -> Written:
        try:
            done, _ = await asyncio.wait([parcel.done], timeout=self._seconds)
        except asyncio.CancelledError:
            parcel.give_up(_broken(self.vchannel))
            raise
        if not done:
            late = self._outlet.late(self.vchannel, self._seconds, sent=True)
            parcel.give_up(late)
            raise late
        return parcel.done.result()

    async def _offer(self, parcel: Parcel, lane: str) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._outlet.offer(self.vchannel, parcel, lane)
        except TimeoutError:
            raise self._outlet.late(self.vchannel, self._seconds, sent=False) from None

    def _control(self, kind: MessageType) -> Parcel:
        envelope = log_pb2.Envelope(version=VERSION, type=kind, vchannel=self.vchannel)
        envelope.txn.kind = log_pb2.TXN_KIND_PART
        envelope.txn.txn_id = self.txn_id
        if kind is MessageType.BEGIN_TXN:
            envelope.txn.keepalive_ms = self._keepalive_ms
        envelope.trace_parent = parent_of(self._span)
        return Parcel(Kind(envelope, b"", merges=False), (b"",), 0)

    def _ending(self, kind: MessageType) -> Parcel:
        """What ends it, and needs no room in the byte budget: that may be full for very long."""
        parcel = self._control(kind)
        parcel.size = 0
        return parcel

    def _kind_of_body(self, kind: Kind) -> Kind:
        if self._kinds is None or self._kinds[0] is not kind:
            context = log_pb2.TxnContext(txn_id=self.txn_id, kind=log_pb2.TXN_KIND_PART)
            self._kinds = (kind, self._in_txn(kind, context, merges=kind.merges))
        return self._kinds[1]

    def _in_txn(self, kind: Kind, context: log_pb2.TxnContext, *, merges: bool) -> Kind:
        envelope = log_pb2.Envelope()
        envelope.CopyFrom(kind.envelope)
        envelope.txn.CopyFrom(context)
        envelope.trace_parent = parent_of(self._span) or envelope.trace_parent
        return Kind(envelope, kind.header, merges=merges)


def _keepalive_ms(keepalive: float) -> int:
    """Milliseconds of so many seconds; raises INVALID_ARGUMENT for what cannot be."""
    with suppress(TypeError, ValueError, OverflowError):  # no number, not a number, endless
        if 0 < (milliseconds := round(keepalive * 1000)) <= MAX_KEEPALIVE_MS:
            return milliseconds
    raise WalError(
        ErrorCode.INVALID_ARGUMENT,
        f"a keepalive of {keepalive!r} s: ask for 0.001 to {MAX_KEEPALIVE_MS // 1000}",
    )


def _merged(parcels: Sequence[Parcel], kind: Kind) -> Parcel:
    """One parcel of all that `parcels`, of one kind, hold."""
    payloads = [payload for parcel in parcels for payload in parcel.payloads]
    return Parcel(kind, payloads, sum(parcel.payload_bytes for parcel in parcels))


def _broken(vchannel: str) -> WalError:
    return WalError(
        ErrorCode.INVALID_TRANSACTION_STATE,
        f"an append of this transaction on {vchannel} was cancelled: it can only be rolled back",
    )
