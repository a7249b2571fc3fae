"""walplane: a streaming write-ahead log, run on Kubernetes by its own operator."""

import logging as _logging
import sys as _sys
from importlib.metadata import version as _version

import structlog as _structlog

from walplane.runtime import poll_grpc_in_place as _poll_grpc_in_place

__version__ = _version("walplane")

_poll_grpc_in_place()  # here, since whatever imports gRPC for walplane imports this first

# A program that says nothing about logs gets warnings on standard error; structlog's own default
# would print every debug line between the program's output. Its own configuration wins.
if not _structlog.is_configured():
    _structlog.configure(
        wrapper_class=_structlog.make_filtering_bound_logger(_logging.WARNING),
        logger_factory=lambda *_: _structlog.PrintLogger(_sys.stderr),
    )
