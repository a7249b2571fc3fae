"""`walplane node` and `walplane coord` as processes on a real Pulsar, hurt one by one under load.

The API server and the operator are stand-ins on loopback; everything else is what runs in pods.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from walplane.client import StreamingClient
from walplane.lease import contract
from walplane.testkit.pod_load import PodLoad
from walplane.testkit.pods import PodCluster
from walplane.testkit.waiting import until

pytestmark = [pytest.mark.pulsar, pytest.mark.slow, pytest.mark.timeout(240)]

LEASE_S = 3.0
PCHANNELS = 4


@pytest.fixture
def prefix() -> str:
    """Topics of this test's own."""
    return f"pods-{secrets.token_hex(4)}"


@pytest.fixture(autouse=True)
def kubeconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def terms(cluster: PodCluster) -> dict[str, tuple[int, str]]:
    found = {}
    for name in cluster.operator.pchannels:
        lease = cluster.operator.lease(name)
        assert lease is not None
        found[name] = (lease.term, lease.holder)
    return found


async def fine(load: PodLoad) -> None:
    violations = await load.verdict()
    assert violations == []
    assert load.errors == []


async def test_a_killed_node_loses_nothing_and_its_channels_move(
    pulsar_url: str, prefix: str, tmp_path: Path
) -> None:
    async with PodCluster.running(
        pulsar_url, tmp_path, prefix=prefix, pchannels=PCHANNELS, lease_s=LEASE_S
    ) as cluster:
        await cluster.all_served()
        assert sorted(cluster.operator.holders().values()) == [
            *("demo-node-0", "demo-node-0", "demo-node-1", "demo-node-1"),
        ]
        async with PodLoad.running(cluster.service.address, PCHANNELS) as load:
            await load.more(50)
            before = terms(cluster)
            await cluster.nodes["demo-node-0"].kill()
            await load.more(50)
            gap = load.longest_gap()
            after = terms(cluster)
            for pchannel, (term, holder) in before.items():
                moved = contract.pod_of(holder) == "demo-node-0"
                assert after[pchannel][0] == term + moved, "what nobody lost keeps its term"
            print(f"longest gap {gap:.2f} s with a lease of {LEASE_S:g} s")
            assert gap <= LEASE_S + 5

            # The container comes back in the same pod: another incarnation, other terms.
            await cluster.nodes["demo-node-0"].start()
            await cluster.nodes["demo-node-1"].kill()
            await load.more(50)
            assert set(cluster.operator.holders().values()) == {"demo-node-0"}
            await cluster.nodes["demo-node-0"].kill()
            await cluster.nodes["demo-node-0"].start()
            await load.more(50)
            assert all(term > after[name][0] for name, (term, _) in terms(cluster).items())
        await fine(load)


async def test_a_node_that_is_stopped_for_three_leases_acknowledges_nothing_when_it_wakes(
    pulsar_url: str, prefix: str, tmp_path: Path
) -> None:
    async with PodCluster.running(
        pulsar_url, tmp_path, prefix=prefix, pchannels=PCHANNELS, lease_s=LEASE_S
    ) as cluster:
        await cluster.all_served()
        async with PodLoad.running(cluster.service.address, PCHANNELS) as load:
            await load.more(50)
            cluster.nodes["demo-node-0"].signal(signal.SIGSTOP)
            await asyncio.sleep(3 * LEASE_S)
            cluster.nodes["demo-node-0"].signal(signal.SIGCONT)
            await load.more(100)
            assert set(cluster.operator.holders().values()) == {"demo-node-1"}
            assert cluster.nodes["demo-node-0"].running, "it lives on, and takes new grants"
            await cluster.nodes["demo-node-1"].kill()
            await load.more(50)
        await fine(load)


async def test_appends_and_terms_outlive_the_api_server(
    pulsar_url: str, prefix: str, tmp_path: Path
) -> None:
    async with PodCluster.running(
        pulsar_url, tmp_path, prefix=prefix, pchannels=PCHANNELS, lease_s=LEASE_S
    ) as cluster:
        await cluster.all_served()
        async with PodLoad.running(cluster.service.address, PCHANNELS) as load:
            await load.more(20)
            before = terms(cluster)
            await cluster.api.stop()
            began = time.monotonic()
            while time.monotonic() - began < 3 * LEASE_S:
                await load.more(20, seconds=2 * LEASE_S)
            async with StreamingClient.connect(cluster.service.address) as wal:
                vchannel = next(iter(load.acknowledged_at))
                payloads = [each.payload async for each in wal.read(vchannel, follow=False)]
                assert len(payloads) > 40
            await cluster.api.start()
            await asyncio.sleep(2 * LEASE_S)
            assert terms(cluster) == before
            assert load.longest_gap() < LEASE_S
        await fine(load)
        assert all(each.running for each in [*cluster.nodes.values(), *cluster.coords.values()])


