"""`python -m devservices.e2e [--keep] [--if-possible] [pytest arguments]`: `make e2e`.

`--keep` leaves the cluster and uses the one that is there. With `--if-possible` a machine on which
no cluster can be had is told so, and no failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from devservices.e2e.images import Images, prepare
from devservices.kind import KindCluster, ToolMissingError
from devservices.pulsar import PrerequisiteMissingError

ROOT = Path(__file__).resolve().parents[2]
NAME = "walplane-e2e"
KEEP, IF_POSSIBLE = "--keep", "--if-possible"


def main(arguments: list[str]) -> int:
    """Runs everything from nothing; returns pytest's exit code."""
    keep = KEEP in arguments
    cluster = KindCluster(os.environ.get("WALPLANE_E2E_NAME", NAME))
    began = time.monotonic()
    try:
        if not keep:
            cluster.down()  # what an earlier run left behind
        cluster.up()
        images = prepare(cluster)
        print(f"{time.monotonic() - began:.0f} s: cluster and images are there", flush=True)
        own = (KEEP, IF_POSSIBLE)
        return _pytest(cluster, images, [each for each in arguments if each not in own])
    except (ToolMissingError, PrerequisiteMissingError, RuntimeError) as missing:
        print(f"no end-to-end tests: {missing}", file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"no end-to-end tests: {error}", file=sys.stderr)
    finally:
        if not keep:
            cluster.down()
        print(f"{time.monotonic() - began:.0f} s in all", flush=True)
    return 0 if IF_POSSIBLE in arguments else 1


def _pytest(cluster: KindCluster, images: Images, arguments: list[str]) -> int:
    environment = {
        **os.environ,
        "WALPLANE_E2E_NAME": cluster.name,
        "WALPLANE_E2E_IMAGE": images.walplane,
        "WALPLANE_E2E_PULSAR_IMAGE": images.pulsar,
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "e2e",
        "-rP",
        "--tb=short",
        "--durations=0",
        "--maxfail=3",
    ]
    return subprocess.run([*command, *arguments], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
