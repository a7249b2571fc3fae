"""The wire: generated gRPC code in `v1` and the one error vocabulary in `errors`.

Layer: below `message`; knows nothing of logs or channels. Whatever writes to the program's log
also has errors to name, and so imports this first: what is logged by default is said here.
"""

import logging as _logging

import structlog as _structlog

from walplane.stderr import LOG_STREAM as _LOG_STREAM

# A program that says nothing about logs gets warnings on standard error; structlog's own default
# would print every debug line between the program's output. Its own configuration wins.
if not _structlog.is_configured():
    _structlog.configure(
        wrapper_class=_structlog.make_filtering_bound_logger(_logging.WARNING),
        logger_factory=lambda *_: _structlog.WriteLogger(_LOG_STREAM),
    )
