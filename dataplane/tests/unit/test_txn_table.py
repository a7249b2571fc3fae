"""What the table of transactions says, for logs whose records lie in another order than ticks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.testkit.txns import txn_entry
from walplane.testkit.wal_world import V
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.windows import WindowLimits
from walplane.wal.txn.table import TxnTable

LIMITS = WindowLimits(100, 100, 1 << 20, 1 << 40, 1 << 40)
BEGIN, COMMIT = MessageType.BEGIN_TXN, MessageType.COMMIT_TXN

Life = tuple[int, int]
"""Ticks of a Begin and of its Commit."""


@st.composite
def lives(draw: st.DrawFn) -> list[Life]:
    ticks = draw(st.lists(st.integers(1, 40), min_size=2, max_size=16, unique=True))
    pairs = zip(ticks[::2], ticks[1::2], strict=False)
    return [(min(pair), max(pair)) for pair in pairs]


@st.composite
def logs(draw: st.DrawFn) -> list[tuple[LogEntry, Life]]:
    """Begins and Commits, each Begin before its Commit, otherwise in any order."""
    found = draw(lives())
    order = draw(st.permutations([life for life in found for _ in range(2)]))
    begun: set[Life] = set()
    log = []
    for number, life in enumerate(order, 1):
        log.append((record(life, number, ends=life in begun), life))
        begun.add(life)
    return log


def record(life: Life, number: int, *, ends: bool) -> LogEntry:
    made = txn_entry(COMMIT if ends else BEGIN, V, life[0] if ends else 0, keepalive_ms=1 << 40)
    made.envelope.first_tick = life[1] if ends else life[0]
    return LogEntry(made, MessageID("memory", (number,)), 0)


def table_of(log: list[tuple[LogEntry, Life]], results: int) -> TxnTable:
    table = TxnTable(results, LIMITS)
    for log_entry, _ in log:
        table.observe(log_entry)
    return table


@given(logs(), st.integers(0, 41))
def test_a_transaction_spans_a_tick_in_whatever_order_it_was_written(
    log: list[tuple[LogEntry, Life]], tick: int
) -> None:
    table = table_of(log, 100)
    assert table.spans(tick) == any(begin <= tick < end for _, (begin, end) in log)


class _Tick(int):
    """Counts how often one is compared."""

    compared = 0

    def __gt__(self, other: int) -> bool:
        _Tick.compared += 1
        return int(self) > other


def test_ends_that_are_settled_together_are_looked_at_a_few_times_each() -> None:
    """Commits that share a frame, or a long one: the watermark passes none of them meanwhile."""
    table, most = TxnTable(100, LIMITS), 4_000
    lives = [(tick, most + tick) for tick in range(1, most + 1)]
    for life in lives:
        table.observe(record(life, life[0], ends=False))
    for life in lives:
        commit = record(life, life[1], ends=True)
        commit.known_last = _Tick(life[1])
        table.observe(commit)
    assert not table.open
    assert _Tick.compared < 4 * most


@given(logs(), st.integers(1, 4), st.data())
def test_a_replay_over_a_snapshot_remembers_the_same_ends(
    log: list[tuple[LogEntry, Life]], results: int, data: st.DataObject
) -> None:
    whole = table_of(log, results)
    cut = data.draw(st.integers(0, len(log)))
    again, until_then = TxnTable(results, LIMITS), table_of(log[:cut], results)
    again.load(until_then.save())
    open_begins = [txn.begin.record[0] - 1 for txn in until_then.open.values()]
    for log_entry, _ in log[data.draw(st.integers(0, min(open_begins, default=cut))) :]:
        again.observe(log_entry)
    ended = [life[0] for _, life in log]
    assert [again.ended(each) for each in ended] == [whole.ended(each) for each in ended]
    assert again.forgotten_tick == whole.forgotten_tick
