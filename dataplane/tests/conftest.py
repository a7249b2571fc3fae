"""Fixtures of every test folder: a real Pulsar, started once for the whole run."""

from __future__ import annotations

import secrets

import pytest

from devservices.pulsar import PrerequisiteMissingError, for_tests, stop_after_tests


def pytest_unconfigure() -> None:
    """The last test process to end stops the broker; xdist's workers come here as well."""
    stop_after_tests()


@pytest.fixture(scope="session")
def pulsar_url() -> str:
    """Backend URL of a running Pulsar, in a namespace that this test process has for itself."""
    try:
        url = for_tests()
    except PrerequisiteMissingError as missing:
        pytest.skip(str(missing))
    if "namespace=" in url:
        return url
    joint = "&" if "?" in url else "?"
    return f"{url}{joint}namespace=public/test-{secrets.token_hex(6)}"
