"""Standard error as the place of a program's log. Layer: lowest.

Contract: a line that cannot be written is dropped. Who logs goes on as it would without the log: a
pipe that nobody reads, a full disk and a closed stream end nothing that is worth logging.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO, cast


class _LogStream:
    """A text stream, as far as loggers use one."""

    def write(self, text: str) -> int:
        """Writes it to what standard error is now, if that can be."""
        with suppress(OSError, ValueError):  # the latter of a stream that is closed
            if sys.stderr is not None:
                sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """As much as can be."""
        with suppress(OSError, ValueError):
            if sys.stderr is not None:
                sys.stderr.flush()


LOG_STREAM = cast(TextIO, _LogStream())
"""Asks for standard error at each line, so that whoever replaces it gets the log."""
