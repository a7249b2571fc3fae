"""Fixtures of every test folder: a real Pulsar, started once for the whole run."""

from __future__ import annotations

import os
import secrets

import pytest

from devservices.pulsar import PrerequisiteMissingError, for_tests, stop_after_tests

_RUN = "WALPLANE_TEST_RUN"


def pytest_configure() -> None:
    """Names the run; xdist's workers inherit the name."""
    os.environ.setdefault(_RUN, f"pytest-{secrets.token_hex(8)}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The process that started the run stops the broker that the run started."""
    if not hasattr(config, "workerinput"):
        stop_after_tests(os.environ[_RUN])


@pytest.fixture(scope="session")
def pulsar_url() -> str:
    """Backend URL of a running Pulsar in a namespace of this test process' own."""
    try:
        url = for_tests(os.environ[_RUN])
    except PrerequisiteMissingError as missing:
        pytest.skip(str(missing))
    if "namespace=" in url:
        return url
    joint = "&" if "?" in url else "?"
    return f"{url}{joint}namespace=public/test-{secrets.token_hex(6)}"
