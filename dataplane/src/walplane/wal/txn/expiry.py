"""The Rollback that a node writes when a transaction was not heard of in time. Layer: wal."""

from __future__ import annotations

from walplane.message import codec
from walplane.message.registry import MessageType
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.wal.txn.table import OpenTxn

_BODY = codec.encode_body(headers_pb2.RollbackTxnHeader(expired=True).SerializeToString(), [b""])


def rollback_of(txn: OpenTxn) -> log_pb2.Entry:
    """The entry that ends `txn`, for the WAL to append."""
    envelope = log_pb2.Envelope(
        version=1, type=MessageType.ROLLBACK_TXN, vchannel=txn.vchannel, count=1
    )
    envelope.txn.txn_id = txn.txn_id
    envelope.txn.kind = log_pb2.TXN_KIND_PART
    return codec.seal_entry(envelope, _BODY)
