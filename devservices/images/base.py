"""A stand-in for `python:3.11-slim`, of Debian packages: `python -m devservices.images.base`."""

from __future__ import annotations

import shutil
import subprocess
import sys

from devservices.images import docker

TAG = "walplane-base:local"
_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates,netbase,procps,tzdata"
_LEFT_OUT = ("man", "doc", "locale")
_CLEAN = 'cd "$1" && rm -rf var/lib/apt/lists/* var/cache/apt etc/apt/sources.list* etc/resolv.conf'


def ensure() -> str:
    """Makes the image if it is not there; returns its name.

    Raises:
        RuntimeError: mmdebstrap is missing.
        subprocess.CalledProcessError: packages could not be fetched, or docker refused the image.
    """
    if docker.has(TAG):
        return TAG
    if not shutil.which("mmdebstrap"):
        raise RuntimeError("a base image needs mmdebstrap: apt-get install mmdebstrap")
    left_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    debian = [
        *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", *left_out),
        *('--customize-hook=ln -sf python3 "$1/usr/bin/python"', f"--customize-hook={_CLEAN}"),
        *("bookworm", "-"),
    ]
    imported = [
        *("docker", "import", "-c", "ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8"),
        *("-c", 'CMD ["python3"]', "-", TAG),
    ]
    with subprocess.Popen(debian, stdout=subprocess.PIPE) as made:
        taken = subprocess.run(imported, stdin=made.stdout, stdout=subprocess.DEVNULL, check=False)
    if made.returncode or taken.returncode:
        raise subprocess.CalledProcessError(made.returncode or taken.returncode, debian)
    return TAG


if __name__ == "__main__":
    sys.exit(print(ensure()))
