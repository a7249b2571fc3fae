"""One operator acts: its Lease, by kmock, over outages and rivals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import kmock as kmocks
import pytest
from kubernetes.aio import client

from walplane.testkit.kube_objects import LEASES, Object
from walplane_operator.api import names
from walplane_operator.apply.kube import Kube
from walplane_operator.handlers import leader as leader_module
from walplane_operator.handlers.leader import Leader

pytestmark = pytest.mark.kmock(cls=kmocks.KubernetesScaffold)


class Server:
    """The API server's one Lease."""

    def __init__(self, kmock: kmocks.RawHandler) -> None:
        self.lease: Object | None = None
        self.version = 0
        self.status = 0
        kmock["get"] << self._get
        kmock["post"] << self._write
        kmock["put"] << self._write

    @property
    def holder(self) -> str:
        return str(self.lease["spec"]["holderIdentity"]) if self.lease else ""

    def hold(self, identity: str) -> None:
        """Somebody else writes the Lease."""
        self.version += 1
        self.lease = {
            "apiVersion": LEASES,
            "kind": "Lease",
            "metadata": {
                "name": leader_module.NAME,
                "namespace": "ops",
                "resourceVersion": str(self.version),
            },
            "spec": {"holderIdentity": identity, "leaseDurationSeconds": 15},
        }

    def _get(self, _request: kmocks.Request) -> kmocks.Response:
        if self.status:
            return self._answer(self.status)
        return self._answer(200 if self.lease else 404)

    def _write(self, request: kmocks.Request) -> kmocks.Response:
        given = request.data["metadata"].get("resourceVersion")
        present = self.lease["metadata"]["resourceVersion"] if self.lease else None
        if self.status or given != present:
            return self._answer(self.status or 409)
        self.version += 1
        request.data["metadata"]["resourceVersion"] = str(self.version)
        self.lease = request.data
        return self._answer(200)

    def _answer(self, status: int) -> kmocks.Response:
        body = self.lease if status == 200 else {"message": "no"}
        return kmocks.Response(status=status, payload=body)


@pytest.fixture
def server(kmock: kmocks.RawHandler) -> Server:
    return Server(kmock)


@pytest.fixture
async def kube(kmock: kmocks.RawHandler) -> AsyncIterator[Kube]:
    async with Kube.connect(client.Configuration(host=str(kmock.url).rstrip("/"))) as connected:
        yield connected


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


Second = tuple[Leader, Clock, asyncio.Task[None]]
"""One that waits for the Lease, its clock, and its waiting."""


@pytest.fixture
async def second(server: Server, kube: Kube, monkeypatch: pytest.MonkeyPatch) -> Second:
    """Begins while another one holds the Lease."""
    monkeypatch.setattr(leader_module, "_RETRY_S", 0.01)
    clock = Clock()
    server.hold("other")
    leader = Leader(kube, "ops", "me", 15, clock)
    return leader, clock, asyncio.create_task(leader.acquire())


async def test_the_first_one_leads(server: Server, kube: Kube) -> None:
    leader = Leader(kube, "ops", "me", 15)
    assert not leader.valid
    await leader.acquire()
    assert leader.valid
    assert server.lease is not None
    assert server.holder == "me"
    assert server.lease["metadata"]["labels"] == {names.LABEL_LEASE: names.LEASE_OPERATOR}
    fraction = server.lease["spec"]["renewTime"].rpartition(".")[2]
    assert len(fraction) == len("123456Z")


async def test_the_second_waits_a_full_duration_by_its_own_clock(
    server: Server, second: Second
) -> None:
    leader, clock, acquiring = second
    while leader.tried is None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    clock.now += 14
    server.hold("other")
    await asyncio.sleep(0.1)
    assert server.holder == "other", "it has renewed meanwhile"
    clock.now += 16
    await asyncio.wait_for(acquiring, 5)
    assert server.holder == "me"


async def test_the_second_waits_anew_after_an_outage(server: Server, second: Second) -> None:
    """The first one could not renew either."""
    leader, clock, acquiring = second
    for status, later in ((0, 14.0), (500, 60.0), (0, 14.0), (0, 1.0)):
        server.status = status
        clock.now += later
        tried = leader.tried
        async with asyncio.timeout(5):
            while leader.tried == tried:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert server.holder == "other"
    clock.now += 16
    await asyncio.wait_for(acquiring, 5)
    assert server.holder == "me"


async def test_one_that_resigned_is_followed_at_once(server: Server, kube: Kube) -> None:
    first = Leader(kube, "ops", "first", 15)
    await first.acquire()
    await first.resign()
    assert not first.valid
    second = Leader(kube, "ops", "second", 15)
    async with asyncio.timeout(5):
        await second.acquire()
    assert server.holder == "second"


async def test_it_stops_acting_when_it_cannot_renew_and_goes_on_if_still_its_own(
    server: Server, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API server that is away lets nobody else lead either."""
    monkeypatch.setattr(leader_module, "RENEW_S", 0.02)
    clock = Clock()
    leader = Leader(kube, "ops", "me", 15, clock)
    await leader.acquire()
    server.status = 500
    keeping = asyncio.create_task(leader.keep())
    clock.now += 15
    assert not leader.valid
    await asyncio.sleep(0.1)
    assert not keeping.done()
    server.status = 0
    async with asyncio.timeout(5):
        while not leader.valid:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    keeping.cancel()


async def test_it_ends_when_another_leads(
    server: Server, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "RENEW_S", 0.02)
    leader = Leader(kube, "ops", "me", 15)
    await leader.acquire()
    server.hold("other")
    async with asyncio.timeout(5):
        await leader.keep()
    assert not leader.valid
    await leader.resign()
    assert server.holder == "other"


async def test_it_renews_at_once_when_somebody_wants_to_see_the_watch_move(
    server: Server, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "RENEW_S", 60)
    leader = Leader(kube, "ops", "me", 15)
    await leader.acquire()
    before = server.version
    keeping = asyncio.create_task(leader.keep())
    leader.renew_now()
    async with asyncio.timeout(5):
        while server.version == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    keeping.cancel()
