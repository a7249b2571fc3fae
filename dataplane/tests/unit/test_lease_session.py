"""Sessions and the coordinator's Lease, against an API server over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from walplane.lease import contract
from walplane.lease.contract import Identity
from walplane.lease.kube import KubeLeases
from walplane.lease.leader import Leadership
from walplane.lease.metrics import SessionCollector
from walplane.lease.report import NodeReport
from walplane.lease.session import Session
from walplane.lease.store import ApiError
from walplane.lease.watch import LeaseWatch
from walplane.runtime import Runtime
from walplane.testkit.kube_api import KubeApi
from walplane.testkit.waiting import until

ME = Identity("demo-node-0", "uid-1", "aaaaaaaa")
AFTER_ME = Identity("demo-node-0", "uid-1", "bbbbbbbb")
COORD_A = Identity("demo-coord-a", "uid-2", "aaaaaaaa")
COORD_B = Identity("demo-coord-b", "uid-3", "bbbbbbbb")
LEASE_S = 1.0


class Clock:
    """A monotonic clock that a test moves, over the real one."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def runtime(self) -> Runtime:
        system = Runtime.system()
        return Runtime(system.wall_ms, lambda: system.monotonic() + self.ahead, system.random)


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeApi]:
    async with KubeApi.serving() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        yield api


@pytest.fixture
async def store(api: KubeApi) -> AsyncIterator[KubeLeases]:
    async with KubeLeases.connect("test", 0.5) as store:
        yield store


class Running:
    """A session that runs."""

    def __init__(self, store: KubeLeases, identity: Identity, duration_s: float) -> None:
        self.clock = Clock()
        self.address = "10.0.0.1:7651"
        self.session = Session(
            *(store, identity, "demo", contract.NODE, duration_s, self.clock.runtime()),
            lambda: NodeReport(address=self.address),
        )


@asynccontextmanager
async def session(
    store: KubeLeases, identity: Identity = ME, duration_s: float = LEASE_S
) -> AsyncIterator[Running]:
    running = Running(store, identity, duration_s)
    task = asyncio.create_task(running.session.run())
    try:
        async with asyncio.timeout(10):
            await running.session.told()
        yield running
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_session_says_who_lives_where(api: KubeApi, store: KubeLeases) -> None:
    async with session(store):
        lease = api.leases["demo-node-0"]
        metadata, spec = lease["metadata"], lease["spec"]
        assert metadata["labels"] == {
            "walplane.dev/lease": "session",
            "walplane.dev/cluster": "demo",
            "walplane.dev/component": "node",
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "name": "demo-node-0", "uid": "uid-1"}
        assert metadata["ownerReferences"] == [pod]
        assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == (str(ME), 1)
        assert json.loads(metadata["annotations"][contract.REPORT])["address"] == "10.0.0.1:7651"


async def test_its_age_is_that_of_the_latest_renewal(store: KubeLeases) -> None:
    running = Running(store, ME, 30.0)
    (family,) = SessionCollector(running.session).collect()
    assert family.samples == []
    async with session(store, duration_s=30.0) as running:
        running.clock.ahead += 7.0
        (family,) = SessionCollector(running.session).collect()
        assert [7.0 <= sample.value < 17.0 for sample in family.samples] == [True]


async def test_it_is_renewed_every_third_and_at_once_when_there_is_something_to_say(
    api: KubeApi, store: KubeLeases
) -> None:
    async with session(store, duration_s=30.0) as running:
        running.address = "10.0.0.2:7651"
        running.session.changed()
        async with asyncio.timeout(3):
            await running.session.told()
        assert "10.0.0.2" in api.leases["demo-node-0"]["metadata"]["annotations"][contract.REPORT]
        assert running.session.renewals == 2
        for _ in range(50):
            running.session.changed()
        await running.session.told()
        assert running.session.renewals <= 4, "what changes together leaves together"
    async with session(store, duration_s=0.6) as running:
        await until(lambda: running.session.renewals >= 4, 5)


async def test_it_lives_by_its_own_clock_from_before_the_renewal(store: KubeLeases) -> None:
    async with session(store, duration_s=60.0) as running:
        assert running.session.live
        running.clock.ahead = 59.0
        assert running.session.live
        running.clock.ahead = 60.1
        assert not running.session.live
        running.session.changed()
        await running.session.told()
        assert running.session.live


async def test_an_api_server_that_is_away_ends_nothing(api: KubeApi, store: KubeLeases) -> None:
    async with session(store, duration_s=0.9) as running:
        await api.stop()
        await until(lambda: not running.session.live, 5)
        assert not running.session.ended.done()
        await api.start()
        await until(lambda: running.session.live, 10)
        assert contract.holder_of(api.leases["demo-node-0"]) == str(ME)


