"""The console script, and `python -m walplane`."""

import signal
import sys

from walplane.signals import end_on


def main() -> int:
    """Runs the command line; a signal while modules are loaded ends it without a stack trace."""
    ours = signal.getsignal(signal.SIGINT)
    for number in (signal.SIGINT, signal.SIGTERM):
        end_on(number)
    from walplane.cli.main import main as run

    signal.signal(signal.SIGINT, ours)
    return run()


if __name__ == "__main__":
    sys.exit(main())
