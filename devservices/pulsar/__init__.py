"""A real Pulsar for development and tests: started, stopped, killed and restarted by walplane.

Contract: `PulsarProcess` is one broker on one data directory; `for_tests` hands every test process
of a run the same one. When `WALPLANE_PULSAR_URL` is set, that broker is used and nothing is
started. Command line: `python -m devservices.pulsar start|stop|status`.
"""

from devservices.pulsar.engines import PrerequisiteMissingError
from devservices.pulsar.health import waiting_threads
from devservices.pulsar.process import PulsarError, PulsarProcess
from devservices.pulsar.sharing import (
    STOOD_STILL,
    URL_VARIABLE,
    broker_life,
    ended_since,
    for_tests,
    stop_after_tests,
)

__all__ = [
    "STOOD_STILL",
    "URL_VARIABLE",
    "PrerequisiteMissingError",
    "PulsarError",
    "PulsarProcess",
    "broker_life",
    "ended_since",
    "for_tests",
    "stop_after_tests",
    "waiting_threads",
]
