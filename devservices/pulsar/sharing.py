"""One broker for all test processes of this checkout, however many runs there are.

Contract: every process that needs the broker calls `for_tests` and, at its end, `stop_after_tests`;
the first one starts it on an empty directory, the last one stops it. Between the two,
`ended_since` tells after a failure whether the broker was what failed.
"""

from __future__ import annotations

import os
import shutil
from typing import IO

from devservices.pulsar.engines import HOME
from devservices.pulsar.health import revive
from devservices.pulsar.locks import is_shared, locked, share
from devservices.pulsar.process import PulsarProcess

URL_VARIABLE = "WALPLANE_PULSAR_URL"
_DATA = HOME / "tests"
_LOCK = HOME / "tests.run.lock"
_USERS = HOME / "tests.users.lock"

STOOD_STILL = HOME / "tests-stood-still"  # a broker's log for each time, with its threads

_shares: list[IO[bytes]] = []  # of this process; the kernel drops them if it dies


def for_tests() -> str:
    """URL of the broker, started if need be.

    Raises:
        PrerequisiteMissingError: nothing here can run a Pulsar.
        PulsarError: it did not come up.
    """
    if os.environ.get(URL_VARIABLE):
        return os.environ[URL_VARIABLE]
    broker = PulsarProcess(_DATA)
    with locked(_LOCK):
        if not broker.running:
            broker.wipe()
            shutil.rmtree(STOOD_STILL, ignore_errors=True)
        url = broker.start()
        _shares.append(share(_USERS))
    return url


def broker_life() -> str:
    """Names the present life of this run's broker; empty when there is none that is ours."""
    broker = PulsarProcess(_DATA)
    url = os.environ.get(URL_VARIABLE)
    return "" if not broker.handle or (url and url != broker.url) else broker.handle


def ended_since(life: str) -> bool:
    """Whether the broker that had that life died or stands still; if so, it lives again by now."""
    return bool(life) and revive(PulsarProcess(_DATA), life, STOOD_STILL)


def stop_after_tests() -> None:
    """Gives back what `for_tests` took; stops the broker when nobody else uses it."""
    if not _shares:
        return
    with locked(_LOCK):
        while _shares:
            _shares.pop().close()
        if not is_shared(_USERS):
            PulsarProcess(_DATA).wipe()
