"""The fast suite, with real Pulsar, S3 and Azure if possible: `python -m devservices.test [ARG…]`.

Contract: arguments go to pytest after the defaults, so that they win. Where one cannot run, what
is missing is named and the tests that need one are skipped. What was started is stopped. The last
line printed is pytest's own, and its exit code is ours.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from devservices.peers import azure, s3
from devservices.pulsar import (
    URL_VARIABLE,
    PrerequisiteMissingError,
    PulsarError,
    for_tests,
    stop_after_tests,
)

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    """Runs the suite; returns pytest's exit code."""
    # gRPC's C core would write lines of its own between pytest's
    environment = {"GRPC_VERBOSITY": "NONE", **os.environ}
    try:
        url = _pulsar()
        if url:
            environment[URL_VARIABLE] = url
        _fetch_stores()
        return _pytest(arguments, environment)
    finally:
        stop_after_tests()


def _pulsar() -> str | None:
    """URL of a broker for this run; None, with a line that says why, when there is none."""
    print("starting a Pulsar for the tests (the first time, Maven fetches it)", flush=True)
    try:
        url = for_tests()
    except PrerequisiteMissingError as missing:
        print(f"going on without a real Pulsar: {missing}", flush=True)
        return None
    except PulsarError as error:
        print(f"going on without a real Pulsar: it did not start: {error}", flush=True)
        return None
    print(f"Pulsar: {url}", flush=True)
    return url


def _fetch_stores() -> None:
    """Has the stores of the tests installed here, where no test's time limit runs."""
    for name, installed in (("S3", s3.installed), ("Azure", azure.installed)):
        try:
            installed()
        except PrerequisiteMissingError as missing:
            print(f"going on without {name}: {missing}", flush=True)


def _pytest(arguments: list[str], environment: dict[str, str]) -> int:
    """One pytest over two workers: files stay whole, so that their fixtures are shared."""
    workers = str(min(2, os.cpu_count() or 1))
    command = [sys.executable, "-m", "pytest", "-n", workers, "--dist", "loadfile", *arguments]
    try:
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
