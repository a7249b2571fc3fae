"""Fixtures of every test folder: a real Pulsar, started once for the whole run."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

import httpx
import pytest

from devservices.pulsar import PrerequisiteMissingError, for_tests, stop_after_tests
from walplane.backends.pulsar.config import PulsarConfig


def pytest_unconfigure() -> None:
    """The last test process to end stops the broker; xdist's workers come here as well."""
    stop_after_tests()


@pytest.fixture(scope="session")
def pulsar_url() -> Iterator[str]:
    """Backend URL of a running Pulsar, in a namespace that this test process has for itself."""
    try:
        url = for_tests()
    except PrerequisiteMissingError as missing:
        pytest.skip(str(missing))
    if "namespace=" in url:
        yield url
        return
    config = PulsarConfig.parse(url)
    namespace = f"public/test-{secrets.token_hex(6)}"
    yield f"{url}{'&' if '?' in url else '?'}namespace={namespace}"
    # refused by a broker without forceDeleteNamespaceAllowed, which then keeps the namespace
    with contextlib.suppress(httpx.HTTPError):
        httpx.delete(f"{config.admin_url}/admin/v2/namespaces/{namespace}?force=true", timeout=30)
