"""A Pulsar client is kept for the process' end until its closing thread is done, and no longer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulsar
import pytest

from walplane.backends.pulsar import client as module
from walplane.backends.pulsar.client import PulsarClient
from walplane.backends.pulsar.config import PulsarConfig
from walplane.testkit.waiting import until

CONFIG = PulsarConfig.parse("pulsar://127.0.0.1:1?admin=http://127.0.0.1:1")


class SlowClient:
    """Says that it is closed when the test lets it."""

    def __init__(self) -> None:
        self.close_async: Callable[[Any], None] = self._note
        self.closed: list[Callable[[Any], None]] = []

    def _note(self, callback: Callable[[Any], None]) -> None:
        self.closed.append(callback)


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What left the list of those that the process' end waits for."""
    gone: list[object] = []
    monkeypatch.setattr("atexit.unregister", gone.append)
    return gone


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowClient:
    slow = SlowClient()
    monkeypatch.setattr("_pulsar.Client", lambda *_: slow)
    monkeypatch.setattr("atexit.register", lambda _: None)
    monkeypatch.setattr(module, "_CLOSE_S", 0.01)
    monkeypatch.setattr(module, "_EXIT_S", 0.02)
    return slow


async def test_one_that_is_slow_to_close_is_let_go_of_once_it_has(
    slow: SlowClient, gone: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looked = PulsarClient._leave_exit, list[PulsarClient]()

    def spy(client: PulsarClient) -> None:
        look(client)
        looked.append(client)

    monkeypatch.setattr(PulsarClient, "_leave_exit", spy)
    client = PulsarClient(CONFIG)
    await client.close()
    await until(lambda: len(looked) > 1)
    assert not gone
    slow.closed[0](pulsar.Result.Ok)
    await until(lambda: gone == [client._at_exit])


async def test_the_end_of_the_process_waits_until_the_callback_is_left(
    slow: SlowClient, gone: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = PulsarClient(CONFIG)
    await client.close()
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    slow.closed[0](pulsar.Result.Ok)
    client._at_exit()
    assert 0 < slept[0] <= module._LEAVE_S
    assert gone == []
