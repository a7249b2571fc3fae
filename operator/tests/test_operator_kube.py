"""The API server's moods, by kmock: conflicts, 410, 429, hangs, watches that break."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime, timedelta

import kmock as kmocks
import pytest
from kmock import Response as Answer
from kubernetes.aio import client

from walplane.testkit.kube_objects import LEASES, ClusterObjects, Object, walcluster
from walplane_operator.api import names
from walplane_operator.api.leases import PChannelLease
from walplane_operator.api.spec import WALCluster
from walplane_operator.apply import kube as kube_module
from walplane_operator.apply.events import Event, EventWriter
from walplane_operator.apply.kube import ApiError, Kube, WatchEvent, path_of
from walplane_operator.apply.leases import Written, write
from walplane_operator.apply.objects import Applier
from walplane_operator.apply.statuses import Budget, write_status
from walplane_operator.handlers.watching import Listeners, Watcher
from walplane_operator.manifests.desired import workloads
from walplane_operator.plan.assignment import Grant, Release
from walplane_operator.testkit import MemoryKube

ALL = path_of(LEASES, "Lease", "default")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

pytestmark = pytest.mark.kmock(cls=kmocks.KubernetesScaffold)


@pytest.fixture
async def kube(kmock: kmocks.RawHandler) -> AsyncIterator[Kube]:
    async with Kube.connect(client.Configuration(host=str(kmock.url).rstrip("/"))) as connected:
        yield connected


def refuse(status: int, message: str = "no", **headers: str) -> Answer:
    return Answer(status=status, payload={"message": message}, headers=headers)


def in_turn(*answers: Answer) -> Callable[[kmocks.Request], Answer]:
    """One answer after another, the last one for ever."""
    left = list(answers)

    def answer(_request: kmocks.Request) -> Answer:
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


def listing(items: Iterable[Object], version: str = "10") -> Answer:
    body = {
        "apiVersion": LEASES,
        "kind": "LeaseList",
        "metadata": {"resourceVersion": version},
        "items": [{k: v for k, v in i.items() if k not in ("apiVersion", "kind")} for i in items],
    }
    return Answer(status=200, payload=body)


async def test_what_is_not_there_is_none(kmock: kmocks.RawHandler, kube: Kube) -> None:
    kmock["get"] << refuse(404)
    assert await kube.get(f"{ALL}/x") is None
    assert await kube.delete(f"{ALL}/x") is False


@pytest.mark.parametrize("status", [401, 403, 500, 503])
async def test_a_refusal_is_never_an_absence(
    kmock: kmocks.RawHandler, kube: Kube, status: int
) -> None:
    """A starting API server answers 403 to an administrator."""
    kmock["get"] << refuse(status, "forbidden")
    with pytest.raises(ApiError, match="forbidden") as raised:
        await kube.get(f"{ALL}/x")
    assert raised.value.status == status
    with pytest.raises(ApiError):
        await kube.list(ALL)


async def test_items_of_a_list_say_what_they_are(kmock: kmocks.RawHandler, kube: Kube) -> None:
    """The API server leaves that out, and a PUT needs it."""
    kmock["get"] << listing([ClusterObjects().grant(1)])
    items, version = await kube.list(ALL, "a=b")
    assert (items[0]["apiVersion"], items[0]["kind"], version) == (LEASES, "Lease", "10")
    assert kmock["get"][0].params == {"labelSelector": "a=b"}


async def test_too_many_requests_are_tried_again_when_the_server_says(
    kmock: kmocks.RawHandler, kube: Kube
) -> None:
    busy = refuse(429, "slow down", **{"Retry-After": "1"})
    kmock["get"] << in_turn(busy, listing([]))
    loop = asyncio.get_running_loop()
    before = loop.time()
    await kube.list(ALL)
    assert loop.time() - before >= 1


async def test_a_server_that_stays_busy_is_an_error(
    kmock: kmocks.RawHandler, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_module, "CALL_TIMEOUT_S", 1.2)
    kmock["get"] << refuse(429)
    with pytest.raises(ApiError) as raised:
        await kube.list(ALL)
    assert raised.value.status == 429


async def test_a_server_that_hangs_is_an_error(
    kmock: kmocks.RawHandler, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_module, "CALL_TIMEOUT_S", 0.3)
    kmock["get"] << (lambda: asyncio.sleep(30))
    with pytest.raises(ApiError, match="did not answer") as raised:
        await kube.get(f"{ALL}/x")
    assert raised.value.status == 0


async def test_a_server_that_is_not_there_is_an_error() -> None:
    async with Kube.connect(client.Configuration(host="http://127.0.0.1:1")) as nowhere:
        with pytest.raises(ApiError, match="did not answer"):
            await nowhere.get(f"{ALL}/x")


def scene() -> tuple[WALCluster, PChannelLease, PChannelLease]:
    objects = ClusterObjects()
    free = PChannelLease.read(objects.grant(0, "", 3))
    held = PChannelLease.read(objects.grant(1, "demo-node-0_u_i", 5))
    return WALCluster(objects.cluster), free, held


async def step(kube: Kube) -> Written:
    cluster, free, held = scene()
    grants = [Grant(0, free, "demo-node-1_u_i", 4, "Moved"), Grant(2, None, "x_u_i", 1, "Initial")]
    return await write(kube, cluster, grants, [Release(1, held, "Balance")], NOW)


async def test_grants_and_releases_are_puts_of_what_was_read(
    kmock: kmocks.RawHandler, kube: Kube
) -> None:
    kmock["put"] << (lambda request: Answer(status=200, payload=request.data))
    kmock["post"] << (lambda request: Answer(status=201, payload=request.data))
    written = await step(kube)
    leases = dict(written.leases)
    assert (leases[0].holder, leases[0].term, leases[0].ready) == ("demo-node-1_u_i", 4, False)
    assert (leases[1].holder, leases[1].release) == ("demo-node-0_u_i", 5)
    assert (leases[2].holder, leases[2].term) == ("x_u_i", 1)
    assert written.conflicts == []
    assert {request.method.value for request in kmock} == {"PUT", "POST"}, "never a patch"
    assert all(request.data["metadata"].get("resourceVersion") for request in kmock["put"])


@pytest.mark.parametrize("status", [404, 409])
async def test_a_conflict_changes_nothing_and_is_counted(
    kmock: kmocks.RawHandler, kube: Kube, status: int
) -> None:
    kmock["put"] << refuse(status, "the object has been modified")
    kmock["post"] << refuse(409, "exists")
    written = await step(kube)
    assert (written.leases, written.grants, written.releases) == ([], [], [])
    assert sorted(written.conflicts) == [0, 1, 2]
    writes = [*kmock["put"], *kmock["post"]]
    assert len(writes) == 3, "nothing is tried again on what was read before"


async def test_a_lease_write_that_fails_otherwise_is_raised(
    kmock: kmocks.RawHandler, kube: Kube
) -> None:
    kmock["put"] << refuse(500)
    kmock["post"] << refuse(500)
    with pytest.raises(ExceptionGroup) as raised:
        await step(kube)
    assert raised.group_contains(ApiError)


async def test_applying_again_sends_only_what_changed(kmock: kmocks.RawHandler, kube: Kube) -> None:
    kmock["patch"] << {}
    now = 0.0
    applier = Applier(kube, lambda: now)
    manifests = workloads(WALCluster(walcluster()), "a:1", 3)
    assert await applier.apply(manifests, frozenset()) == []
    assert len(kmock) == len(manifests)
    first = kmock["patch"][0]
    assert first.headers["Content-Type"] == "application/apply-patch+yaml"
    assert first.params == {"fieldManager": names.FIELD_MANAGER, "force": "true"}
    await applier.apply(manifests, frozenset())
    assert len(kmock) == len(manifests)
    changed = workloads(WALCluster(walcluster()), "a:1", 4)
    await applier.apply(changed, frozenset())
    assert len(kmock) == len(manifests) + 1, "the StatefulSet alone"
    await applier.apply(changed, frozenset({"Deployment"}))
    assert len(kmock) == len(manifests) + 2, "and what is seen to be missing"
    now = 31.0
    await applier.apply(changed, frozenset())
    assert len(kmock) == 2 * len(manifests) + 2, "all of it now and then"


async def test_what_others_need_is_there_before_them(kmock: kmocks.RawHandler, kube: Kube) -> None:
    """The API server refuses a RoleBinding without its Role, with 404."""
    there: list[str] = []

    async def slowly(request: kmocks.Request) -> object:
        kind = request.data["kind"]
        if kind == "RoleBinding" and there.count("Role") < 2:
            return refuse(404)
        await asyncio.sleep(0.01 if kind == "Role" else 0)
        there.append(kind)
        return {}

    kmock["patch"] << slowly
    manifests = workloads(WALCluster(walcluster()), "a:1", 3)
    assert await Applier(kube).apply(manifests, frozenset()) == []
    assert sorted(there) == sorted(each["kind"] for each in manifests)
    assert set(there[-2:]) == {"StatefulSet", "Deployment"}


async def test_a_refused_manifest_is_told_and_the_others_are_applied(
    kmock: kmocks.RawHandler, kube: Kube
) -> None:
    kmock["/apis/apps/v1/namespaces/default/statefulsets/demo-node"] << refuse(422, "bad cpu")
    kmock["patch"] << {}
    manifests = workloads(WALCluster(walcluster()), "a:1", 3)
    refused = await Applier(kube).apply(manifests, frozenset())
    assert refused == ["StatefulSet demo-node: bad cpu"]
    assert len(kmock) == len(manifests)


async def test_a_status_of_what_is_gone_is_not_an_error(
    kmock: kmocks.RawHandler, kube: Kube
) -> None:
    kmock["patch"] << refuse(404)
    await write_status(kube, walcluster(), names.WALCLUSTER, {"phase": "Running"})
    (request,) = kmock
    assert request.subresource == "status"
    assert request.data["status"] == {"phase": "Running"}


def test_five_numbers_a_second() -> None:
    budget = Budget()
    assert [budget.take(10.0) for _ in range(6)] == [True] * 5 + [False]
    assert budget.wait_s() == pytest.approx(0.2)
    assert budget.take(10.25)
    assert sum(budget.take(60.0) for _ in range(50)) == 5, "no more than that is saved up"


async def test_the_same_event_is_counted_up_at_most_once_a_minute(
    kmock: kmocks.RawHandler, kube: Kube
) -> None:
    kmock["post"] << Answer(status=201, payload={})
    kmock["patch"] << {}
    writer = EventWriter(kube, "me")
    event = Event(walcluster(), names.WALCLUSTER, "NodeJoined", "demo-node-0")
    for seconds in (0, 1, 59, 60, 61, 120):
        writer.tell(event, NOW + timedelta(seconds=seconds))
    await writer.flush()
    assert len(kmock["post"]) == 1
    assert [request.data["count"] for request in kmock["patch"]] == [2, 3]


async def test_an_event_that_cannot_be_written_holds_nothing_up(
    kmock: kmocks.RawHandler, kube: Kube
) -> None:
    kmock["post"] << refuse(403)
    writer = EventWriter(kube, "me")
    writer.tell(Event(walcluster(), "WALCluster", "A", "b"), NOW)
    assert len(kmock) == 0
    await writer.flush()
    assert len(kmock["post"]) == 1


async def test_an_event_that_makes_no_sense_is_dropped_and_the_next_one_told(
    kmock: kmocks.RawHandler, kube: Kube
) -> None:
    """One task writes for all clusters: what it failed of would end the operator."""
    kmock["post"] << Answer(status=201, payload={})
    writer = EventWriter(kube, "me")
    writer.tell(Event({"metadata": {"name": "no-uid"}}, names.WALCLUSTER, "A", "b"), NOW)
    writer.tell(Event(walcluster(), names.WALCLUSTER, "A", "b"), NOW)
    await writer.flush()
    assert len(kmock["post"]) == 1


class Seen:
    """What a watcher tells."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.lists_came: list[float] = []
        self.news = asyncio.Condition()

    @property
    def listeners(self) -> Listeners:
        return Listeners(self._listed, self._event, lambda: self._tell("break"))

    async def until(self, *told: str) -> None:
        """Returns once `told` is the end of what was told."""
        async with asyncio.timeout(10), self.news:
            await self.news.wait_for(lambda: self.told[-len(told) :] == list(told))

    def _listed(self, items: list[Object], came: float) -> None:
        self.lists_came.append(came)
        self._tell("list " + ",".join(item["metadata"]["name"] for item in items))

    def _event(self, event: WatchEvent, _now: float) -> None:
        self._tell(f"{event.type} {event.object['metadata'].get('name', '')}".strip())

    def _tell(self, what: str) -> None:
        self.told.append(what)
        asyncio.get_running_loop().create_task(self._notify())

    async def _notify(self) -> None:
        async with self.news:
            self.news.notify_all()


