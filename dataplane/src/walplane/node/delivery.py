"""The bytes of a `ConsumeResponse`, put together around bodies instead of copied by protobuf.

Contract: what is made here parses as the message that streaming.proto describes. Layer: node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from walplane.message.codec import encode_entry, varint
from walplane.rpc.v1 import streaming_pb2
from walplane.wal.ports import TURN_ENTRIES, LogEntry

# Tags of `ConsumeResponse.entries` and of `DeliveredEntry.entry`, `.message_id`, `.open_number`.
_ENTRIES_TAG, _ENTRY_TAG, _MESSAGE_ID_TAG, _OPEN_NUMBER_TAG = b"\x0a", b"\x0a", b"\x12", b"\x18"


class Part(NamedTuple):
    """Entries of one response: their bytes, in pieces, and the credit they cost."""

    pieces: list[bytes]
    credit: int


async def next_part(entries: Iterator[LogEntry], most: int) -> Part | None:
    """The next of `entries`, until they fill `most` bytes; None when there are none.

    Others have their turns meanwhile.
    """
    pieces: list[bytes] = []
    credit = size = 0
    for number, log_entry in enumerate(entries, 1):
        body = log_entry.entry.body  # a copy: asked for once
        delivered = _delivered(log_entry, body)
        pieces += delivered
        credit += len(body)
        size += sum(map(len, delivered))
        if size >= most:
            break
        if not number % TURN_ENTRIES:
            await asyncio.sleep(0)
    return Part(pieces, credit) if pieces else None


def response(pieces: Sequence[bytes], rest: streaming_pb2.ConsumeResponse) -> bytes:
    """The serialised response of the entries in `pieces` and the other fields in `rest`."""
    return b"".join((*pieces, rest.SerializeToString()))


def _delivered(log_entry: LogEntry, body: bytes) -> tuple[bytes, ...]:
    stored = log_entry.entry
    entry = encode_entry(stored.envelope.SerializeToString(), body, stored.body_crc32c)
    entry_size = sum(map(len, entry))
    start = _ENTRY_TAG + varint(entry_size)
    place = log_entry.message_id.to_proto().SerializeToString()
    rest = b"".join(
        (
            _MESSAGE_ID_TAG,
            varint(len(place)),
            place,
            _OPEN_NUMBER_TAG,
            varint(log_entry.open_number),
        )
    )
    size = len(start) + entry_size + len(rest)
    return _ENTRIES_TAG + varint(size) + start, *entry, rest
