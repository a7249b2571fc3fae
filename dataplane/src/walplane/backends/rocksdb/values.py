"""Files of large records beside the database. Layer: backends.

A record that is written into RocksDB is copied and summed up twice, for its log and for a table
file. Above a size that costs more than a second fsync, so a large record is written once, into a
file of its own kind, and RocksDB keeps where it is.

    values/0000000000000007      records one behind the other, of all topics, each behind a header

Contract: a place is written to RocksDB only after the fsync of what it points to, so that a record
that the database knows is whole, whenever the power went. What is in a file beyond that was never
acknowledged, and nobody points to it. A file is never written again after a restart; it goes once
every topic in it was truncated beyond it.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from walplane.backends.rocksdb.errors import damaged
from walplane.disk import sync_directory

DIRECTORY = "values"
VALUE_BYTES = 256 << 10
"""Records of this size and more go into a file."""

FILE_BYTES = 64 << 20
"""Bytes after which a file is ended: what a truncation may fail to free of a topic."""

_HEADER = struct.Struct(">IQI")  # topic number, sequence number, bytes of the record
_CRC = struct.Struct(">I")  # of the header
_HEAD = _HEADER.size + _CRC.size
_PLACE = struct.Struct(">QQII")
_SIZE = struct.Struct(">Q")
_HOLDS = struct.Struct(">IQ")
_BUFFERS = 512  # of one writev; the system allows 1024

Topics = Mapping[int, range]
"""Of each topic number: the sequence numbers that are kept."""


class Value(NamedTuple):
    """A large record that is to be written."""

    number: int
    sequence: int
    data: bytes


class Place(NamedTuple):
    """Where a large record is: number of the file, offset, bytes, crc32c."""

    file: int
    offset: int
    size: int
    crc: int

    def encode(self) -> bytes:
        """The place as a value in the database."""
        return _PLACE.pack(*self)

    @classmethod
    def decode(cls, value: bytes) -> Place:
        """The place that `encode` made."""
        return cls(*_PLACE.unpack(value))


class Written(NamedTuple):
    """What one call wrote.

    Attributes:
        places: of the records, in their order.
        news: what the database has to keep of files, by their numbers, together with the places.
        dirty: the files that have to be synced before the places are written.
        ended: those of them that nothing more will be written to.
    """

    places: list[Place]
    news: dict[int, bytes]
    dirty: list[ValueFile]
    ended: list[ValueFile]


@dataclass(slots=True, eq=False)
class ValueFile:
    """One file.

    Attributes:
        number: its number, which names it.
        path: where it is.
        size: bytes in it.
        holds: of each topic number, the highest sequence number in it that is not truncated.
        handle: what it is written through; -1 once nothing more is.
        named: whether its name is durable.
    """

    number: int
    path: Path
    size: int = 0
    holds: dict[int, int] = field(default_factory=dict)
    handle: int = -1
    named: bool = False

    def sync(self) -> None:
        """Makes what was written durable.

        Raises:
            OSError: what was not durable before may never be.
        """
        os.fdatasync(self.handle)
        if not self.named:
            sync_directory(self.path.parent)
            self.named = True

    def end(self) -> None:
        """Nothing more will be written; idempotent."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def encode(self) -> bytes:
        """What the database keeps of a file that was ended."""
        pairs = b"".join(_HOLDS.pack(*pair) for pair in self.holds.items())
        return _SIZE.pack(self.size) + pairs


