"""`python -m devservices.pulsar start|stop|status [--data DIR] [--port N] [--admin-port N]`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from devservices.pulsar.engines import PrerequisiteMissingError
from devservices.pulsar.process import DEFAULT_DATA, PulsarError, PulsarProcess
from devservices.pulsar.sharing import URL_VARIABLE


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; prints the broker's URL, or one line of what is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m devservices.pulsar",
        description=f"A real Pulsar on loopback. With {URL_VARIABLE} set, that one is used.",
    )
    parser.add_argument("command", choices=("start", "stop", "status"))
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="default: %(default)s")
    parser.add_argument("--port", type=int, help="binary port (default 6650, or a free one)")
    parser.add_argument("--admin-port", type=int, help="admin port (default 8080, or a free one)")
    options = parser.parse_args(arguments)
    if os.environ.get(URL_VARIABLE):
        print(os.environ[URL_VARIABLE])
        return 0
    broker = PulsarProcess(options.data, options.port, options.admin_port)
    try:
        return _run(options.command, broker)
    except (PrerequisiteMissingError, PulsarError) as error:
        print(error, file=sys.stderr)
        return 1


def _run(command: str, broker: PulsarProcess) -> int:
    if command == "start":
        print(broker.start())
    elif command == "stop":
        broker.stop()
    elif broker.running:
        print(f"running {broker.url}")
    else:
        print(f"stopped {broker.data}")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
