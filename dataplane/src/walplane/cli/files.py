"""Files to read from: real ones, and pipes that can be given up. Layer: cli."""

from __future__ import annotations

import errno
import io
import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_STEP_S = 0.2


class InputFile:
    """An open file.

    Attributes:
        buffer: to read from, in any thread.
        size: bytes; None when it is not known.
        give_up: asked now and then while nothing comes; a read fails once it says so.
    """

    def __init__(self, path: Path) -> None:
        """Opens `path`.

        Raises:
            OSError: it cannot be opened.
        """
        raw = _Source(path)
        self.buffer: BinaryIO = io.BufferedReader(raw)
        self._real = raw.seekable()
        self.size = os.fstat(raw.fileno()).st_size if self._real else None
        self.give_up: Callable[[], bool] = lambda: False
        if not self._real:
            raw.patience = lambda: not self.give_up()

    def position(self) -> int:
        """How far it is read, as far as that is known."""
        return self.buffer.tell() if self._real else 0


class _Source(io.FileIO):
    """A file whose reads end when nobody has patience any more."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.patience: Callable[[], bool] | None = None

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        while self.patience and not select.select([self], [], [], _STEP_S)[0]:
            if not self.patience():
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
        return super().readinto(buffer)


@contextmanager
def opened(path: Path) -> Iterator[InputFile]:
    """Opens `path` and closes it.

    Raises:
        OSError: it cannot be opened.
    """
    file = InputFile(path)
    with file.buffer:
        yield file
