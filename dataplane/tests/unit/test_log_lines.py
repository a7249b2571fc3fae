"""A log line that cannot be written ends nothing."""

import subprocess
import sys

import pytest

_LIBRARY = "import walplane.rpc"
_COMMAND = """
from walplane.cli.logs import LogFormat, LogLevel, configure_logging
configure_logging(LogLevel.INFO, LogFormat.TEXT)
"""
_OPERATOR = """
from walplane_operator.handlers.logs import configure_logging
configure_logging()
"""
_LOG = """
import logging, os, sys, structlog
log = structlog.get_logger()
log.warning("before")
{broken}
log.warning("lost")
if logging.getLogger().handlers:  # the operator's
    logging.getLogger("kopf").warning("lost")
print("goes on", flush=True)
os._exit(0)  # what lies in a buffer would be complained about
"""
_FULL = "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"
_UNREAD = "r, w = os.pipe(); os.dup2(w, 2); os.close(r); os.close(w)"
_CLOSED = "sys.stderr.close()"
_NONE = "sys.stderr = None"


@pytest.mark.parametrize("setting", [_LIBRARY, _COMMAND, _OPERATOR], ids=["lib", "cli", "operator"])
@pytest.mark.parametrize("broken", [_FULL, _UNREAD, _CLOSED, _NONE])
def test_a_program_outlives_its_log(setting: str, broken: str) -> None:
    done = _run(setting + _LOG.format(broken=broken))
    assert done.stdout == "goes on\n", "nothing of the log, and no end in the middle"
    assert "before" in done.stderr


def test_the_log_goes_on_once_there_is_room() -> None:
    back = f"keep = os.dup(2); {_FULL}; log.warning('lost'); os.dup2(keep, 2)"
    done = _run(_COMMAND + _LOG.format(broken=back).replace('"lost"', '"later"'))
    assert "later" in done.stderr


def _run(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=False, timeout=100
    )