def event(kind: str, name: str, version: int) -> Object:
    metadata = {"name": name, "resourceVersion": str(version)} if name else {}
    return {"type": kind, "object": {"metadata": metadata | {"resourceVersion": str(version)}}}


class Watching:
    """Runs a watcher against scripted lists and watches."""

    def __init__(self, kmock: kmocks.RawHandler, kube: Kube, *watches: object) -> None:
        self.seen = Seen()
        self.lists = 0
        self.versions: list[str] = []
        self._watches = list(watches)
        self._watcher = Watcher(kube, ALL, "x", self.seen.listeners, watch_s=1)
        kmock["get"] << self._answer

    def _answer(self, request: kmocks.Request) -> object:
        if "watch" not in request.params:
            self.lists += 1
            return listing([ClusterObjects().grant(self.lists)], str(100 * self.lists))
        self.versions.append(request.params["resourceVersion"])
        return self._watches.pop(0) if self._watches else self._silence()

    async def _silence(self) -> AsyncIterator[bytes]:
        yield b"\n"
        await asyncio.sleep(60)

    async def __aenter__(self) -> Watching:
        self._task = asyncio.create_task(self._watcher.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_a_watch_goes_on_where_the_last_one_ended(
    kmock: kmocks.RawHandler, kube: Kube
) -> None:
    first = (event("ADDED", "a", 101), event("BOOKMARK", "", 105))
    second = (event("DELETED", "a", 106),)
    async with Watching(kmock, kube, first, second) as watching:
        await watching.seen.until("list demo-pch-1", "ADDED a", "BOOKMARK", "DELETED a")
    assert watching.versions[:2] == ["100", "105"]
    assert watching.lists == 1, "the server ends a watch now and then: that is no break"


async def test_a_list_counts_from_when_it_came(kmock: kmocks.RawHandler, kube: Kube) -> None:
    """Sessions get one duration from then: who asked early may have waited for most of it."""
    answered = 0.0

    async def slowly(_request: kmocks.Request) -> object:
        nonlocal answered
        await asyncio.sleep(0.3)
        answered = asyncio.get_running_loop().time()
        return listing([], "100")

    seen = Seen()
    kmock["get"] << slowly
    task = asyncio.create_task(Watcher(kube, ALL, "x", seen.listeners, watch_s=1).run())
    await seen.until("list ")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen.lists_came[0] >= answered


@pytest.mark.parametrize("how", ["event", "status"])
async def test_gone_leads_to_a_new_list(kmock: kmocks.RawHandler, kube: Kube, how: str) -> None:
    status = {"kind": "Status", "code": 410, "message": "too old resource version"}
    gone = ({"type": "ERROR", "object": status},) if how == "event" else refuse(410)
    async with Watching(kmock, kube, gone) as watching:
        await watching.seen.until("list demo-pch-1", "break", "list demo-pch-2")
    assert watching.versions[0] == "100"


async def test_a_watch_that_hangs_is_cut_off(
    kmock: kmocks.RawHandler, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_module, "CALL_TIMEOUT_S", 0.2)
    async with Watching(kmock, kube) as watching:
        await watching.seen.until("list demo-pch-1", "break", "list demo-pch-2")


async def test_a_broken_stream_leads_to_a_new_list(kmock: kmocks.RawHandler, kube: Kube) -> None:
    async with Watching(kmock, kube, (b'{"type": "ADDED", "obj',)) as watching:
        await watching.seen.until("list demo-pch-1", "break", "list demo-pch-2")


async def test_a_large_event_is_read_whole(kmock: kmocks.RawHandler, kube: Kube) -> None:
    large = event("MODIFIED", "big", 102)
    large["object"]["metadata"]["annotations"] = {"a": "x" * 3_000_000}
    async with Watching(kmock, kube, (large,)) as watching:
        await watching.seen.until("list demo-pch-1", "MODIFIED big")


class EndsAtOnce(MemoryKube):
    """Every watch ends as soon as it began, without an error."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[float] = []
        self.lists = 0
        self.fourth = asyncio.Event()

    async def list(self, path: str, selector: str = "") -> tuple[list[Object], str]:
        self.lists += 1
        return await super().list(path, selector)

    async def watch(self, *_: object) -> None:
        self.began.append(asyncio.get_running_loop().time())
        if len(self.began) == 4:
            self.fourth.set()


async def test_a_server_that_ends_watches_at_once_is_asked_ever_less() -> None:
    kube = EndsAtOnce()
    watching = asyncio.create_task(Watcher(kube, ALL, "", Seen().listeners).run())
    async with asyncio.timeout(10):
        await kube.fourth.wait()
    watching.cancel()
    pauses = [later - earlier for earlier, later in itertools.pairwise(kube.began)]
    assert all(pause >= least for pause, least in zip(pauses, (0.19, 0.39, 0.79), strict=True))
    assert kube.lists == 1, "what came between is in the next watch"
