"""The console script, and `python -m walplane`."""

import signal
import sys


def main() -> int:
    """Runs the command line; Ctrl-C while modules are loaded ends it without a stack trace."""
    ours = signal.getsignal(signal.SIGINT)
    if ours is not signal.SIG_IGN:  # a shell's job in the background stays out of its Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from walplane.cli.main import main as run

    signal.signal(signal.SIGINT, ours)
    return run()


if __name__ == "__main__":
    sys.exit(main())
