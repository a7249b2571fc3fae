"""What a client may append to a PChannel and read from it. Layer: node.

Contract: a refusal here happened before anything touched the log, so it is definite.
"""

from __future__ import annotations

from typing import Protocol

from walplane.channel import InvalidChannelName, cchannel_name, is_vchannel, pchannel_of
from walplane.message.codec import check_entry
from walplane.message.registry import MessageType, check_client_entry
from walplane.message.txn import check_txn
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.interceptors.base import AppendOp, append_op
from walplane.wal.limits import too_large
from walplane.wal.scan.request import ScanRequest, StartKind
from walplane.wal.shard.table import ShardTable


class KnownChannels(Protocol):
    """The part of a WAL that the checks look at."""

    @property
    def pchannel(self) -> str:
        """Name of the PChannel."""
        ...

    @property
    def max_entry_bytes(self) -> int:
        """An entry whose envelope and body are larger together is refused."""
        ...

    def has_vchannel(self, name: str) -> bool:
        """Whether a CreateCollection made `name` and no DropCollection ended it."""
        ...

    def has_written(self, envelope: log_pb2.Envelope) -> bool:
        """Whether the log holds this batch of its producer, or the end of its transaction."""
        ...


def check_append(entry: log_pb2.Entry, wal: KnownChannels) -> AppendOp:
    """Checks what a client sent before the WAL sees it.

    Returns:
        The append of `entry`.

    Raises:
        WalError: INVALID_ARGUMENT for an entry that no client may append here, a damaged or an
            oversized one; CHANNEL_NOT_EXIST for a VChannel that is not there. What the log holds
            already is no offence: its repeat gets the first result, also when that was the
            DropCollection, or one came since.
    """
    envelope = entry.envelope
    op = append_op(entry)
    if op.stored > wal.max_entry_bytes:
        raise too_large(op, wal.max_entry_bytes, wal.pchannel)
    check_entry(entry, op.body)
    check_client_entry(envelope)
    check_txn(envelope)
    if envelope.vchannel and not wal.has_vchannel(envelope.vchannel):
        creates = envelope.type == MessageType.CREATE_COLLECTION
        must_exist = not creates and not wal.has_written(envelope)
        check_vchannel(envelope.vchannel, wal, must_exist=must_exist)
    return op


def check_vchannel(name: str, wal: KnownChannels, *, must_exist: bool = True) -> None:
    """Checks that `name` is a VChannel of the WAL's PChannel.

    Raises:
        WalError: INVALID_ARGUMENT when it belongs elsewhere; CHANNEL_NOT_EXIST when it is not
            there and `must_exist`.
    """
    if name == cchannel_name(wal.pchannel):
        return
    if must_exist and wal.has_vchannel(name):
        return
    if not _belongs(name, wal.pchannel):
        raise WalError(
            ErrorCode.INVALID_ARGUMENT, f"{name!r} is no VChannel of PChannel {wal.pchannel}"
        )
    if must_exist:
        raise WalError(
            ErrorCode.CHANNEL_NOT_EXIST,
            f"there is no VChannel {name}: create its collection first, or list the collections",
        )


def check_read(request: ScanRequest, wal: KnownChannels, shards: ShardTable) -> None:
    """Checks that the VChannel of `request` is one of the WAL's PChannel, or was until lately.

    A dropped one is read up to its DropCollection: its readers may lag, and what they were promised
    is in the log. Once it is forgotten only a token tells that it may have been there.

    Raises:
        WalError: INVALID_ARGUMENT when it belongs elsewhere; CHANNEL_NOT_EXIST when it was never
            there, or is not any more and the read asks for what comes.
    """
    name, kind = request.vchannel, request.start.kind
    dropped = shards.dropped.get(name)
    if dropped is None:
        forgotten = kind is StartKind.TOKEN and shards.forgotten_tick > 0
        check_vchannel(name, wal, must_exist=not forgotten)
    elif kind is StartKind.LATEST:
        raise WalError(
            ErrorCode.CHANNEL_NOT_EXIST,
            f"VChannel {name} was dropped at tick {dropped.dropped_tick}, nothing more comes: read "
            "what it held from earliest or from a token",
        )


def _belongs(name: str, pchannel: str) -> bool:
    try:
        return is_vchannel(name) and pchannel_of(name) == pchannel
    except InvalidChannelName:
        return False
