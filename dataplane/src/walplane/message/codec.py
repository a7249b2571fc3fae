"""Wire format of entries and frames, with crc32c end to end.

Contract: an entry's body is made once by the producer and travels as opaque bytes to the reader;
its checksum is made with it and checked at both ends. A frame is what one backend record holds.
Damage is `UNRECOVERABLE`, never skipped. Layer: message.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import google_crc32c
from google.protobuf.message import DecodeError

from walplane.message.head import HEADER_TAG, PAYLOADS_TAG, SIZES_TAG, read_head
from walplane.message.ids import RecordID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2

ENTRY_ROOM_BYTES = 144
"""What its owner's stamps (term, ticks, LastConfirmed, segment) and lengths add to it, at most."""

FRAME_ROOM_BYTES = 64
"""What a frame adds to its entries, at most."""

_SMALL = tuple(bytes((number,)) for number in range(0x80))

_FRAME_HEAD = struct.Struct("<BQBQBQBQ")  # the first fields of `FrameContent`, each behind its tag
# Tags of `FrameContent.entries`, `Frame.crc32c` and `Frame.content` (field << 3 | wire type).
_ENTRY_TAG, _CRC_TAG, _CONTENT_TAG = b"\x2a", b"\x0d", b"\x12"
# Tags of `Entry.envelope`, `Entry.body` and `Entry.body_crc32c`.
_ENVELOPE_TAG, _BODY_TAG, _BODY_CRC_TAG = b"\x0a", b"\x12", b"\x1d"


class RecordPlace(NamedTuple):
    """Where a record lies, put into words only for an error."""

    topic: str
    record_id: RecordID

    def __str__(self) -> str:
        """As errors say it."""
        return f"{self.record_id} of {self.topic}"


def crc32c(data: bytes) -> int:
    """crc32c (Castagnoli) of `data`."""
    return int(google_crc32c.value(data))


def encode_body(header: bytes, payloads: Sequence[bytes]) -> bytes:
    """The body of an entry: its typed header and the payloads of its messages, in order."""
    if len(payloads) == 1 and len(payloads[0]):  # a protobuf message of its own costs the most
        size = varint(len(payloads[0]))
        head = b"".join((HEADER_TAG, varint(len(header)), header)) if header else b""
        return b"".join((head, SIZES_TAG, _SMALL[len(size)], size, PAYLOADS_TAG, size, *payloads))
    sizes = list(map(len, payloads))
    head = log_pb2.EntryBody(header=header, sizes=sizes).SerializeToString()
    total = sum(sizes)
    if not total:
        return head
    return b"".join((head, PAYLOADS_TAG, varint(total), *payloads))


def decode_body(body: bytes) -> tuple[bytes, list[bytes]]:
    """The typed header and the payloads that `encode_body` took.

    Raises:
        WalError: UNRECOVERABLE when the sizes do not add up, or `body` is none.
    """
    try:
        header, sizes, start = read_head(body)
    except ValueError as error:
        raise WalError(ErrorCode.UNRECOVERABLE, f"an entry's body is damaged: {error}") from error
    ends = list(accumulate(sizes, initial=start))
    if ends[-1] != len(body):
        raise WalError(ErrorCode.UNRECOVERABLE, "an entry's payload sizes do not match its payload")
    return header, [body[a:b] for a, b in pairwise(ends)]


def seal_entry(envelope: log_pb2.Envelope, body: bytes) -> log_pb2.Entry:
    """An entry of `body`, with the body's checksum."""
    return log_pb2.Entry(envelope=envelope, body=body, body_crc32c=crc32c(body))


