"""What becomes of the entries in flight when a log was opened again. Layer: wal.

Contract: what lies before the new barrier is acknowledged; all else is queued again in its order,
with new ticks, behind a CreateSegment where it needs one. Of a producer whose batch is refused here
nothing behind that is written. Nothing here waits, so that whatever arrives later queues behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.wal.appender import Appender, FlyingFrame, Pending, refuse, settle
from walplane.wal.interceptors.base import AppendOp
from walplane.wal.interceptors.timetick import give_ticks
from walplane.wal.ports import LogEntry
from walplane.wal.shard.manager import OWN_TYPES, ShardManager
from walplane.wal.timetick.acks import AckManager


def settle_known(
    flying: Iterable[FlyingFrame],
    found: Mapping[int, Sequence[LogEntry]],
    acks: AckManager,
    on_written: Callable[[LogEntry], None],
    on_acknowledged: Callable[[list[AppendOp]], None],
) -> list[Pending]:
    """Acknowledges the frames that lie before the new barrier; returns the rest's entries.

    Args:
        flying: in order.
        found: entries by the number of their frame.
        acks: ticks of the open that sent them.
        on_written: takes each written entry in log order.
        on_acknowledged: told what one frame carried, once it is settled.
    """
    lost: list[Pending] = []
    for frame in flying:
        items = found.get(frame.number)
        if items is None:
            lost.extend(frame.entries)
            continue
        settle(frame.entries, items, acks, on_written)
        on_acknowledged([pending.op for pending in frame.entries])
    return lost


def ticks_for(op: AppendOp) -> int:
    """How many ticks `requeue` takes at most: an Insert may need a CreateSegment before it."""
    return op.count + (op.kind == MessageType.INSERT)


def requeue(
    pending: Pending,
    first: int,
    acks: AckManager,
    appender: Appender,
    shards: ShardManager,
    refusal: Callable[[Pending], WalError | None],
) -> None:
    """Queues an entry again, from tick `first` on; called in the order in which they were queued.

    Args:
        pending: the entry.
        first: of the `ticks_for` it.
        acks: ticks of the new open.
        appender: of the new open.
        shards: as the log has them now.
        refusal: why an entry will not be written after all, if so; the batches of its producer that
            come behind it are not written either.
    """
    op = pending.op
    if op.kind in OWN_TYPES:
        refuse(pending, WalError(ErrorCode.ON_SHUTDOWN, "the log was opened again before it"))
        return
    if (error := refusal(pending) or _out_of_turn(op)) is not None:
        refuse(pending, error)
        return
    ticks = shards.plan(op) + op.count
    give_ticks(op, first, ticks, acks)
    if (created := shards.assign(op)) is not None:
        appender.submit(created)
    appender.requeue(pending)


def _out_of_turn(op: AppendOp) -> WalError | None:
    """Why `op` may not be written: the batch before it was refused, in this very step perhaps.

    The chain's tasks are prompt: each hears of a refusal before `refuse` returns.
    """
    try:
        op.check_before()
    except WalError as error:
        return error
    return None
