"""What commands that serve have in common: how they are ended, what is no address. Layer: cli."""

from __future__ import annotations

import asyncio
import signal

WILDCARDS = frozenset({"0.0.0.0", "[::]"})  # noqa: S104 - recognised, not listened on by default
"""Hosts to listen on that nobody can be told to connect to."""


def stop_on_signals() -> asyncio.Event:
    """Set by SIGTERM and by SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
