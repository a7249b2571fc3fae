"""SIGTERM and SIGINT end a process that still loads its modules, also process 1 of a container."""

import signal
import subprocess
import sys

import pytest

# Stands still where the command's modules are loaded. That the process is the first one, it only
# believes: so no privilege is needed, and by default it would die otherwise, of the signal itself.
_LOADING = """
import os, sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "{last}":
            print("loading", flush=True)
            time.sleep(100)
sys.meta_path.insert(0, Slow())
{first}
from {package}.__main__ import main
main()
"""
_FIRST = "os.getpid = lambda: 1"
_COMMAND = ("walplane", "walplane.cli.main")
_OPERATOR = ("walplane_operator", "walplane_operator.handlers.main")


@pytest.mark.parametrize(("package", "last"), [_COMMAND, _OPERATOR])
def test_process_one_ends_while_it_loads(package: str, last: str) -> None:
    assert _ended(package, last, _FIRST, signal.SIGTERM) == 128 + signal.SIGTERM


def test_process_one_ends_by_ctrl_c_as_well() -> None:
    assert _ended(*_COMMAND, _FIRST, signal.SIGINT) == 128 + signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_any_other_process_dies_of_the_signal(number: signal.Signals) -> None:
    assert _ended(*_COMMAND, "", number) == -number


def _ended(package: str, last: str, first: str, number: signal.Signals) -> int:
    """The status of a process that got a signal while it loaded."""
    text = _LOADING.format(package=package, last=last, first=first)
    command = [sys.executable, "-c", text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"loading\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=100)
    assert (out, err) == (b"", b"")
    return process.returncode
