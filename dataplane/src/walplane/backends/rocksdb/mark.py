"""The acknowledged mark: the highest batch that was fsynced, noted beside the database.

Contract: `read` never gives more than what was durable when it was noted. The note survives a
kill -9, since it is in the page cache; after a power loss it may be older, never newer. Two slots
take turns, each with its crc32c, so that a torn note leaves the one before it. Layer: backends.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import google_crc32c

_NUMBER = struct.Struct(">Q")
_CRC = struct.Struct(">I")
_SLOT_AT = (0, 512)
_SIZE = 1024


class AcknowledgedMark:
    """The mark in the file `path`, made if it is not there."""

    def __init__(self, path: Path) -> None:
        """Opens the file.

        Raises:
            OSError: it cannot be opened, made or read; it is closed then.
        """
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._make_room()
            slots = [self._slot(at) for at in _SLOT_AT]
        except BaseException:
            self.close()
            raise
        self._turn = slots.index(max(slots))

    def read(self) -> int:
        """The highest batch number noted; 0 when there is none."""
        return max(self._slot(at) for at in _SLOT_AT)

    def note(self, batch: int) -> None:
        """Notes that everything up to `batch` is durable.

        Raises:
            OSError: the note could not be written.
        """
        number = _NUMBER.pack(batch)
        self._turn = 1 - self._turn
        slot = number + _CRC.pack(google_crc32c.value(number))
        os.pwrite(self._file, slot, _SLOT_AT[self._turn])

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def _make_room(self) -> None:
        """Takes the space of both slots now, so that a full disk cannot refuse a note later."""
        if os.fstat(self._file).st_size < _SIZE:
            os.pwrite(self._file, bytes(_SIZE), 0)
            os.fsync(self._file)

    def _slot(self, at: int) -> int:
        slot = os.pread(self._file, _NUMBER.size + _CRC.size, at)
        number, crc = slot[: _NUMBER.size], slot[_NUMBER.size :]
        if crc != _CRC.pack(google_crc32c.value(number)):
            return 0
        return int(_NUMBER.unpack(number)[0])
