"""How much goes into one record, and the error of what does not fit. Layer: wal.

Contract: what counts is an entry as it is stored: its envelope, with everything a caller put there,
and its body. In a meta topic it is a record of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from walplane.message.codec import ENTRY_ROOM_BYTES, FRAME_ROOM_BYTES
from walplane.rpc.errors import ErrorCode, WalError
from walplane.wal.interceptors.base import AppendOp


class RecordLimits:
    """The backend's word about its records, corrected by what it refused all the same.

    Attributes:
        entry_bytes: an entry whose envelope and body are larger together fits no record.
        frame_bytes: a frame of several entries is closed before it holds more.
        packed_bytes: what an entry of several messages should not exceed. One that is larger may
            fit; those that make entries need not find out how much does.
    """

    def __init__(self, record_bytes: int, frame_bytes: int) -> None:
        """Records of up to `record_bytes`, frames of about `frame_bytes`."""
        self.entry_bytes = record_bytes - FRAME_ROOM_BYTES - ENTRY_ROOM_BYTES
        self.packed_bytes = self.entry_bytes
        self.frame_bytes = min(frame_bytes, record_bytes - FRAME_ROOM_BYTES)

    def refused(self, sizes: Sequence[int]) -> None:
        """The backend did not take a frame of entries of `sizes`: an operator set its limit lower.

        One entry is not tried again; several are, in smaller company. Halving finds a size that
        fits within a few refusals, and ends above half of what does.
        """
        if len(sizes) == 1:
            self.entry_bytes = min(self.entry_bytes, sizes[0] - 1)
            self.packed_bytes = min(self.packed_bytes, sizes[0] // 2)
        self.frame_bytes = min(self.frame_bytes, sum(sizes) // 2)


def too_large(op: AppendOp, most: int, pchannel: str) -> WalError:
    """The error of an entry where `most` bytes fit."""
    size, count, way_out = op.stored, "", "send smaller messages"
    if op.count > 1:
        count, way_out = f" and {op.count} messages", "send them again in smaller numbers"
    return WalError(
        ErrorCode.INVALID_ARGUMENT,
        f"entry of {size} bytes{count}, properties included, for {op.vchannel!r} is larger than "
        f"the {most} bytes that {pchannel} takes: {way_out}",
    )
