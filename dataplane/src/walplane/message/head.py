"""The head of an entry's body: typed header and sizes, without the payloads. Layer: message.

Contract: a body is an `EntryBody` whose fields stand in the order of their numbers, as every
protobuf library writes them. What comes before the payloads is parsed; the payloads, nearly all of
the bytes, are neither copied nor looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from walplane.rpc.v1 import log_pb2

# Tags of the fields of `EntryBody` (field << 3 | length-delimited).
HEADER_TAG, SIZES_TAG, PAYLOADS_TAG = b"\x0a", b"\x12", b"\x1a"
_HEADER, _SIZES, _PAYLOADS = HEADER_TAG[0], SIZES_TAG[0], PAYLOADS_TAG[0]


class Head(NamedTuple):
    """What stands before the payloads.

    Attributes:
        header: typed header, serialised.
        sizes: of the payloads, in bytes.
        start: where the payloads begin in the body; they end with it.
    """

    header: bytes
    sizes: Sequence[int]
    start: int


def read_head(body: bytes) -> Head:
    """The head of `body`; whether the sizes add up to the payloads is not checked.

    Raises:
        ValueError: `body` is no entry's body.
    """
    end = start = 0
    size = len(body)
    for tag in (_HEADER, _SIZES):
        if end < size and body[end] == tag:
            start, length = _length(body, end + 1)
            end = start + length
    if end > size:
        raise ValueError("it is cut short")
    sizes, start = start, end
    if end < size:
        if body[end] != _PAYLOADS:
            raise ValueError("a field that is unknown, or not in its place")
        start, length = _length(body, end + 1)
        if start + length != size:
            raise ValueError("its payloads are cut short, or something follows them")
    if sizes < end and body[0] == _SIZES:  # no header, as most; is there one message in it?
        after, lone = _length(body, sizes)
        if after == end:
            return Head(b"", (lone,), start)
    try:
        parsed = log_pb2.EntryBody.FromString(body[:end])
    except DecodeError as error:
        raise ValueError("its header or its sizes cannot be parsed") from error
    return Head(parsed.header, parsed.sizes, start)


def _length(body: bytes, position: int) -> tuple[int, int]:
    """Where the content of a field begins whose length stands at `position`, and that length."""
    if position < len(body) and body[position] < 0x80:
        return position + 1, body[position]
    number = shift = 0
    for byte in body[position : position + 5]:
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return position, number
        shift += 7
    raise ValueError("a length cannot be parsed")
