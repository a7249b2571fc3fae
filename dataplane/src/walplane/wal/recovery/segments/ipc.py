"""What an Arrow IPC stream takes once it is read and written, told before any of it is.

Layer: wal.

A compressed buffer says in front how large it becomes, and a reader allocates just that: of twelve
kilobytes hundreds of megabytes. pyarrow decompresses a batch as a whole, so that what comes out can
be bounded only before, by the flatbuffers that a stream's messages begin with (Arrow's
`Message.fbs`). Nor do values need bytes at all: three hundred of them make a list of a billion
nulls, which takes gigabytes once it is written.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import pyarrow as pa

# Fields of the flatbuffers' tables, by number.
_VERSION, _HEADER, _CUSTOM_METADATA = 0, 2, 4
_DATA_OF_DICTIONARY = 1
_NODES, _BUFFERS, _COMPRESSION = 1, 2, 3

_V4 = 3
_NODE = struct.Struct("<qq")  # values, nulls among them
_BUFFER = struct.Struct("<qq")  # offset in the body, bytes
_LENGTH = struct.Struct("<q")


class Size(NamedTuple):
    """Of a stream that is read.

    Attributes:
        bytes: of all buffers when none is compressed any more.
        values: of all columns, and of what they consist of, and of dictionaries.
    """

    bytes: int = 0
    values: int = 0

    def plus(self, other: Size) -> Size:
        """Both together."""
        return Size(self.bytes + other.bytes, self.values + other.values)


def decoded_size(stream: bytes) -> Size:
    """What `stream` takes, by what it says.

    Raises:
        Exception: it is no such stream; of many kinds.
    """
    size = Size()
    for message in pa.ipc.MessageReader.open_stream(stream):
        size = size.plus(_of(message))
    return size


def _of(message: pa.ipc.Message) -> Size:
    if message.type not in ("record batch", "dictionary"):
        return Size()
    metadata = message.metadata.to_pybytes()
    root = _Table(metadata, _uint(metadata, 0))
    batch = root.table(_HEADER)
    if message.type == "dictionary":
        batch = batch.table(_DATA_OF_DICTIONARY)
    buffers = batch.pairs(_BUFFERS, _BUFFER)
    size = sum(length for _, length in buffers)
    if batch.place(_COMPRESSION) or root.may_be_compressed():
        body = message.body
        said = (_LENGTH.unpack_from(body, at)[0] - length for at, length in buffers if length)
        size += sum(max(more, 0) for more in said)
    return Size(int(size), sum(max(values, 0) for values, _ in batch.pairs(_NODES, _NODE)))


class _Table:
    """One of a flatbuffer's."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def place(self, field: int) -> int:
        """Where a field is; 0 when it has none."""
        known = self._at - int(struct.unpack_from("<i", self._data, self._at)[0])
        (size,) = struct.unpack_from("<H", self._data, known)
        slot = 4 + 2 * field
        offset = struct.unpack_from("<H", self._data, known + slot)[0] if slot < size else 0
        return self._at + int(offset) if offset else 0

    def target(self, field: int) -> int:
        """Where what a field points to is."""
        place = self.place(field)
        if not place:
            raise ValueError(field)
        return place + _uint(self._data, place)

    def table(self, field: int) -> _Table:
        """The table that a field points to."""
        return _Table(self._data, self.target(field))

    def pairs(self, field: int, of: struct.Struct) -> list[tuple[int, int]]:
        """The vector of pairs that a field points to."""
        at = self.target(field)
        end = at + 4 + of.size * _uint(self._data, at)
        return list(of.iter_unpack(self._data[at + 4 : end]))

    def may_be_compressed(self) -> bool:
        """Whether a message may be so by its metadata: as of Arrow 0.17, and still read."""
        place = self.place(_VERSION)
        version = struct.unpack_from("<h", self._data, place)[0] if place else 0
        return version <= _V4 and self.place(_CUSTOM_METADATA) > 0


def _uint(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])
