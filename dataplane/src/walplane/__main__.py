"""`python -m walplane`: the same as the console script."""

import sys

from walplane.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
