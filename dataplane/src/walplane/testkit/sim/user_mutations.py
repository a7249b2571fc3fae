"""What the simulation must notice when users are not told, or not in time. Layer: testkit.

Contract: as `mutations`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable

from walplane.client import grpc_transport
from walplane.client.appends import Appends
from walplane.client.batcher import Kind
from walplane.client.local_transport import _LocalProduce
from walplane.client.pipeline import Pipeline
from walplane.client.reader import Reader
from walplane.client.results import Written
from walplane.client.transport import written
from walplane.coord.broadcast import Appender, Broadcasts
from walplane.node.consume import ConsumeStream
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import log_pb2, streaming_pb2
from walplane.rpc.v1.coordmeta_pb2 import BroadcastTask, CollectionMeta
from walplane.testkit.sim.mutations import Mutation, patched
from walplane.ticks import TICKS_PER_MS
from walplane.wal.interceptors.base import AppendOp, Forward
from walplane.wal.interceptors.keyed import KeyedAppends
from walplane.wal.ports import AppendResult, LogEntry
from walplane.wal.recovery.keyed import KeyedResults
from walplane.wal.txn.expiry import TxnExpiry
from walplane.wal.txn.sessions import TxnSessions
from walplane.wal.txn.table import OpenTxn

_complete = Broadcasts._complete
_leave = TxnSessions.leave
_outcome = grpc_transport._outcome
_recover = Reader._recover


def _tell_nobody(_appends: Appends, *_parcel: object) -> None:
    return None


def _stay_asleep(_pipeline: Pipeline) -> None:
    return None


async def _end_here(self: Reader, error: WalError) -> None:
    """A read to the present end takes a failure for it."""
    if self._request.follow:
        await _recover(self, error)
        return
    await self._let_go()
    if not self._closed.done():
        self._closed.set_result(None)


def _leave_twice(self: TxnSessions, envelope: log_pb2.Envelope) -> None:
    """A mistake behind the answer, which no caller is told of."""
    _leave(self, envelope)
    _leave(self, envelope)


def _since_its_begin(txn: OpenTxn, tick: int) -> bool:
    return tick > txn.txn_id + txn.keepalive_ms * TICKS_PER_MS


def _append_always(_keyed: KeyedAppends, op: AppendOp, forward: Forward) -> Awaitable[AppendResult]:
    return forward(op)


async def _answer_first(
    self: Broadcasts, task: BroadcastTask, appender: Appender
) -> CollectionMeta:
    completing = asyncio.create_task(_complete(self, task, appender))
    completing.add_done_callback(lambda done: done.cancelled() or done.exception())
    return self._catalog.by_id(task.message.envelope.collection_id)


def _outcome_without(append: streaming_pb2.AppendResponse) -> Written | WalError:
    outcome = _outcome(append)
    return outcome._replace(last_confirmed=None) if isinstance(outcome, Written) else outcome


def _join_all(kind: Kind, other: Kind) -> bool:
    return kind.merges and other.merges


async def _grant_nothing(_stream: ConsumeStream, requests: AsyncIterator[object]) -> None:
    async for _ in requests:
        pass


def _tell_successes(
    self: _LocalProduce, request_id: int, append: asyncio.Future[AppendResult]
) -> None:
    if not append.cancelled() and append.exception() is None:
        self._answer(request_id, written(append.result()))


def _know_by_tick(self: Reader, item: LogEntry) -> int:
    return max(self._tick + 1 - item.first_tick, 0)


def _load_nothing(_results: KeyedResults, _parts: object) -> None:
    return None


USER_MUTATIONS = (
    Mutation(
        "a change is answered once complete", patched(Broadcasts, "_complete", _answer_first), 100
    ),
    Mutation("LastConfirmed is told", patched(grpc_transport, "_outcome", _outcome_without), 100),
    Mutation("properties keep messages apart", patched(Kind, "joins", _join_all), 100),
    Mutation("credit is granted", patched(ConsumeStream, "_read", _grant_nothing), 100),
    Mutation("keys", patched(KeyedAppends, "append", _append_always), 100),
    Mutation("keys are saved", patched(KeyedResults, "load", _load_nothing), 100),
    Mutation("callers are told in time", patched(Appends, "_expire", _tell_nobody), 100),
    Mutation("a pause ends", patched(Pipeline, "resume", _stay_asleep), 100),
    Mutation("a read survives its owner", patched(Reader, "_recover", _end_here), 100),
    Mutation("mistakes behind the answer", patched(TxnSessions, "leave", _leave_twice), 100),
    Mutation("bodies renew a transaction", patched(OpenTxn, "expired", _since_its_begin), 100),
    Mutation(
        "who lives in a node hears what failed",
        patched(_LocalProduce, "_done", _tell_successes),
        100,
    ),
    Mutation("a read behind an id passes it over", patched(Reader, "_known", _know_by_tick), 100),
    Mutation("transactions expire", patched(TxnExpiry, "due", lambda _expiry, _tick: []), 100),
)
