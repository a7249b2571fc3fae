"""Ctrl-C while something is in flight: once, end in good order; twice, at once. Layer: cli."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE_S = 1.0


@contextmanager
def asked_to_end() -> Iterator[asyncio.Event]:
    """An event that SIGINT and SIGTERM set; after that, they cancel the task that called this.

    When the end takes its time, standard error says what it waits for.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    asked = asyncio.Event()
    timers: list[asyncio.TimerHandle] = []

    def on_signal() -> None:
        if not asked.is_set():
            asked.set()
            timers.append(loop.call_later(_PATIENCE_S, _tell))
        elif task is not None:
            task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield asked
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        for timer in timers:
            timer.cancel()


def _tell() -> None:
    print("interrupted: waiting for what is in flight; again to give it up", file=sys.stderr)
