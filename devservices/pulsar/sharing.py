"""One broker for a whole test run, however many processes it has.

Contract: `for_tests` is called by every test process that needs a broker; the first one starts it.
The run's own end (`stop_after_tests`) stops it, unless it ran before or is not ours.
"""

from __future__ import annotations

import os

from devservices.pulsar.engines import HOME
from devservices.pulsar.locks import locked
from devservices.pulsar.process import PulsarProcess

URL_VARIABLE = "WALPLANE_PULSAR_URL"
_DATA = HOME / "tests"
_STARTED_BY = HOME / "tests.run"


def for_tests(run: str) -> str:
    """URL of the broker for the test run `run`, started on an empty directory if need be.

    Raises:
        PrerequisiteMissingError: nothing here can run a Pulsar.
        PulsarError: it did not come up.
    """
    if os.environ.get(URL_VARIABLE):
        return os.environ[URL_VARIABLE]
    broker = PulsarProcess(_DATA)
    with locked(HOME / "tests.run.lock"):
        if not broker.running:
            broker.wipe()
            broker.start()
            _STARTED_BY.write_text(run)
        return broker.start()


def stop_after_tests(run: str) -> None:
    """Stops the broker that `for_tests` started for `run`, and removes its data."""
    with locked(HOME / "tests.run.lock"):
        if _STARTED_BY.exists() and _STARTED_BY.read_text() == run:
            PulsarProcess(_DATA).wipe()
            _STARTED_BY.unlink()
