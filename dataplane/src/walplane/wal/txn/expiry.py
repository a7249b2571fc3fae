"""Finds the transactions whose keepalive has run out, and makes the Rollback that ends one.

Contract: one is due when the node's tick passes its last tick + keepalive (rules §5) and the
owner's own clock agrees that it heard nothing of it for that long. Tick time alone may leap: an
idle node's reserve is old, and a coordinator that was away comes back with later ticks. Layer: wal.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from walplane.message import codec
from walplane.message.registry import MessageType
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.wal.interceptors.base import Forward, append_op
from walplane.wal.meter import LogMeter
from walplane.wal.txn.sessions import TxnSessions
from walplane.wal.txn.table import OpenTxn, TxnTable

_log = structlog.get_logger(__name__)

_BODY = codec.encode_body(headers_pb2.RollbackTxnHeader(expired=True).SerializeToString(), [b""])


class TxnExpiry:
    """Looks at the open transactions of one PChannel a few times a second."""

    def __init__(
        self, table: TxnTable, sessions: TxnSessions, monotonic: Callable[[], float]
    ) -> None:
        """Has seen none yet; `monotonic` gives seconds."""
        self._table = table
        self._sessions = sessions
        self._monotonic = monotonic
        self._heard: dict[int, tuple[int, float]] = {}

    def due(self, tick: int) -> list[OpenTxn]:
        """Those that are over at the node's tick; whoever gets one appends its Rollback."""
        now, before = self._monotonic(), self._heard
        self._heard = {}
        due = []
        for txn in self._table.open.values():
            heard = before.get(txn.txn_id)
            if heard is None or heard[0] != txn.renewed:
                heard = (txn.renewed, now)
            self._heard[txn.txn_id] = heard
            silent = (now - heard[1]) * 1000 >= txn.keepalive_ms
            if silent and txn.expired(tick) and not self._sessions.busy(txn.txn_id):
                due.append(txn)
                self._heard[txn.txn_id] = (txn.renewed, now)  # not asked for again at once
        return due


async def roll_back(txn: OpenTxn, append: Forward, meter: LogMeter, now: float) -> None:
    """Ends `txn` by a record, unless something else does first; `now` in monotonic seconds."""
    envelope = log_pb2.Envelope(
        version=1, type=MessageType.ROLLBACK_TXN, vchannel=txn.vchannel, count=1
    )
    envelope.txn.txn_id = txn.txn_id
    envelope.txn.kind = log_pb2.TXN_KIND_PART
    op = append_op(codec.seal_entry(envelope, _BODY))
    op.own = True
    op.since = now
    try:
        await append(op)
    except WalError as error:  # if this WAL is over, the next owner sees to it
        _log.debug("no rollback", vchannel=txn.vchannel, txn=txn.txn_id, error=str(error))
    else:
        meter.expired += 1
        _log.info("transaction expired", vchannel=txn.vchannel, txn=txn.txn_id)
