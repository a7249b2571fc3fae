"""The few calls of docker that building images takes."""

from __future__ import annotations

import subprocess
from pathlib import Path


def has(tag: str) -> bool:
    """Whether docker has an image of that name."""
    shown = subprocess.run(["docker", "image", "inspect", tag], capture_output=True, check=False)
    return shown.returncode == 0


def build(context: Path, tag: str, dockerfile: Path | None = None, **arguments: str) -> None:
    """Builds an image; `arguments` are its build arguments, empty ones left out.

    Raises:
        subprocess.CalledProcessError: docker failed; what it said was printed.
    """
    given = [f"{name}={value}" for name, value in arguments.items() if value]
    options = [option for one in given for option in ("--build-arg", one)]
    file = ["-f", str(dockerfile)] if dockerfile else []
    command = ["docker", "build", "-q", "-t", tag, *file, *options, str(context)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