async def test_a_renewal_without_an_answer_is_sent_again_without_a_look(
    api: KubeApi, store: KubeLeases
) -> None:
    """Right after an outage each call counts; had the first one come, this one is a conflict."""
    methods: list[str] = []

    def hang_once(request: web.Request) -> float | None:
        methods.append(request.method)
        return 1.0 if methods.count("PUT") == 1 and request.method == "PUT" else None

    async with session(store, duration_s=0.9) as running:
        api.faults.append(hang_once)
        before = running.session.renewals
        await until(lambda: running.session.renewals > before, 10)
    assert methods[:2] == ["PUT", "PUT"]


@pytest.mark.parametrize("status", [401, 403, 409, 429, 500])
async def test_refused_renewals_are_tried_again(
    api: KubeApi, store: KubeLeases, status: int
) -> None:
    async with session(store, duration_s=0.9) as running:
        api.answer(status, times=3)
        before = running.session.renewals
        await until(lambda: running.session.renewals > before, 10)
        assert not running.session.ended.done()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_session_knows_that_its_rights_are_gone(
    api: KubeApi, store: KubeLeases, status: int
) -> None:
    async with session(store, duration_s=0.6) as running:
        refused = asyncio.create_task(running.session.refused(3.0))
        api.answer(403, times=3)
        before = running.session.renewals
        await until(lambda: running.session.renewals > before, 10)
        running.clock.ahead += 10.0
        api.answer(500, times=2)
        before = running.session.renewals
        await until(lambda: running.session.renewals > before, 10)
        assert not refused.done(), "a starting API server forbids for a moment"
        api.answer(status, times=1000)
        await until(lambda: running.session._forbidden_since is not None, 10)
        running.clock.ahead += 3.0
        async with asyncio.timeout(10):
            await refused
        assert not running.session.ended.done()


async def test_a_deleted_lease_is_made_again_by_the_same_session(
    api: KubeApi, store: KubeLeases
) -> None:
    async with session(store) as running:
        api.remove("demo-node-0")
        await until(lambda: "demo-node-0" in api.leases, 10)
        assert contract.holder_of(api.leases["demo-node-0"]) == str(ME)
        assert not running.session.ended.done()


async def test_one_404_is_not_believed(api: KubeApi, store: KubeLeases) -> None:
    async with session(store) as running:
        api.answer(409, times=1, method="PUT")
        api.answer(404, times=1, method="GET", name="demo-node-0")
        before = running.session.renewals
        await until(lambda: running.session.renewals > before, 10)
        assert api.requests.count(("POST", "")) == 1, "made once, at the start"


async def test_the_next_process_of_the_pod_ends_the_session_of_the_one_before(
    api: KubeApi, store: KubeLeases
) -> None:
    async with session(store) as before, session(store, AFTER_ME) as after:
        async with asyncio.timeout(10):
            reason = await before.session.ended
        assert str(AFTER_ME) in str(reason)
        assert not before.session.live
        assert after.session.live
        version = api.leases["demo-node-0"]["metadata"]["resourceVersion"]
        await before.session.end()
        assert "demo-node-0" in api.leases, "it writes no Lease any more"
        assert contract.holder_of(api.leases["demo-node-0"]) == str(AFTER_ME)
        assert int(api.leases["demo-node-0"]["metadata"]["resourceVersion"]) >= int(version)


async def test_an_end_in_good_order_deletes_the_lease(api: KubeApi, store: KubeLeases) -> None:
    async with session(store) as running:
        pass
    await running.session.end()
    assert api.leases == {}
    assert not running.session.live


# --- the coordinator's Lease ---------------------------------------------------------------------


class Candidate:
    """One coordinator with its watch."""

    def __init__(self, store: KubeLeases, identity: Identity) -> None:
        self.ended: set[str] = set()
        self.leadership = Leadership(
            *(store, identity, "demo", LEASE_S, Runtime.system()),
            ended=lambda holder: holder in self.ended,
            owner=contract.cluster_reference("demo", "uid-of-demo"),
        )
        self.watch = LeaseWatch(
            *(store, contract.selector("demo"), Runtime.system()),
            lambda _, body: self.leadership.observe(body),
            self.leadership.set_live,
        )


@asynccontextmanager
async def candidate(store: KubeLeases, identity: Identity) -> AsyncIterator[Candidate]:
    candidate = Candidate(store, identity)
    watching = asyncio.create_task(candidate.watch.run())
    try:
        await candidate.watch.synced.wait()
        yield candidate
    finally:
        watching.cancel()
        await asyncio.wait({watching})


