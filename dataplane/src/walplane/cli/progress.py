"""Progress of a long command on standard error: a bar for people, a line now and then for logs.

Contract: nothing is shown for what ends within two seconds, when nobody looks. Layer: cli.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

_LINE_EVERY_S = 2.0


class RowProgress:
    """How far a file is; a context manager.

    Args:
        name: what is shown in front of the bar.
        total_bytes: size of the file; None when it is not known.
    """

    def __init__(self, name: str, total_bytes: int | None) -> None:
        """Shows nothing before it is entered."""
        self._began = self._told = time.monotonic()
        self._total = total_bytes
        self._bar: Progress | None = None
        self._task = TaskID(0)
        if sys.stderr.isatty():
            columns = (
                *(TextColumn("{task.description}"), BarColumn(), DownloadColumn()),
                *(TextColumn("{task.fields[rows]:,} rows"), TimeRemainingColumn()),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(name, total=total_bytes, rows=0)

    def __enter__(self) -> RowProgress:
        """Starts the bar."""
        self._began = self._told = time.monotonic()
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Takes the bar away."""
        if self._bar:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since it was entered."""
        return time.monotonic() - self._began

    def update(self, rows: int, bytes_read: int) -> None:
        """Says how many rows are done, and how much of the file is read."""
        if self._bar:
            self._bar.update(self._task, completed=bytes_read, rows=rows)
            return
        now = time.monotonic()
        if now - self._told >= _LINE_EVERY_S:
            self._told = now
            share = f", {bytes_read / self._total:.0%} of the file read" if self._total else ""
            print(f"{rows:,} rows acknowledged{share}", file=sys.stderr, flush=True)