def check_entry(entry: log_pb2.Entry, body: bytes | None = None) -> None:
    """Checks what was sent: the body against its checksum, and its payloads against the count.

    A body that no reader could take apart must not get into the log.

    Args:
        entry: what was sent.
        body: that of `entry`, from a caller who has it: protobuf copies it for each who asks.

    Raises:
        WalError: INVALID_ARGUMENT when something differs.
    """
    envelope = entry.envelope
    body = entry.body if body is None else body
    if crc32c(body) != entry.body_crc32c:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"entry for {envelope.vchannel!r} does not match its crc32c: send it again",
        )
    try:
        _, sizes, start = read_head(body)
    except ValueError as error:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"entry for {envelope.vchannel!r} has a body that is no EntryBody ({error}): encode "
            "it with its fields in order",
        ) from error
    if len(sizes) != envelope.count or sum(sizes) != len(body) - start:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"entry for {envelope.vchannel!r} says {envelope.count} messages, but holds "
            f"{len(sizes)} sizes of {sum(sizes)} bytes over {len(body) - start} bytes of payload: "
            "send one size a message",
        )


def check_stored_entry(entry: log_pb2.Entry, where: object) -> bytes:
    """Checks an entry that was read back against its checksum; `where` names it in errors.

    Returns:
        Its body.

    Raises:
        WalError: UNRECOVERABLE when they differ.
    """
    body = entry.body  # a copy: asked for once
    if crc32c(body) != entry.body_crc32c:
        raise damaged(where)
    return body


def frame_head(term: int, open_number: int, number: int, acked: int) -> bytes:
    """The fields of a serialised `FrameContent` that tell where its frame belongs."""
    return _FRAME_HEAD.pack(0x09, term, 0x11, open_number, 0x19, number, 0x21, acked)


def encode_frame(
    content: bytes,
    entries: Sequence[log_pb2.Entry] = (),
    bodies: Sequence[bytes] | None = None,
) -> bytes:
    """The record that holds `content` and, behind its own, `entries`, whose `bodies` these are.

    The bytes are those of a serialised `Frame`; large bodies are copied twice instead of the five
    times that nested protobuf messages cost.

    Args:
        content: a serialised `FrameContent`.
        entries: which follow those of `content`.
        bodies: of the entries, from a caller who has them: protobuf copies them for each who asks.
    """
    parts = [content]
    for entry, body in zip(entries, bodies or [each.body for each in entries], strict=True):
        data = encode_entry(entry.envelope.SerializeToString(), body, entry.body_crc32c)
        parts += (_ENTRY_TAG, varint(sum(map(len, data))), *data)
    crc = 0
    for part in parts:
        crc = int(google_crc32c.extend(crc, part))
    size = varint(sum(map(len, parts)))
    return b"".join((_CRC_TAG, struct.pack("<I", crc), _CONTENT_TAG, size, *parts))


def encode_entry(envelope: bytes, body: bytes, body_crc32c: int) -> tuple[bytes, ...]:
    """The bytes of a serialised `Entry` in pieces, of which `body` is one.

    Protobuf serialises into a buffer that it doubles as it grows, and copies that once more.

    Args:
        envelope: serialised.
        body: of the entry.
        body_crc32c: its checksum.
    """
    size = varint(len(envelope))
    start = b"".join((_ENVELOPE_TAG, size, envelope, _BODY_TAG, varint(len(body))))
    return start, body, _BODY_CRC_TAG + struct.pack("<I", body_crc32c)


def varint(number: int) -> bytes:
    """`number` as protobuf writes lengths."""
    if number < 0x80:
        return _SMALL[number]
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def decode_frame(record: bytes, where: object) -> log_pb2.FrameContent:
    """The content of a record; `where` names it in errors.

    Raises:
        WalError: UNRECOVERABLE when the record is damaged.
    """
    try:
        frame = log_pb2.Frame.FromString(record)
        content = frame.content  # a copy: asked for once
        if crc32c(content) == frame.crc32c:
            return log_pb2.FrameContent.FromString(content)
    except DecodeError as error:
        raise damaged(where) from error
    raise damaged(where)


def damaged(where: object) -> WalError:
    """The error of a record whose bytes are not those that were written."""
    return WalError(
        ErrorCode.UNRECOVERABLE,
        f"record {where} is damaged (crc32c differs): restore the topic from a replica or backup",
    )
