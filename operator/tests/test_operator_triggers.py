"""What pokes a WALCluster and what does not; and what makes the process sick."""

from __future__ import annotations

import asyncio
import copy
import json

import aiohttp
import pytest

from walplane.testkit.kube_objects import ClusterObjects, Object, walcluster
from walplane.testkit.standalone import free_port, loopbacks
from walplane_operator.api import names
from walplane_operator.apply.kube import WatchEvent
from walplane_operator.handlers.health import serve
from walplane_operator.handlers.main import Operator
from walplane_operator.handlers.metrics import Metrics
from walplane_operator.handlers.reconcile import ClusterKey
from walplane_operator.handlers.settings import Settings
from walplane_operator.handlers.triggers import (
    NUMBERS_DELAY_S,
    KopfTriggers,
    LeaseTriggers,
    WorkloadTriggers,
)
from walplane_operator.plan.sessions import SessionMonitor
from walplane_operator.testkit import MemoryKube

KEY = ("default", "demo")


class Pokes:
    def __init__(self) -> None:
        self.made: list[tuple[ClusterKey, float]] = []

    def __call__(self, key: ClusterKey, delay_s: float) -> None:
        self.made.append((key, delay_s))

    def take(self) -> list[tuple[ClusterKey, float]]:
        made, self.made = self.made, []
        return made


class Leases:
    """A cluster's Leases and the triggers that watch them."""

    def __init__(self) -> None:
        self.objects = ClusterObjects()
        for ordinal in range(3):
            self.objects.node(ordinal, channels={0: {"term": 1, "vchannels": 2}})
        self.pokes = Pokes()
        self.monitor = SessionMonitor()
        self.triggers = LeaseTriggers(self.pokes, self.monitor, Metrics())
        self.now = 100.0
        self.triggers.listeners.on_list(list(self.objects.leases.values()), self.now)
        self.pokes.take()

    def tell(self, kind: str, raw: Object) -> list[tuple[ClusterKey, float]]:
        self.now += 1
        self.triggers.listeners.on_event(WatchEvent(kind, raw), self.now)
        return self.pokes.take()

    def renewed(self, ordinal: int, **changes: object) -> Object:
        raw = copy.deepcopy(self.objects.leases[f"demo-node-{ordinal}"])
        raw["metadata"]["resourceVersion"] += "1"
        report = json.loads(raw["metadata"]["annotations"][names.ANNOTATION_REPORT])
        report["channels"][self.objects.channel(0)] |= changes
        report |= {key: value for key, value in changes.items() if key == "draining"}
        raw["metadata"]["annotations"][names.ANNOTATION_REPORT] = json.dumps(report)
        self.objects.leases[f"demo-node-{ordinal}"] = raw
        return raw


def operators_own() -> Object:
    labels = {names.LABEL_LEASE: names.LEASE_OPERATOR}
    return {"metadata": {"name": "o", "namespace": "ops", "labels": labels}, "spec": {}}


def test_a_renewal_alone_pokes_nobody() -> None:
    leases = Leases()
    assert leases.tell("MODIFIED", leases.renewed(0)) == []


def test_numbers_poke_later() -> None:
    leases = Leases()
    assert leases.tell("MODIFIED", leases.renewed(0, vchannels=3)) == [(KEY, NUMBERS_DELAY_S)]


@pytest.mark.parametrize(
    "change", [{"draining": True}, {"lastError": "x"}, {"termFloor": 9}, {"term": 2}]
)
def test_what_decides_pokes_at_once(change: Object) -> None:
    leases = Leases()
    assert leases.tell("MODIFIED", leases.renewed(0, **change)) == [(KEY, 0.0)]


def test_a_new_process_and_a_lost_one_poke_at_once() -> None:
    leases = Leases()
    leases.objects.node(1, "0000000b")
    assert leases.tell("MODIFIED", leases.objects.leases["demo-node-1"]) == [(KEY, 0.0)]
    assert leases.tell("DELETED", leases.objects.leases["demo-node-2"]) == [(KEY, 0.0)]


def test_an_assignment_pokes_at_once() -> None:
    leases = Leases()
    assert leases.tell("MODIFIED", leases.objects.grant(1, "demo-node-0_u_i")) == [(KEY, 0.0)]


def test_the_operators_own_renewals_show_that_the_watch_is_live() -> None:
    leases = Leases()
    for _ in range(3):
        assert leases.tell("MODIFIED", operators_own()) == []
        assert leases.tell("MODIFIED", leases.renewed(0)) == []
        assert leases.tell("MODIFIED", leases.renewed(1)) == []
    assert leases.now == 109, "its duration is 10"
    assert leases.tell("MODIFIED", operators_own()) == [(KEY, 0.0)], "demo-node-2 is dead"


