"""The walplane command; wires the parts together for each way to run.

Contract: every command works against any cluster named by `--address`; results go to standard
output, everything else to standard error; an error is one clear line and exit code 1, wrong use
is exit code 2, and a stack trace appears only with `--debug`. Layer: top.
"""

import os

# gRPC's C core writes lines of its own to standard error; what matters comes as exceptions.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
