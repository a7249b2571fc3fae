"""`python -m devservices.kind up|down|load [--name NAME] [IMAGE…]`."""

from __future__ import annotations

import argparse
import subprocess
import sys

from devservices.kind.cluster import KindCluster, ToolMissingError


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m devservices.kind", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "load"))
    parser.add_argument("images", nargs="*", help="of this machine's docker, to load")
    parser.add_argument("--name", default="walplane", help="default: %(default)s")
    given = parser.parse_args(arguments)
    cluster = KindCluster(given.name)
    try:
        if given.command == "up":
            cluster.up()
            print(cluster.context)
        elif given.command == "down":
            cluster.down()
        else:
            cluster.load(*given.images)
    except ToolMissingError as missing:
        print(missing, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