def test_a_broken_watch_proves_nothing() -> None:
    leases = Leases()
    leases.triggers.listeners.on_break()
    leases.now += 60
    assert leases.tell("MODIFIED", leases.renewed(0)) == []


def test_pods_poke_their_cluster() -> None:
    pokes = Pokes()
    listeners = WorkloadTriggers(pokes, "Pod", Metrics()).listeners
    pod = ClusterObjects().pod("demo-node-0", "node")
    listeners.on_list([pod], 0.0)
    listeners.on_event(WatchEvent("MODIFIED", pod), 0.0)
    bookmark = {"metadata": {"resourceVersion": "7"}}
    listeners.on_event(WatchEvent("BOOKMARK", bookmark), 0.0)
    assert pokes.take() == [(KEY, 0.0), (KEY, 0.0)]


def test_kopf_pokes_when_more_than_the_status_changes() -> None:
    pokes = Pokes()
    triggers = KopfTriggers(pokes)
    raw = walcluster()
    triggers.told(names.WALCLUSTER, None, raw)
    assert pokes.take() == [(KEY, 0.0)]
    raw["metadata"]["resourceVersion"] = "2"
    triggers.told(names.WALCLUSTER, "MODIFIED", raw)
    assert pokes.take() == []
    raw["metadata"]["annotations"] = {names.ANNOTATION_ADOPT: "x"}
    triggers.told(names.WALCLUSTER, "MODIFIED", raw)
    triggers.told(names.WALCLUSTER, "DELETED", raw)
    assert pokes.take() == [(KEY, 0.0), (KEY, 0.0)]


def test_a_pchannel_pokes_the_cluster_it_names() -> None:
    pokes = Pokes()
    KopfTriggers(pokes).told(names.PCHANNEL, "ADDED", ClusterObjects().pchannels[2])
    assert pokes.take() == [(KEY, 0.0)]


async def test_a_dead_kopf_watch_is_noticed() -> None:
    """A list shows a version that kopf never tells of."""
    triggers = KopfTriggers(Pokes(), patience_s=60)
    raw = walcluster()
    now = asyncio.get_running_loop().time()
    triggers.told(names.WALCLUSTER, None, raw)
    triggers.listed([raw])
    assert not triggers.dead(now + 1000)
    newer = copy.deepcopy(raw)
    newer["metadata"]["resourceVersion"] += "0"
    triggers.listed([newer])
    triggers.listed([newer])
    assert not triggers.dead(now + 59)
    assert triggers.dead(now + 61)
    triggers.told(names.WALCLUSTER, "MODIFIED", newer)
    assert not triggers.dead(now + 1000)


async def test_what_is_overdue_makes_the_watch_move_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays overdue while the API server is away: that must not be asked all the time."""
    operator = Operator(Settings(namespace="ops"), MemoryKube())
    now = asyncio.get_running_loop().time()
    times = iter([now - 2, now - 2, now - 2, now - 1, now - 1])
    looked, renewed = asyncio.Event(), []

    def next_expiry() -> float | None:
        when = next(times, None)
        if when is None:
            looked.set()
        return when

    monkeypatch.setattr(operator._monitor, "next_expiry", next_expiry)
    monkeypatch.setattr(operator.leader, "renew_now", lambda: renewed.append(1))
    suspecting = asyncio.create_task(operator._suspect())
    async with asyncio.timeout(10):
        await looked.wait()
    suspecting.cancel()
    assert len(renewed) == 2, "once for each"


async def test_health_answers_on_every_address() -> None:
    """The kubelet of an IPv6 cluster asks an IPv6 one."""
    host, _, _ = Settings().listen.rpartition(":")
    port = free_port()
    async with serve(f"{host}:{port}", lambda: "", Metrics()), aiohttp.ClientSession() as http:
        for address in loopbacks():
            async with http.get(f"http://{address}:{port}/healthz") as answer:
                assert answer.status == 200


async def test_health_and_metrics() -> None:
    sick = ""
    metrics = Metrics()
    metrics.grants.labels("Initial").inc(3)
    async with (
        serve("127.0.0.1:0", lambda: sick, metrics) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        async with http.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        sick = "a watch has stopped"
        async with http.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (503, "a watch has stopped\n")
        async with http.get("/metrics") as answer:
            assert 'walplane_operator_grants_total{reason="Initial"} 3.0' in await answer.text()
