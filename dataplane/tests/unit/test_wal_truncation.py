"""Where a log is cut off: never above the checkpoint, nor above what is stored."""

from __future__ import annotations

from typing import cast

import pytest

from walplane.backends.interface import BackendSession
from walplane.message.ids import MessageID, RecordID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.ticks import TICKS_PER_S, ticks_in
from walplane.wal.config import WALConfig
from walplane.wal.recovery.segments.deletion import Deletion
from walplane.wal.recovery.segments.table import SegmentTable
from walplane.wal.recovery.truncation import Truncation


class Session:
    """A backend's session of which only truncations are asked."""

    def __init__(self) -> None:
        self.cuts: list[RecordID] = []
        self.away = False

    async def truncate(self, topic: str, record_id: RecordID) -> None:
        assert topic == "test_0"
        if self.away:
            raise WalError(ErrorCode.INNER, "not now")
        self.cuts.append(record_id)


def asked(session: Session) -> BackendSession:
    return cast(BackendSession, session)


def at(record: int) -> MessageID:
    return MessageID("memory", (record,))


def checkpoint(record: int | None, tick: int = 0) -> log_pb2.WALCheckpoint:
    made = log_pb2.WALCheckpoint(time_tick=tick)
    if record is not None:
        made.last_confirmed.CopyFrom(at(record).to_proto())
    return made


@pytest.mark.parametrize(
    ("confirmed", "stored", "cuts"),
    [(5, 9, [(5,)]), (9, 5, [(5,)]), (None, 9, []), (9, None, [])],
)
async def test_the_lower_of_checkpoint_and_stored_position_counts(
    confirmed: int | None, stored: int | None, cuts: list[RecordID]
) -> None:
    session, truncation = Session(), Truncation("test_0", SegmentTable(), 0.0)
    where = None if stored is None else at(stored)
    await truncation.after(asked(session), checkpoint(confirmed), where)
    assert session.cuts == cuts


async def test_one_that_fails_is_left_to_the_next_and_none_is_done_twice() -> None:
    session, truncation = Session(), Truncation("test_0", SegmentTable(), 0.0)
    session.away = True
    await truncation.after(asked(session), checkpoint(5), at(5))
    session.away = False
    for _ in range(2):
        await truncation.after(asked(session), checkpoint(5), at(5))
    assert session.cuts == [(5,)]


async def test_what_is_safe_stays_for_the_retention_also_over_owners() -> None:
    session, table = Session(), SegmentTable()
    await Truncation("test_0", table, 60.0).after(asked(session), checkpoint(5, TICKS_PER_S), at(5))
    kept = SegmentTable()
    kept.load(table.save())
    later = Truncation("test_0", kept, 60.0)
    await later.after(asked(session), checkpoint(9, 60 * TICKS_PER_S), at(9))
    assert session.cuts == []
    await later.after(asked(session), checkpoint(9, 61 * TICKS_PER_S), at(9))
    assert session.cuts == [(5,)]


@pytest.mark.parametrize("retention_s", [float("inf"), 1e308])
async def test_a_retention_without_end_keeps_all(retention_s: float) -> None:
    session, table = Session(), SegmentTable()
    truncation = Truncation("test_0", table, retention_s)
    for year in range(3):
        tick = ticks_in(year * 31_536_000)
        await truncation.after(asked(session), checkpoint(20, tick), at(30))
    assert session.cuts == []
    assert Deletion("test_0", table, WALConfig(retention_s=retention_s), None).due(tick, tick) == []
