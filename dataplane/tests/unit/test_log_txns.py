"""What a log's transactions and exclusive entries are, and each checker of them fires."""

from __future__ import annotations

import pytest

from walplane.backends.interface import Record
from walplane.message import codec
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.rpc.v1 import log_pb2
from walplane.testkit.history import (
    Delivered,
    History,
    Outcome,
    TxnAttempt,
    check,
)
from walplane.testkit.log_txns import check_exclusive, check_transactions
from walplane.testkit.log_view import LogView

V0, V1 = "c_0_1v0", "c_0_1v1"
T = MessageType


def part(
    kind: MessageType, tick: int, txn: int = 0, vchannel: str = V0, confirmed: int = 0
) -> log_pb2.Entry:
    envelope = log_pb2.Envelope(version=1, type=kind, vchannel=vchannel, first_tick=tick, count=1)
    if txn or kind is T.BEGIN_TXN:
        envelope.txn.kind, envelope.txn.txn_id = log_pb2.TXN_KIND_PART, txn
    if confirmed:
        envelope.last_confirmed.CopyFrom(MessageID("sim", (confirmed,)).to_proto())
    return codec.seal_entry(envelope, codec.encode_body(b"", [b"%d" % tick]))


def view(*entries: log_pb2.Entry, acked: int | None = None) -> LogView:
    """A frame an entry; each left when those before it were acknowledged, or `acked`."""
    records = []
    for number, entry in enumerate(entries):
        content = log_pb2.FrameContent(term=1, number=number)
        content.acked = number if acked is None else acked
        records.append(
            Record((number + 1,), codec.encode_frame(content.SerializeToString(), [entry]))
        )
    return LogView.of("c_0", "sim", records)


def found(log: LogView) -> set[str]:
    violations = [
        *check_transactions("c_0", log.in_tick_order()),
        *check_exclusive("c_0", log.entries),
    ]
    return {violation.partition(" ")[0] for violation in violations}


def test_a_transaction_is_read_at_its_commit_and_no_other_is_read() -> None:
    log = view(
        part(T.BEGIN_TXN, 1),
        part(T.INSERT, 2, txn=1),
        part(T.BEGIN_TXN, 3, vchannel=V1),
        part(T.INSERT, 4, txn=3, vchannel=V1),
        part(T.INSERT, 5),
        part(T.COMMIT_TXN, 6, txn=1),
        part(T.MANUAL_FLUSH, 7, vchannel=V1),
    )
    assert [(m.payload, m.time_tick, m.txn_id) for m in log.messages()] == [
        (b"5", 5, 0),
        (b"2", 6, 1),
    ]
    assert found(log) == set()


@pytest.mark.parametrize("end", [T.COMMIT_TXN, T.ROLLBACK_TXN, T.MANUAL_FLUSH])
def test_what_lies_behind_the_end_of_a_transaction_is_found(end: MessageType) -> None:
    txn = 1 if end is not T.MANUAL_FLUSH else 0
    ended = [part(T.BEGIN_TXN, 1), part(end, 2, txn=txn)]
    assert found(view(*ended, part(T.INSERT, 3, txn=1))) == {"I8"}
    assert found(view(*ended, part(T.COMMIT_TXN, 3, txn=1))) == {"I8"}


def test_a_last_confirmed_above_an_open_begin_is_found() -> None:
    begun = [part(T.BEGIN_TXN, 1), part(T.INSERT, 2), part(T.INSERT, 3, confirmed=2)]
    assert found(view(*begun)) == {"I6"}
    assert found(view(*begun, part(T.COMMIT_TXN, 4, txn=1))) == {"I6"}
    assert found(view(part(T.BEGIN_TXN, 1), part(T.ROLLBACK_TXN, 2, txn=1), begun[2])) == set()


def test_an_exclusive_entry_that_was_not_alone_is_found() -> None:
    flush, other = part(T.MANUAL_FLUSH, 5), part(T.INSERT, 6)
    assert found(view(part(T.INSERT, 4), flush, other)) == set()
    assert found(view(part(T.INSERT, 4), flush, acked=0)) == {"I12"}
    assert found(view(flush, other, acked=0)) == {"I12"}
    assert found(view(other, flush)) == {"I12"}, "log order is not tick order"
    assert found(view(part(T.INSERT, 4, vchannel=V1), flush, acked=0)) == set()
    everything = part(T.FLUSH_ALL, 5, vchannel="")
    assert found(view(part(T.INSERT, 4, vchannel=V1), everything, acked=0)) == {"I12"}


def txn_history() -> History:
    history = History()
    whole = history.reading("whole", V0, complete=True)
    txn = TxnAttempt(V0, [history.begin("c txn", V0, b"%d" % n) for n in range(3)])
    txn.settle(Outcome.ACKNOWLEDGED, 9)
    history.txns.append(txn)
    whole.messages = [Delivered(V0, b"%d" % n, MessageID("sim", (n,)), 9, 1) for n in range(3)]
    return history


def test_a_transaction_that_is_not_read_whole_is_found() -> None:
    assert check(txn_history()) == []
    broken = txn_history()
    del broken.readings[0].messages[1]
    assert any(violation.startswith("I8") for violation in check(broken))
    apart = txn_history()
    apart.readings[0].messages[2] = Delivered(V0, b"2", MessageID("sim", (2,)), 10)
    assert any(violation.startswith("I8") for violation in check(apart))
    refused = txn_history()
    refused.txns[0].settle(Outcome.REFUSED)
    assert any(violation.startswith("I2") for violation in check(refused))