async def test_nodes_are_drained_one_after_the_other_without_an_error(
    pulsar_url: str, prefix: str, tmp_path: Path
) -> None:
    async with PodCluster.running(
        pulsar_url, tmp_path, prefix=prefix, pchannels=PCHANNELS, lease_s=LEASE_S
    ) as cluster:
        await cluster.all_served()
        async with PodLoad.running(cluster.service.address, PCHANNELS) as load:
            await load.more(20)
            cluster.nodes["demo-node-1"].signal(signal.SIGTERM)
            assert await cluster.nodes["demo-node-1"].ended() == 0
            assert "demo-node-1" not in cluster.api.leases, "its session is over"
            assert set(cluster.operator.holders().values()) == {"demo-node-0"}
            await load.more(20)

            # Nobody takes over from the last one: it closes in good order when its time is up.
            late = await cluster.add_node("demo-node-2", WALPLANE_GRACE_SECONDS="12")
            cluster.nodes["demo-node-0"].signal(signal.SIGTERM)
            assert await cluster.nodes["demo-node-0"].ended() == 0
            await load.more(20)
            cluster.operator.paused = True
            late.signal(signal.SIGTERM)
            assert await late.ended() == 0
            assert set(cluster.operator.holders()) == set(), "given back, though nobody asked"
            cluster.operator.paused = False
            await cluster.nodes["demo-node-0"].start()
            await load.more(20)
        await fine(load)


async def test_a_coordinator_that_dies_is_followed_by_the_other(
    pulsar_url: str, prefix: str, tmp_path: Path
) -> None:
    async with PodCluster.running(
        pulsar_url, tmp_path, coords=2, prefix=prefix, pchannels=PCHANNELS, lease_s=LEASE_S
    ) as cluster:
        await cluster.all_served()
        async with PodLoad.running(cluster.service.address, PCHANNELS) as load:
            await load.more(20)
            first = cluster.leading()
            before = terms(cluster)
            await cluster.coords[first].kill()
            await load.more(20)
            await until(lambda: cluster.leading() not in ("", first), 30)
            second = cluster.leading()
            async with StreamingClient.connect(cluster.service.address, timeout=20) as wal:
                info = await wal.create_collection("after", 2)
                assert len(info.vchannels) == 2
            assert load.longest_gap() < LEASE_S, "appends do not need a coordinator"
            assert terms(cluster) == before

            # A takeover needs one: it waits for the coordinator that is on its way back.
            await cluster.coords[first].start()
            cluster.coords[second].signal(signal.SIGTERM)
            await cluster.nodes["demo-node-0"].kill()
            assert await cluster.coords[second].ended() == 0
            await until(lambda: cluster.leading() == first, 30)
            await load.more(20)
            assert second not in cluster.api.leases
        await fine(load)


async def test_a_coordinator_that_wakes_from_a_long_stop_ends(
    pulsar_url: str, prefix: str, tmp_path: Path
) -> None:
    async with PodCluster.running(
        pulsar_url, tmp_path, coords=2, nodes=1, prefix=prefix, pchannels=2, lease_s=LEASE_S
    ) as cluster:
        await cluster.all_served()
        first = cluster.leading()
        cluster.coords[first].signal(signal.SIGSTOP)
        await until(lambda: cluster.leading() not in ("", first), 30)
        async with PodLoad.running(cluster.service.address, 2) as load:
            await load.more(20)
            cluster.coords[first].signal(signal.SIGCONT)
            assert await cluster.coords[first].ended() == 1
            await load.more(20)
        await fine(load)


async def test_a_second_cluster_on_the_same_topics_disturbs_nobody_until_it_may_adopt_them(
    pulsar_url: str, prefix: str, tmp_path: Path
) -> None:
    async with PodCluster.running(
        pulsar_url, tmp_path, nodes=1, prefix=prefix, pchannels=2, lease_s=LEASE_S
    ) as cluster:
        await cluster.all_served()
        rival = {"WALPLANE_CLUSTER": "rival", "WALPLANE_CLUSTER_UID": "uid-of-rival"}
        async with PodLoad.running(cluster.service.address, 2) as load:
            await load.more(20)
            before = terms(cluster)
            intruder = await cluster.add_coord("rival-coord-0", **rival)
            await until(lambda: backend_of(cluster, "rival-coord-0") == "ClaimedByOther", 30)
            await load.more(20)
            assert terms(cluster) == before
            assert cluster.leading() == "demo-coord-0"
            assert load.longest_gap() < 1.0
            await intruder.kill()
        await fine(load)
        for process in [*cluster.nodes.values(), *cluster.coords.values()]:
            await process.kill()
        await cluster.add_coord("rival-coord-1", **rival, WALPLANE_ADOPT="uid-of-demo")
        await until(lambda: report_of(cluster, "rival-coord-1").get("leading") is True, 30)
        assert backend_of(cluster, "rival-coord-1") == ""
        await cluster.coords["demo-coord-0"].start()
        await until(lambda: backend_of(cluster, "demo-coord-0") == "ClaimedByOther", 30)


def report_of(cluster: PodCluster, pod: str) -> dict[str, Any]:
    lease = cluster.api.leases.get(pod)
    content: dict[str, Any] = (
        json.loads(contract.annotation(lease, contract.REPORT)) if lease else {}
    )
    return content


def backend_of(cluster: PodCluster, pod: str) -> str | None:
    """Why its meta topic is not open; empty when it is, None when it has not said anything."""
    said = report_of(cluster, pod).get("backend")
    return None if said is None else str(said["reason"])
