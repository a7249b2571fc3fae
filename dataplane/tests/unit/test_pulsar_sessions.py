"""Sessions of the Pulsar backend: none is left behind, and what goes wrong is a WalError."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pulsar
import pytest

from walplane.backends.pulsar.admin import Admin
from walplane.backends.pulsar.backend import PulsarBackend
from walplane.backends.pulsar.config import PulsarConfig
from walplane.prompt import PromptTask
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.waiting import until

CONFIG = PulsarConfig.parse("pulsar://127.0.0.1:1?admin=http://web.example:80")


class FakeClient:
    """One of the extension module; answers a check when it is told to."""

    def __init__(self) -> None:
        self.checks: list[Callable[[Any, Any], None]] = []
        self.closed = 0

    def get_topic_partitions_async(self, _: str, callback: Callable[[Any, Any], None]) -> None:
        self.checks.append(callback)

    def close_async(self, callback: Callable[[Any], None]) -> None:
        self.closed += 1
        asyncio.get_running_loop().call_soon(callback, pulsar.Result.Ok)

    def close(self) -> None:
        """At the end of the process."""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    monkeypatch.setattr("_pulsar.Client", lambda *_: fake)
    monkeypatch.setattr("atexit.register", lambda _: None)
    return fake


async def test_a_session_that_is_made_while_the_backend_closes_is_closed(fake: FakeClient) -> None:
    backend = PulsarBackend(CONFIG)
    making = asyncio.create_task(backend.session())
    await until(lambda: bool(fake.checks))
    await backend.close()
    fake.checks[0](pulsar.Result.Ok, [])
    with pytest.raises(WalError, match="backend is closed") as error:
        await making
    assert error.value.code is ErrorCode.ON_SHUTDOWN
    assert fake.closed == 1


async def test_a_session_whose_close_is_cancelled_at_once_is_closed(fake: FakeClient) -> None:
    backend = PulsarBackend(CONFIG)
    making = asyncio.create_task(backend.session())
    await until(lambda: bool(fake.checks))
    fake.checks[0](pulsar.Result.Ok, [])
    session = await making
    closing = asyncio.create_task(session.close())
    await asyncio.sleep(0)  # its first step
    closing.cancel()
    async with asyncio.timeout(10):
        await session.close()
        await asyncio.wait([closing])
    assert closing.cancelled()
    assert fake.closed == 1
    await backend.close()


async def test_an_admin_service_that_answers_with_a_page_is_named() -> None:
    admin = Admin(CONFIG)
    await admin.close()
    page = httpx.MockTransport(lambda _: httpx.Response(200, html="<html>hello</html>"))
    admin._http = httpx.AsyncClient(transport=page, base_url="http://web.example")
    with pytest.raises(WalError, match=r"http://web\.example:80 .*admin=") as error:
        await admin.get("/namespaces/a/b")
    assert error.value.code is ErrorCode.INNER
    await admin.close()


async def test_an_admin_service_that_was_closed_says_so() -> None:
    admin = Admin(CONFIG)
    await admin.close()
    with pytest.raises(WalError, match="backend is closed") as error:
        await admin.get("/namespaces/a/b")
    assert error.value.code is ErrorCode.ON_SHUTDOWN


async def test_a_prompt_task_connects_anew_when_the_admin_service_closed_its_connections() -> None:
    """As a reader in the program's own process, whose pool has lost its connections."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
    connections = 0

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        writer.close()

    async with await asyncio.start_server(answer_once, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        admin = Admin(PulsarConfig.parse(f"pulsar://127.0.0.1:1?admin=http://127.0.0.1:{port}"))
        async with asyncio.timeout(10):
            for _ in range(3):
                assert await PromptTask(admin.get("/clusters")) == []
        await admin.close()
    assert connections == 3
