"""What a reader asks for and what it gets. Layer: wal."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from walplane.message.ids import MessageID, ResumeToken
from walplane.message.registry import MessageType, Scope
from walplane.message.txn import BODY_TYPES, CONTROL_TYPES, exclusive_scope
from walplane.message.types import MARK_TYPES, SEGMENT_TYPES
from walplane.rpc.errors import ErrorCode, WalError
from walplane.wal.ports import LogEntry

HIDDEN = MARK_TYPES
"""Types that readers are not given."""

OF_SEGMENTS = SEGMENT_TYPES
"""What an owner writes about its segments: only readers that ask for these types are given them."""

_IN_TXNS = BODY_TYPES | {MessageType.TXN}


class StartKind(enum.Enum):
    """Where a read begins; the values are the numbers of `StartKind` in streaming.proto."""

    EARLIEST = 0
    LATEST = 1
    TOKEN = 2
    FROM_ID = 3
    AFTER_ID = 4


@dataclass(frozen=True)
class ScanStart:
    """A start; `token` belongs to TOKEN, `message_id` to FROM_ID and AFTER_ID."""

    kind: StartKind
    token: ResumeToken | None = None
    message_id: MessageID | None = None


@dataclass(frozen=True)
class Only:
    """What a read is restricted to; by default to nothing.

    Attributes:
        types: message types; empty = all but those of segments. A transaction is read whole when
            one of its messages is of such a type, or when TXN is among them.
        from_tick: messages at this tick or above; 0 = all. A transaction has its Commit's tick.
            The log has no index by tick: it is read from the start all the same.
        until_tick: messages up to this tick, and the read ends there; 0 = all.
    """

    types: frozenset[MessageType] = frozenset()
    from_tick: int = 0
    until_tick: int = 0

    def check(self) -> None:
        """Checks that readers are given such messages at all.

        Raises:
            WalError: INVALID_ARGUMENT when they are not.
        """
        never = sorted(MessageType(kind).name for kind in self.types & (HIDDEN | CONTROL_TYPES))
        if never:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"readers are given no {', '.join(never)}: ask for TXN to get transactions",
            )

    def may_need(self, item: LogEntry) -> bool:
        """Whether a reader wants the entry, or may need it to put transactions together."""
        if self.until_tick and item.first_tick > self.until_tick:
            return False
        envelope = item.entry.envelope
        if not self.types:
            return envelope.type not in OF_SEGMENTS
        if envelope.HasField("txn") or exclusive_scope(envelope.type) is not Scope.NONE:
            return envelope.type in self.types or not self.types.isdisjoint(_IN_TXNS)
        return envelope.type in self.types


EVERYTHING = Only()


@dataclass(frozen=True)
class ScanRequest:
    """A read of one PChannel.

    Attributes:
        start: where it begins. Entries come whole: a reader that starts inside one drops the
            messages it has.
        vchannel: only entries of this VChannel; empty for all.
        follow: False ends the read at what was appended when it began.
        only: what of it is wanted; the reader gets a little more, and looks for itself.
        raw: entries as they lie in the log, the log's own among them: `scan.raw`.
    """

    start: ScanStart
    vchannel: str = ""
    follow: bool = True
    only: Only = EVERYTHING
    raw: bool = False


@dataclass(frozen=True, slots=True)
class ScanBatch:
    """Entries in tick order, and the tick at or below which none will follow.

    Attributes:
        entries: in tick order.
        watermark: that tick.
        end: whether the read is over.
        begins_at: first record of a read without a token, once: what lies before is no part of it,
            and may be cut off.
    """

    entries: Sequence[LogEntry]
    watermark: int
    end: bool = False
    begins_at: MessageID | None = None


def check_token(token: ResumeToken | None, pchannel: str) -> None:
    """Checks that a read of `pchannel` may begin at `token`.

    Raises:
        WalError: INVALID_ARGUMENT for a token of another PChannel.
    """
    if token is not None and token.pchannel not in ("", pchannel):
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"{token} is a place in {token.pchannel}, not in {pchannel}: each channel has resume "
            "tokens of its own",
        )
