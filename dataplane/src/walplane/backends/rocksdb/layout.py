"""Keys and values in the database. Layer: backends.

    topic number (4 bytes, from 1) + sequence number (8 bytes)    a record, as it was appended
    the same + "p"                                                where a large record is (`values`)
    0 + "t" + name                                               a topic's entry
    0 + "b" + batch number (8 bytes)                              this batch was written
    0 + "f"                                                      lowest batch number still kept
    0 + "w" + number (8 bytes)                                    a file of large records
    0 + "v"                                                      version of this layout

Numbers are big-endian, so that keys order as they do. Batches are numbered without a gap; the
floor follows RocksDB's own logs: a batch that is gone from them lies in table files. A gap above
the floor, or an end below the acknowledged mark, means that RocksDB took damage in its log for a
torn tail and dropped acknowledged records without a word.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_META = bytes(4)
_RECORD = struct.Struct(">IQ")
_ENTRY = struct.Struct(">IQqq")

LAST = 2**64 - 1
"""A sequence number above every record's."""

FORMAT_KEY = _META + b"v"
FORMAT = b"walplane 2"
READABLE = (b"walplane 1", FORMAT)
FLOOR_KEY = _META + b"f"
TOPICS_FROM, TOPICS_TO = _META + b"t", _META + b"u"
BATCHES_FROM, BATCHES_TO = _META + b"b", _META + b"c"
FILES_FROM, FILES_TO = _META + b"w", _META + b"x"


class TopicEntry(NamedTuple):
    """What is kept about a topic: its number, truncation point and highest opener."""

    number: int
    earliest: int
    term: int
    open_number: int

    def encode(self) -> bytes:
        """The entry as a value."""
        return _ENTRY.pack(*self)

    @classmethod
    def decode(cls, value: bytes) -> TopicEntry:
        """The entry that `encode` made."""
        return cls(*_ENTRY.unpack(value))


def record_key(number: int, sequence: int) -> bytes:
    """Key of the record `sequence` of the topic `number`."""
    return _RECORD.pack(number, sequence)


def place_key(number: int, sequence: int) -> bytes:
    """Key of the place of the record `sequence` of the topic `number`."""
    return _RECORD.pack(number, sequence) + b"p"


def record_sequence(key: bytes) -> int:
    """The sequence number in the key of a record or of its place."""
    return int(_RECORD.unpack_from(key)[1])


def topic_key(name: str) -> bytes:
    """Key of the entry of the topic `name`."""
    return TOPICS_FROM + name.encode()


def topic_name(key: bytes) -> str:
    """The name in the key of a topic's entry."""
    return key[len(TOPICS_FROM) :].decode()


def batch_key(batch: int) -> bytes:
    """Key that says that the batch `batch` was written."""
    return BATCHES_FROM + batch.to_bytes(8, "big")


def batch_number(key: bytes) -> int:
    """The number in a batch's key."""
    return int.from_bytes(key[len(BATCHES_FROM) :], "big")


def file_key(file: int) -> bytes:
    """Key of what is kept about a file of large records."""
    return FILES_FROM + file.to_bytes(8, "big")


def file_number(key: bytes) -> int:
    """The number in a file's key."""
    return int.from_bytes(key[len(FILES_FROM) :], "big")
