"""Opens named producers, and keeps older instances out. Layer: wal.

Contract: an open follows the batches of the instance before it through the chain, so what that had
in flight is in the log before it or never; while it is on its way that is turned away for a moment,
after it for good. Opens of one producer come one after the other, each on top of the epoch that its
caller knew. An open that is asked for again, by the same opener, is one open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from walplane.channel import pchannel_of
from walplane.message import codec
from walplane.message.registry import MAX_PRODUCER_NAME, MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.interceptors.base import AppendOp, append_op
from walplane.wal.ports import AppendResult
from walplane.wal.recovery.named import NamedProducers, Standing
from walplane.wal.recovery.windows import ProducerKey, producer_key_of, title
from walplane.wal.running import answer_of

_RETRY_AFTER_MS = 20
_MAX_OPENER = 64

_Opening = tuple[log_pb2.Entry, asyncio.Future[AppendResult]]


class ProducerOpens:
    """The opens of one PChannel.

    Args:
        named: what the log says.
        append: starts to append an entry through the chain.
        settled_tick: how far the log is settled.
    """

    def __init__(
        self,
        named: NamedProducers,
        append: Callable[[AppendOp], asyncio.Future[AppendResult]],
        settled_tick: Callable[[], int],
    ) -> None:
        """Nothing is being opened."""
        self._named = named
        self._append = append
        self._settled_tick = settled_tick
        self._opening: dict[ProducerKey, _Opening] = {}

    def check(self, envelope: log_pb2.Envelope) -> None:
        """Makes sure that a batch of a named producer is one of its last open.

        Raises:
            WalError: PRODUCER_FENCED; RESOURCE_ACQUIRED while that is being decided.
        """
        key = producer_key_of(envelope)
        if key in self._opening:
            raise _busy(key)
        self._named.check_epoch(key, envelope.producer.epoch)

    async def open(self, vchannel: str, name: str, opener: bytes, after_epoch: int) -> Standing:
        """Where the producer is; with an `opener`, after it was opened on top of `after_epoch`.

        Cancelling the call does not take the open back.

        Raises:
            WalError: INVALID_ARGUMENT for a wrong name or opener, or when there are too many names;
                RESOURCE_ACQUIRED when somebody else opens it, or did since `after_epoch`;
                PRODUCER_FENCED when somebody did right after this; whatever an append raises.
        """
        key = (name, vchannel)
        _check(name, opener)
        standing = self._named.standing(key)
        if not opener or standing.opener == opener:
            return standing
        opening = self._opening.get(key)
        if opening is None:
            opening = self._start(key, opener, after_epoch, standing)
        entry, append = opening
        if entry.envelope.producer.opener != opener:
            raise _busy(key)
        opened = await answer_of(append, pchannel_of(vchannel))
        self._named.check_epoch(key, opened.first_tick)
        return self._named.standing(key)

    def _start(
        self, key: ProducerKey, opener: bytes, after_epoch: int, standing: Standing
    ) -> _Opening:
        if standing.epoch != after_epoch:
            raise _busy(key)
        room = self._named.has_room(self._settled_tick(), len(self._opening))
        if not standing.epoch and not room:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"{title(key)} is new, and as many named producers are kept as may be: use names "
                "again, those that nobody uses are forgotten after a while",
            )
        entry = _entry(key, opener)
        append = self._append(append_op(entry))
        self._opening[key] = (entry, append)
        append.add_done_callback(partial(self._over, key))
        return entry, append

    def _over(self, key: ProducerKey, _: asyncio.Future[AppendResult]) -> None:
        del self._opening[key]


def _entry(key: ProducerKey, opener: bytes) -> log_pb2.Entry:
    name, vchannel = key
    producer = log_pb2.ProducerBatch(name=str(name), opener=opener)
    envelope = log_pb2.Envelope(
        version=1, type=MessageType.TIME_TICK, vchannel=vchannel, count=1, producer=producer
    )
    return codec.seal_entry(envelope, codec.encode_body(b"", [b""]))


def _check(name: str, opener: bytes) -> None:
    if not 0 < len(name) <= MAX_PRODUCER_NAME:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"a producer's name of {len(name)} characters: use 1 to {MAX_PRODUCER_NAME}",
        )
    if len(opener) > _MAX_OPENER:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"an opener of {len(opener)} bytes: send at most {_MAX_OPENER}",
        )


def _busy(key: ProducerKey) -> WalError:
    return WalError(
        ErrorCode.RESOURCE_ACQUIRED,
        f"{title(key)} is being opened, or was a moment ago: ask again",
        retry_after_ms=_RETRY_AFTER_MS,
    )
