"""Progress of a long command on standard error: a bar for people, a line now and then for logs.

Contract: nothing is shown for what ends within two seconds, when nobody looks. Layer: cli.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

_LINE_EVERY_S = 2.0


class LineProgress:
    """What is done so far, as a line on standard error every two seconds at most.

    Args:
        now: gives seconds; they count from when this is made.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Shows nothing before the first two seconds are over."""
        self._now = now
        self._told = now()

    def update(self, done: Callable[[], str]) -> None:
        """Shows what `done` says, if it is time."""
        now = self._now()
        if now - self._told >= _LINE_EVERY_S:
            self._told = now
            print(done(), file=sys.stderr, flush=True)


class RowProgress:
    """How far a file is; a context manager.

    Args:
        name: what is shown in front of the bar.
        total_bytes: size of the file; None when it is not known.
        now: gives seconds.
    """

    def __init__(
        self, name: str, total_bytes: int | None, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Shows nothing before it is entered."""
        self._now = now
        self._began = now()
        self._lines = LineProgress(now)
        self._total = total_bytes
        self._bar = _bar(name, total_bytes) if sys.stderr.isatty() else None

    def __enter__(self) -> RowProgress:
        """Starts the bar."""
        self._began = self._now()
        self._lines = LineProgress(self._now)
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
        return self._now() - self._began

    def update(self, rows: int, bytes_read: int) -> None:
        """Says how many rows are done, and how much of the file is read."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=bytes_read, rows=rows)
            return
        share = f", {bytes_read / self._total:.0%} of the file read" if self._total else ""
        self._lines.update(lambda: f"{rows:,} rows acknowledged{share}")


def _bar(name: str, total_bytes: int | None) -> Progress:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TextColumn("{task.fields[rows]:,} rows"),
        progress.TimeRemainingColumn(),
    )
    bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task(name, total=total_bytes, rows=0)
    return bar
