"""Backend URLs of Pulsar."""

from __future__ import annotations

import pytest

from walplane.backends.pulsar.config import PulsarConfig
from walplane.backends.pulsar.topics import TopicState
from walplane.rpc.errors import ErrorCode, WalError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "pulsar://broker",
            ("pulsar://broker:6650", "http://broker:8080", "public/walplane"),
        ),
        (
            "pulsar://127.0.0.1:6651?admin=http://127.0.0.1:8081/&namespace=a/b",
            ("pulsar://127.0.0.1:6651", "http://127.0.0.1:8081", "a/b"),
        ),
        (
            "pulsar://one:1,two?admin=https://web",
            ("pulsar://one:1,two:6650", "https://web", "public/walplane"),
        ),
        ("pulsar://[::1]", ("pulsar://[::1]:6650", "http://[::1]:8080", "public/walplane")),
    ],
)
def test_good_urls(url: str, expected: tuple[str, str, str]) -> None:
    config = PulsarConfig.parse(url)
    assert (config.service_url, config.admin_url, config.namespace) == expected


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("pulsar:", "no host"),
        ("pulsar://", "no host"),
        ("pulsar://host:port", "no host"),
        ("pulsar://host?admin", "no options"),
        ("pulsar://host?admin=host:8080", "no http URL"),
        ("pulsar://host?namespace=public", "tenant/namespace"),
        ("pulsar://host?tenant=public", "unknown option 'tenant'"),
    ],
)
def test_bad_urls(url: str, complaint: str) -> None:
    with pytest.raises(WalError, match=complaint) as raised:
        PulsarConfig.parse(url)
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


def test_follows_knows_ledgers() -> None:
    state = TopicState(((3, 10), (5, 0), (7, 4), (9, 0)), {"walplane": (3, -1)})
    assert state.last == (7, 3)
    assert state.follows((3, 9), (7, 0))
    assert state.follows((7, 1), (7, 2))
    assert not state.follows((3, 8), (7, 0))
    assert not state.follows((3, 9), (7, 1))
    assert not state.follows((3, 9), (9, 0))
    assert not state.follows((1, 9), (3, 0))
    assert not state.follows((7, 1), (7, 3))
