"""Runs one command: event loop, client, and what a failure looks like. Layer: cli."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any

import structlog
import typer

from walplane.cli.errors import (
    BROKEN_PIPE,
    WRONG_USE,
    CommandError,
    describe,
    exit_code_of,
    root_of,
)
from walplane.cli.logs import LogFormat, LogLevel, configure_logging
from walplane.cli.options import Settings
from walplane.cli.traces import exporting_traces
from walplane.rpc.errors import WalError

_log = structlog.get_logger(__name__)


def run(
    settings: Settings,
    command: Callable[[], Coroutine[Any, Any, int | None]],
    *,
    logs: bool = True,
) -> None:
    """Runs `command` to its end; what it returns is the exit code, None meaning 0.

    Args:
        settings: of this command.
        command: what to run.
        logs: False when the command has settled by itself what is logged.

    Raises:
        typer.Exit: with the exit code, when that is not 0; the error is on standard error then.
    """
    if logs:
        configure_logging(LogLevel.DEBUG if settings.debug else LogLevel.ERROR, LogFormat.TEXT)
    try:
        with exporting_traces(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.get_loop().set_exception_handler(_note)
            code = runner.run(command())
    except BaseException as error:
        code = report(error, settings.debug)
    if code:
        raise typer.Exit(code)


def _note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody waited for goes to the log, not as a trace to standard error."""
    error = context.get("exception")
    _log.warning(context.get("message", "the event loop complains"), error=repr(error))


def report(error: BaseException, debug: bool) -> int:
    """Tells the user about `error` on standard error; returns the exit code."""
    error = root_of(error)
    if exit_code_of(error) == BROKEN_PIPE:
        # Nobody reads: keep the interpreter from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if debug:
        traceback.print_exception(error)
    if line := describe(error):
        print(f"walplane: {line}", file=sys.stderr)
    return exit_code_of(error)


def needs(extra: str, module: str) -> Any:  # noqa: ANN401 - a module
    """The module `module` of this package, which works only with an extra installed.

    Raises:
        CommandError: the extra is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise CommandError(
            f"this command needs {error.name}: pip install 'walplane[{extra}]'"
        ) from error


def check_segment_store(where: str) -> None:
    """Tells a wrong `--segment-store` before anything is made; empty is none.

    Raises:
        CommandError: it is none, as wrong use; or the extra is not installed.
    """
    if not where:
        return
    objects = needs("standalone", "walplane.wal.recovery.segments.objects")
    try:
        objects.open_store(where)
    except WalError as error:
        raise CommandError(error.message, WRONG_USE) from error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The faster loop where it is installed."""
    try:
        uvloop = import_module("uvloop")
    except ModuleNotFoundError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
