"""What an entry is to a transaction, told from its envelope.

Contract: pure; one rule for the node, its recovery and every reader (rules §5). A transaction
ends by its Commit, its Rollback, or an exclusive message on its VChannel or PChannel, and by
nothing else. Layer: message.
"""

from __future__ import annotations

from walplane.message.registry import TABLE, MessageType, Scope
from walplane.message.types import DATA_TYPES
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2

MAX_KEEPALIVE_MS = 3_600_000
"""The longest keepalive a transaction may ask for, in milliseconds of tick time."""

BODY_TYPES = DATA_TYPES
"""What a transaction may consist of."""

CONTROL_TYPES = frozenset({MessageType.BEGIN_TXN, MessageType.COMMIT_TXN, MessageType.ROLLBACK_TXN})

_EXCLUSIVE = {spec.type.value: spec.exclusive for spec in TABLE}


def is_part(envelope: log_pb2.Envelope) -> bool:
    """Whether the entry is Begin, body, Commit or Rollback of a transaction of several entries."""
    return envelope.HasField("txn") and envelope.txn.kind == log_pb2.TXN_KIND_PART


def is_whole(envelope: log_pb2.Envelope) -> bool:
    """Whether the entry is a transaction by itself."""
    return envelope.HasField("txn") and envelope.txn.kind == log_pb2.TXN_KIND_WHOLE


def txn_of(envelope: log_pb2.Envelope) -> int:
    """The id of the transaction that the entry continues or ends; 0 for all else, Begin too."""
    if not is_part(envelope) or envelope.type == MessageType.BEGIN_TXN:
        return 0
    return envelope.txn.txn_id


def exclusive_scope(type_number: int) -> Scope:
    """At which scope an entry of the type is exclusive; a type unknown here is not."""
    return _EXCLUSIVE.get(type_number, Scope.NONE)


def check_txn(envelope: log_pb2.Envelope) -> None:
    """Checks the transaction context of an entry from a client.

    Raises:
        WalError: INVALID_ARGUMENT, saying what to do instead.
    """
    if not envelope.HasField("txn") and envelope.type not in CONTROL_TYPES:
        return  # nearly all of them
    name = MessageType(envelope.type).name
    txn, kind = envelope.txn, envelope.txn.kind
    if envelope.type in CONTROL_TYPES:
        begins = envelope.type == MessageType.BEGIN_TXN
        if kind != log_pb2.TXN_KIND_PART or bool(txn.txn_id) == begins or envelope.count != 1:
            raise _invalid(
                f"{name} is one message with a transaction context of kind PART; its transaction "
                "id is what Begin got as its tick, and Begin itself has none: use `client.txn`"
            )
        if begins and not 0 < txn.keepalive_ms <= MAX_KEEPALIVE_MS:
            raise _invalid(f"a keepalive of {txn.keepalive_ms} ms: ask for 1 to {MAX_KEEPALIVE_MS}")
    elif envelope.type not in BODY_TYPES:
        raise _invalid(f"{name} cannot be in a transaction: append it by itself")
    elif kind == log_pb2.TXN_KIND_NONE or bool(txn.txn_id) != (kind == log_pb2.TXN_KIND_PART):
        raise _invalid(f"this {name} says neither of which transaction it is nor that it is one")


def _invalid(message: str) -> WalError:
    return WalError(ErrorCode.INVALID_ARGUMENT, message)


def concerns_txns(envelope: log_pb2.Envelope) -> bool:
    """Whether readers need it to put transactions together: a part, or what ends some."""
    return is_part(envelope) or exclusive_scope(envelope.type) is not Scope.NONE
