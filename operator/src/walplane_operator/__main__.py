"""The console script, and `python -m walplane_operator`."""

import signal
import sys

from walplane.signals import end_on


def main() -> int:
    """Runs the operator; SIGTERM while modules are loaded ends it."""
    end_on(signal.SIGTERM)
    from walplane_operator.handlers.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
