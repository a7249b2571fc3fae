"""The data directory belongs to the process that opened it, not to what that one forked."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from walplane.embedded.directory import only_process
from walplane.rpc.errors import WalError


@pytest.fixture
def held(tmp_path: Path) -> Iterator[ExitStack]:
    with ExitStack() as held:
        held.enter_context(only_process(tmp_path))
        yield held


def fork() -> int:
    """A worker that only sleeps; it never returns into the test."""
    worker = os.fork()
    if not worker:
        while True:
            signal.pause()
    return worker


def test_a_worker_that_lives_on_does_not_keep_it(held: ExitStack, tmp_path: Path) -> None:
    worker = fork()
    try:
        held.close()
        with only_process(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


def test_a_worker_that_ends_does_not_let_go_of_it(held: ExitStack, tmp_path: Path) -> None:
    """Though it unwinds what the program had begun."""
    worker = os.fork()
    if not worker:
        try:
            held.close()
        finally:
            os._exit(0)
    assert os.waitpid(worker, 0)[1] == 0
    with pytest.raises(WalError, match=f"in use by process {os.getpid()}"), only_process(tmp_path):
        pass