class ValueFiles:
    """The files of one database; its methods belong to one thread, but `read` to any.

    Attributes:
        news: what the database has to keep of the files that were found; of an empty value, that
            it has to forget them.
    """

    def __init__(self, database: str, known: Mapping[int, bytes], topics: Topics) -> None:
        """Looks at the files of the directory `database`, and removes those nobody points to.

        Args:
            database: the database's directory, which errors name.
            known: what the database keeps of each file: `ValueFile.encode`, or nothing for one
                that was not ended.
            topics: every topic.

        Raises:
            WalError: UNRECOVERABLE when a file is missing or too short.
            OSError: the directory cannot be read or made.
        """
        self._database = database
        self._directory = Path(database, DIRECTORY)
        if not self._directory.is_dir():
            self._directory.mkdir()
            sync_directory(self._directory.parent)
        self._last = max(known, default=0)
        self._present: ValueFile | None = None
        self._ended = [self._found(number, known[number], topics) for number in sorted(known)]
        self.news = {file.number: file.encode() for file in self._ended if not known[file.number]}
        self.news |= {file.number: b"" for file in self.free({})}
        self._remove_unknown()

    def write(self, values: Sequence[Value]) -> Written:
        """Writes `values` into one file, the present one or the next.

        Raises:
            OSError: nobody knows how much was written.
        """
        written = Written([], {}, [], [])
        file = self._file_with_room(written)
        written.dirty.append(file)
        _write(file, values, written.places)
        return written

    def free(self, kept: Mapping[int, int]) -> list[ValueFile]:
        """The files that hold nothing any more; they are forgotten here, and still on the disk.

        Args:
            kept: of each topic number that was truncated just now, the first that is kept.
        """
        for file in self._ended:
            for number, first in kept.items():
                if file.holds.get(number, first) < first:
                    del file.holds[number]
        free = [file for file in self._ended if not file.holds]
        self._ended = [file for file in self._ended if file.holds]
        return free

    def read(self, place: Place) -> bytes:
        """The record at `place`.

        Raises:
            WalError: UNRECOVERABLE when it is not there any more, or not what was written.
            OSError: it cannot be read.
        """
        path = self._path(place.file)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise damaged(self._database, f"{path.name} of its value files is gone") from None
        try:
            data = os.pread(handle, place.size, place.offset)
        finally:
            os.close(handle)
        if len(data) != place.size or google_crc32c.value(data) != place.crc:
            what = f"a record in its value file {path.name} at {place.offset}"
            raise damaged(self._database, f"{what} is not what was written")
        return data

    def close(self) -> None:
        """Lets go of the file that is written."""
        if self._present is not None:
            self._present.end()

    def _file_with_room(self, written: Written) -> ValueFile:
        present = self._present
        if present is not None and present.size < FILE_BYTES:
            return present
        if present is not None:
            self._ended.append(present)
            written.news[present.number] = present.encode()
            written.dirty.append(present)
            written.ended.append(present)
        self._last += 1
        path = self._path(self._last)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._present = ValueFile(self._last, path, handle=os.open(path, flags, 0o644))
        written.news[self._last] = b""
        return self._present

    def _found(self, number: int, known: bytes, topics: Topics) -> ValueFile:
        """The file `number` as it was left."""
        path = self._path(number)
        size = path.stat().st_size if path.exists() else -1
        if known:
            (needed,) = _SIZE.unpack_from(known)
            holds = dict(_HOLDS.iter_unpack(known[_SIZE.size :]))
        else:
            needed = 0
            holds = _look_through(path, topics) if size >= 0 else _everything(topics)
        alive = {topic: highest for topic, highest in holds.items() if highest in topics[topic]}
        if alive and size < needed:
            raise damaged(self._database, f"{path.name} of its value files is gone or cut off")
        return ValueFile(number, path, max(size, 0), alive, named=True)

    def _remove_unknown(self) -> None:
        """What was written for nobody, or was freed by a process that did not remove it."""
        names = {file.path.name for file in self._ended}
        for path in self._directory.iterdir():
            if path.name not in names:
                path.unlink()

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:016}"


def remove(files: Iterable[ValueFile]) -> None:
    """Removes `files` from the disk; what is left of them goes at the next start."""
    for file in files:
        with contextlib.suppress(OSError):
            file.path.unlink()


def _write(file: ValueFile, values: Sequence[Value], places: list[Place]) -> None:
    buffers: list[bytes] = []
    for number, sequence, data in values:
        header = _HEADER.pack(number, sequence, len(data))
        buffers += (header, _CRC.pack(google_crc32c.value(header)), data)
        at = file.size + _HEAD
        places.append(Place(file.number, at, len(data), google_crc32c.value(data)))
        file.size = at + len(data)
        file.holds[number] = sequence
    _write_all(file.handle, buffers)


def _write_all(handle: int, buffers: Sequence[bytes]) -> None:
    """One call of the system, and more only where it took less than all."""
    left: list[bytes | memoryview] = list(buffers)
    while left:
        taken = os.writev(handle, left[:_BUFFERS])
        done = 0
        while done < len(left) and taken >= len(left[done]):
            taken -= len(left[done])
            done += 1
        del left[:done]
        if taken:
            left[0] = memoryview(left[0])[taken:]


def _look_through(path: Path, topics: Topics) -> dict[int, int]:
    """What a file holds that was not ended: of each topic, the highest sequence number.

    What was written for nobody may be torn, and looks like damage then: such a file stays until
    everything that could be in it is truncated.
    """
    holds: dict[int, int] = {}
    at, size = 0, path.stat().st_size
    with path.open("rb", buffering=0) as file:
        while at + _HEAD <= size:
            head = os.pread(file.fileno(), _HEAD, at)
            (crc,) = _CRC.unpack_from(head, _HEADER.size)
            if google_crc32c.value(head[: _HEADER.size]) != crc:
                return _everything(topics)
            number, sequence, length = _HEADER.unpack_from(head)
            if sequence in topics.get(number, ()):  # else written for nobody, or truncated
                holds[number] = sequence
            at += _HEAD + length
    return holds


def _everything(topics: Topics) -> dict[int, int]:
    return {number: kept[-1] for number, kept in topics.items() if kept}