@asynccontextmanager
async def leading(candidate: Candidate) -> AsyncIterator[None]:
    async with asyncio.timeout(10):
        await candidate.leadership.acquire()
    keeping = asyncio.create_task(candidate.leadership.keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


def leader(api: KubeApi) -> str:
    return contract.holder_of(api.leases["demo-coord"])


async def test_one_leads_and_the_other_waits_until_it_lets_go(
    api: KubeApi, store: KubeLeases
) -> None:
    async with candidate(store, COORD_A) as a, candidate(store, COORD_B) as b:
        async with leading(a):
            waiting = asyncio.create_task(b.leadership.acquire())
            await asyncio.sleep(2.5 * LEASE_S)
            assert not waiting.done(), "renewals keep it"
            assert leader(api) == str(COORD_A)
        began = asyncio.get_running_loop().time()
        await a.leadership.release()
        async with asyncio.timeout(5):
            await waiting
        assert asyncio.get_running_loop().time() - began < LEASE_S, "told by the watch"
        assert leader(api) == str(COORD_B)


async def test_one_that_renews_no_more_is_followed_after_a_full_duration(
    api: KubeApi, store: KubeLeases
) -> None:
    async with candidate(store, COORD_A) as a, candidate(store, COORD_B) as b:
        async with leading(a):
            pass
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(10):
            await b.leadership.acquire()
        assert asyncio.get_running_loop().time() - began >= 0.9 * LEASE_S
        async with asyncio.timeout(5):
            await a.leadership.keep()
        assert a.leadership.lost.result().code.name == "ON_SHUTDOWN"
        await a.leadership.release()
        assert leader(api) == str(COORD_B), "what is lost is not let go of"


async def test_one_whose_session_is_over_is_followed_at_once(store: KubeLeases) -> None:
    async with candidate(store, COORD_A) as a, candidate(store, COORD_B) as b:
        async with leading(a):
            pass
        b.ended.add(str(COORD_A))
        b.leadership.look()
        async with asyncio.timeout(0.8 * LEASE_S):
            await b.leadership.acquire()


async def test_one_that_died_before_the_watch_began_is_followed_at_once(store: KubeLeases) -> None:
    async with candidate(store, COORD_A) as a, leading(a):
        pass
    async with candidate(store, COORD_B) as b:
        b.ended.add(str(COORD_A))
        async with asyncio.timeout(0.8 * LEASE_S):
            await b.leadership.acquire()


async def test_a_watch_that_lags_knows_nobodys_end(api: KubeApi, store: KubeLeases) -> None:
    async with candidate(store, COORD_B) as b:
        b.ended.add(str(COORD_A))  # of a session that the watch has not shown it knows nothing
        api.silent = True
        async with candidate(store, COORD_A) as a, leading(a):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.5 * LEASE_S):
                    await b.leadership.acquire()
            assert leader(api) == str(COORD_A)
        async with asyncio.timeout(5):
            await b.leadership.acquire()  # renewals are read all the same, and there are none


async def test_nobody_is_followed_while_the_watch_is_lost(store: KubeLeases) -> None:
    async with candidate(store, COORD_A) as a, candidate(store, COORD_B) as b:
        async with leading(a):
            pass
        b.leadership.set_live(False)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5 * LEASE_S):
                await b.leadership.acquire()
        b.leadership.set_live(True)
        async with asyncio.timeout(5):
            await b.leadership.acquire()


async def test_a_leader_leads_on_while_the_api_server_is_away(
    api: KubeApi, store: KubeLeases
) -> None:
    async with candidate(store, COORD_A) as a, leading(a):
        await api.stop()
        await asyncio.sleep(2 * LEASE_S)
        assert not a.leadership.lost.done()
        await api.start()
        await asyncio.sleep(LEASE_S)
        assert not a.leadership.lost.done()
        assert leader(api) == str(COORD_A)


async def test_its_lease_goes_with_the_cluster(api: KubeApi, store: KubeLeases) -> None:
    async with candidate(store, COORD_A) as a, leading(a):
        [owner] = api.leases["demo-coord"]["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("WALCluster", "demo", "uid-of-demo")


async def test_a_leader_whose_lease_was_deleted_makes_it_anew(
    api: KubeApi, store: KubeLeases
) -> None:
    async with candidate(store, COORD_A) as a, leading(a):
        await store.delete(api.leases["demo-coord"])
        await until(lambda: "demo-coord" in api.leases, 5)
        assert leader(api) == str(COORD_A)
        assert not a.leadership.lost.done()


async def test_two_that_want_it_at_once_do_not_both_get_it(api: KubeApi, store: KubeLeases) -> None:
    async with candidate(store, COORD_A) as a, candidate(store, COORD_B) as b:
        both = {asyncio.create_task(each.leadership.acquire()) for each in (a, b)}
        done, waiting = await asyncio.wait(both, timeout=0.6 * LEASE_S)
        assert (len(done), len(waiting)) == (1, 1)
        for task in waiting:
            task.cancel()
        assert leader(api) in (str(COORD_A), str(COORD_B))


async def test_a_session_can_not_be_ended_while_the_api_server_is_away(
    api: KubeApi, store: KubeLeases
) -> None:
    async with session(store) as running:
        pass
    await api.stop()
    with pytest.raises(ApiError):
        await running.session.end()
