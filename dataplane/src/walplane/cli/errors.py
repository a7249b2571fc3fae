"""From an exception to one line and an exit code. Layer: cli.

Exit codes: 0 done · 1 it failed · 2 wrong use · 130 interrupted · 141 the reader of the output
went away (what a shell reports for a process that died of SIGPIPE).
"""

from __future__ import annotations

import asyncio

from walplane.channel import InvalidChannelName
from walplane.rpc.errors import WalError

FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

MAX_LINE = 1_000
"""A message longer than this is cut: errors may quote input."""


class CommandError(Exception):
    """A command failed; `str` is the sentence for the user.

    Attributes:
        exit_code: what the process ends with.
    """

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        """Takes the sentence, without the command's name."""
        super().__init__(message)
        self.exit_code = exit_code


def exit_code_of(error: BaseException) -> int:
    """The exit code that `error` stands for."""
    if isinstance(error, CommandError):
        return error.exit_code
    if isinstance(error, UnicodeEncodeError):
        return WRONG_USE
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        return INTERRUPTED
    return FAILED


def describe(error: BaseException) -> str:
    """One line about `error`; empty when there is nothing to tell."""
    error = root_of(error)
    if isinstance(error, BrokenPipeError | KeyboardInterrupt | asyncio.CancelledError):
        return ""
    if isinstance(error, CommandError | WalError | InvalidChannelName):
        return one_line(str(error))
    if isinstance(error, UnicodeEncodeError):  # an argument of the command that no message can hold
        return one_line(f"{error.object!r} is not UTF-8")
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return one_line(f"{where}{error.strerror}")
    return one_line(f"{type(error).__name__}: {error} (a bug: run again with --debug and report)")


def root_of(error: BaseException) -> BaseException:
    """The first failure inside exception groups, which structured tasks raise."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def one_line(text: str) -> str:
    """`text` on one line, cut at a bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}…"
