"""Lines of standard input, numbered, in bounded memory, without blocking the loop. Layer: cli.

Contract: what is there is given at once, so that a line typed by a person does not wait for the
next one, and lines that come fast come many at a time.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from typing import NamedTuple

READ_BYTES = 256 << 10
_BLOCKS = 4  # read ahead
MAX_LINE_BYTES = 16 << 20
"""A longer line is not kept: it is given without its content."""


class Line(NamedTuple):
    """One line without its newline; `data` is None when it is too long to be a message."""

    number: int
    data: bytes | None


class LineSplitter:
    """Cuts blocks of input into lines."""

    def __init__(self) -> None:
        """Starts at line 1."""
        self._held = bytearray()
        self._number = 0
        self._too_long = False

    def feed(self, block: bytes) -> list[Line]:
        """The lines that end in `block`."""
        head, newline, rest = block.partition(b"\n")
        self._hold(head)
        if not newline:
            return []
        *whole, tail = rest.split(b"\n")
        first = self._take()
        lines = [Line(self._number + 1 + i, data) for i, data in enumerate(whole)]
        self._number += len(whole)
        self._hold(tail)
        return [first, *lines]

    def finish(self) -> list[Line]:
        """The last line, when it has no newline."""
        return [self._take()] if self._held or self._too_long else []

    def _hold(self, part: bytes) -> None:
        if not self._too_long:
            self._held += part
        if len(self._held) > MAX_LINE_BYTES:
            self._held.clear()
            self._too_long = True

    def _take(self) -> Line:
        self._number += 1
        data = None if self._too_long else bytes(self._held)
        self._held.clear()
        self._too_long = False
        return Line(self._number, data)


async def line_groups(descriptor: int) -> AsyncIterator[list[Line]]:
    """The lines of an open file, as they come; ends with the file.

    A thread reads, since a regular file cannot be waited for; it is a daemon, so that a read that
    never returns does not keep the process.

    Raises:
        OSError: it cannot be read.
    """
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(_BLOCKS)

    def read() -> None:
        block: bytes | OSError = b"-"
        while block and not isinstance(block, OSError):
            room.acquire()
            try:
                block = os.read(descriptor, READ_BYTES)
            except OSError as error:
                error.filename = "standard input"
                block = error
            try:
                loop.call_soon_threadsafe(blocks.put_nowait, block)
            except RuntimeError:
                return  # the loop is gone: nobody wants more

    threading.Thread(target=read, name="stdin", daemon=True).start()
    splitter = LineSplitter()
    while block := await blocks.get():
        room.release()
        if isinstance(block, OSError):
            raise block
        if lines := splitter.feed(block):
            yield lines
    if lines := splitter.finish():
        yield lines
