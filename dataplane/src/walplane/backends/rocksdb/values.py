"""Files of large records beside the database. Layer: backends.

A record that is written into RocksDB is copied and summed up twice, for its log and for a table
file. Above a size that costs more than a second fsync, so a large record is written once, into a
file of its own kind, and RocksDB keeps where it is.

    values/0000000000000007      records of all topics, one behind the other, and nothing else

Contract: a place is written to RocksDB only after the fsync of what it points to, so that a record
that the database knows is whole, whenever the power went; with it goes what the file holds by then.
What is in a file beyond that was never acknowledged, and nobody points to it. A file is never
written again after a restart; it goes once every topic in it was truncated beyond it.
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

_PLACE = struct.Struct(">QQII")
_SIZE = struct.Struct(">Q")
_HOLDS = struct.Struct(">IQ")
_NAME_DIGITS = 16
_BUFFERS = 1024  # of one writev: the system's limit

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


@dataclass(slots=True, eq=False)
class ValueFile:
    """One file.

    Attributes:
        number: its number, which names it.
        path: where it is.
        size: bytes in it that somebody points to.
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
        """What the database keeps of it."""
        pairs = b"".join(_HOLDS.pack(*pair) for pair in self.holds.items())
        return _SIZE.pack(self.size) + pairs

    def let_go(self, kept: Mapping[int, int]) -> None:
        """Forgets topics that were truncated beyond what is in it."""
        for number, first in kept.items():
            if self.holds.get(number, first) < first:
                del self.holds[number]


@dataclass(slots=True)
class Changes:
    """What a group did to files, and leaves to do.

    Attributes:
        dirty: files that have to be synced before the group's batches are written.
        ended: files that are closed then.
        freed: files that can be removed once the group is durable.
    """

    dirty: list[ValueFile] = field(default_factory=list)
    ended: list[ValueFile] = field(default_factory=list)
    freed: list[ValueFile] = field(default_factory=list)

    def sync(self) -> None:
        """Makes what was written durable, and closes what has ended.

        Raises:
            OSError: what was not durable before may never be.
        """
        for file in self.dirty:
            file.sync()
        for file in self.ended:
            file.end()


class ValueFiles:
    """The files of one database; its methods belong to one thread, but `read` to any."""

    def __init__(self, database: str, known: Mapping[int, bytes], topics: Topics) -> None:
        """Looks at the files of the directory `database`, which is made if it is not there.

        Args:
            database: the database's directory, which errors name.
            known: what the database keeps of each file, as `ValueFile.encode` made it.
            topics: every topic.

        Raises:
            WalError: UNRECOVERABLE when a file is missing or too short.
            OSError: the directory cannot be read or made.
        """
        self._database = database
        self._directory = Path(database, DIRECTORY)
        self._directory.mkdir(exist_ok=True)
        sync_directory(self._directory.parent)
        self._ended = [self._found(number, known[number], topics) for number in sorted(known)]
        self._last = max(known, default=0)
        self._present: ValueFile | None = None

    def remove_unused(self) -> list[int]:
        """Removes what the database does not know or need; the numbers that it can forget.

        To be called before the first `write`.

        Raises:
            OSError: a file cannot be removed.
        """
        free = self.free({})
        names = {file.path.name for file in self._ended}
        for path in self._directory.iterdir():
            if path.name not in names and path.name.isdigit() and len(path.name) == _NAME_DIGITS:
                path.unlink()
        return [file.number for file in free]

    def write(self, values: Sequence[Value], changes: Changes) -> tuple[list[Place], ValueFile]:
        """Writes `values` into one file, the present one or the next.

        Returns:
            Their places, in their order, and the file: what it `encode`s has to be kept with them.

        Raises:
            OSError: nobody knows how much was written.
        """
        file = self._file_with_room(changes)
        if file not in changes.dirty:
            changes.dirty.append(file)
        return _write(file, values), file

    def free(self, kept: Mapping[int, int]) -> list[ValueFile]:
        """The files that hold nothing any more; they are forgotten here, and still on the disk.

        Args:
            kept: of each topic number that was truncated just now, the first that is kept.
        """
        for file in self._ended:
            file.let_go(kept)
        if self._present is not None:
            self._present.let_go(kept)
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
        """Lets go of every file."""
        for file in self._ended:
            file.end()
        if self._present is not None:
            self._present.end()

    def _file_with_room(self, changes: Changes) -> ValueFile:
        present = self._present
        if present is not None and present.size < FILE_BYTES:
            return present
        if present is not None:
            self._ended.append(present)
            changes.ended.append(present)  # whoever wrote into it has synced it by then
        self._last += 1
        path = self._path(self._last)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._present = ValueFile(self._last, path, handle=os.open(path, flags, 0o644))
        return self._present

    def _found(self, number: int, known: bytes, topics: Topics) -> ValueFile:
        """The file `number` as it was left."""
        path = self._path(number)
        (size,) = _SIZE.unpack_from(known)
        holds = dict(_HOLDS.iter_unpack(known[_SIZE.size :]))
        alive = {topic: highest for topic, highest in holds.items() if highest in topics[topic]}
        if alive and not (path.exists() and path.stat().st_size >= size):
            raise damaged(self._database, f"{path.name} of its value files is gone or cut off")
        return ValueFile(number, path, size, alive, named=True)

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:0{_NAME_DIGITS}}"


def remove(files: Iterable[ValueFile]) -> None:
    """Removes `files` from the disk; what is left of them goes at the next start."""
    for file in files:
        with contextlib.suppress(OSError):
            file.path.unlink()


def _write(file: ValueFile, values: Sequence[Value]) -> list[Place]:
    places: list[Place] = []
    for number, sequence, data in values:
        places.append(Place(file.number, file.size, len(data), google_crc32c.value(data)))
        file.size += len(data)
        file.holds[number] = sequence
    _write_all(file.handle, [value.data for value in values])
    return places


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
