"""Interpreters with packages that cannot live beside walplane's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from devservices.peers.server import HOME
from devservices.pulsar import PrerequisiteMissingError
from devservices.pulsar.locks import locked

_INSTALL_TIMEOUT_S = 1800.0


def python_with(name: str, packages: tuple[str, ...], variable: str, needs: str = "") -> str:
    """An interpreter that has `packages`, installed at the first call below `HOME`/`name`.

    Args:
        name: of its directory; another one for other versions.
        packages: for pip.
        variable: of the environment; names an interpreter that is used instead.
        needs: what they need, for the error.

    Raises:
        PrerequisiteMissingError: they could not be installed.
    """
    if os.environ.get(variable):
        return os.environ[variable]
    directory = HOME / name
    python, complete = directory / "bin" / "python", directory / "complete"
    with locked(HOME / f"{name.replace('/', '-')}.lock"):
        if not complete.is_file():
            shutil.rmtree(directory, ignore_errors=True)
            failed = _run([sys.executable, "-m", "venv", str(directory)]) or _run(
                [str(python), "-m", "pip", "install", "-q", *packages]
            )
            if failed:
                raise PrerequisiteMissingError(
                    f"pip cannot install {' '.join(packages)} ({failed}){needs}: "
                    f"set {variable} to an interpreter that has them"
                )
            complete.touch()
    return str(python)


def _run(command: list[str]) -> str:
    """Why `command` failed; empty when it did not."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_INSTALL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {_INSTALL_TIMEOUT_S:.0f} s"
    if not done.returncode:
        return ""
    return (done.stderr.strip().splitlines() or ["no output"])[-1]
