"""Builds the container image: `python -m devservices.images.walplane [--tag TAG] [--base IMAGE] …`.

Contract: defaults are what anybody with a container registry and a package index has. With
`--offline` the wheels are fetched on this machine, by its own pip, and handed to the build, so that
no container needs an index; `--base` names a base that is here already.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from devservices.images import docker

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / "wheels"
TAG = "walplane:dev"


def build(tag: str = TAG, base: str = "", index: str = "", *, offline: bool = False) -> None:
    """Builds the image.

    Args:
        tag: of the image.
        base: instead of the Dockerfile's own.
        index: package index that the build uses.
        offline: take wheels from this machine.

    Raises:
        subprocess.CalledProcessError: pip or docker failed; what they said was printed.
    """
    if offline:
        fetch_wheels()
    else:
        shutil.rmtree(WHEELS, ignore_errors=True)
    docker.build(ROOT, tag, BASE=base, INDEX=index)


def fetch_wheels() -> None:
    """Puts a wheel of everything the image needs, and of what builds it, into `wheels`."""
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check"]
    WHEELS.mkdir(exist_ok=True)
    subprocess.run(
        [*pip, "-w", str(WHEELS), "--find-links", str(WHEELS), ".[all]", "hatchling"],
        cwd=ROOT,
        check=True,
    )
    for own in WHEELS.glob("walplane-*.whl"):
        own.unlink()  # the image builds it from the sources


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    program = "python -m devservices.images.walplane"
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("--tag", default=TAG)
    parser.add_argument("--base", default=os.environ.get("WALPLANE_BASE_IMAGE", ""))
    parser.add_argument("--index", default=os.environ.get("PIP_INDEX_URL", ""))
    parser.add_argument("--offline", action="store_true", help="take wheels from this machine")
    given = parser.parse_args(arguments)
    try:
        build(given.tag, given.base, given.index, offline=given.offline)
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
