"""A node follows its Leases: a fake host of logs, the real client, an API server over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from walplane.lease import contract
from walplane.lease.contract import Body, PChannelLease
from walplane.lease.decide import Mode, Phase
from walplane.lease.follower import ChannelFollower, Follower
from walplane.lease.kube import KubeLeases
from walplane.lease.watch import LeaseWatch
from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.testkit.kube_api import KubeApi
from walplane.testkit.waiting import until
from walplane.wal.ports import StaleTerm

ME = "demo-node-0_uid_aaaaaaaa"
EARLIER_ME = "demo-node-0_uid_bbbbbbbb"
OTHER = "demo-node-1_uid_cccccccc"
P0, P1 = "demo_0", "demo_1"


class Host:
    """Opens and closes nothing, but remembers what it was asked.

    Attributes:
        held: term by PChannel.
        calls: what was asked, in order.
        opening: while set, opens wait for it.
        closing: while set, releases wait for it.
        failure: what opens fail with.
    """

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.calls: list[tuple[str, str, int]] = []
        self.opening: asyncio.Event | None = None
        self.closing: asyncio.Event | None = None
        self.failure: Exception | None = None

    async def assign(self, pchannel: str, term: int) -> None:
        self.calls.append(("assign", pchannel, term))
        if self.opening is not None:
            await self.opening.wait()
        if self.failure is not None:
            raise self.failure
        self.held[pchannel] = term

    async def release(self, pchannel: str, term: int) -> None:
        self.calls.append(("release", pchannel, term))
        if self.closing is not None:
            await self.closing.wait()
        self.held.pop(pchannel, None)

    def stop(self, pchannel: str, reason: WalError) -> None:
        self.calls.append(("stop", pchannel, self.held.pop(pchannel, 0)))
        assert reason.code is ErrorCode.CHANNEL_FENCED


class World:
    """The follower of one node and what surrounds it."""

    def __init__(self, api: KubeApi, store: KubeLeases) -> None:
        self.api = api
        self.host = Host()
        self.told: list[str] = []
        self.may_open = asyncio.Event()
        self.may_open.set()
        runtime = Runtime.system()
        self.follower = Follower(
            *(store, self.host, ME, runtime),
            may_open=self.allowed,
            reported=self.reported,
            on_change=lambda: self.told.append("changed"),
        )
        selector = contract.selector("demo", contract.PCHANNEL)
        self.watch = LeaseWatch(store, selector, runtime, self.follower.observe)

    async def allowed(self, _lease: PChannelLease) -> None:
        await self.may_open.wait()

    async def reported(self) -> None:
        self.told.append(f"reported, holder {self.lease(P0).holder}")

    def lease(self, pchannel: str) -> PChannelLease:
        name = contract.pchannel_lease_name("demo", pchannel)
        return PChannelLease.parse(self.api.leases[name])

    def grant(self, pchannel: str, term: int, holder: str = ME, **more: str) -> None:
        """What an operator writes: no ready-term, no release, unless the test says so."""
        name = contract.pchannel_lease_name("demo", pchannel)
        body: Body = {
            "metadata": {
                "name": name,
                "labels": {
                    contract.KIND_LABEL: contract.PCHANNEL,
                    contract.CLUSTER_LABEL: "demo",
                },
                "annotations": {contract.CHANNEL: pchannel, contract.TERM: str(term)}
                | {f"walplane.dev/{key}": text for key, text in more.items()},
            },
            "spec": {"holderIdentity": holder},
        }
        self.api.put(body)

    def ask_back(self, pchannel: str) -> None:
        lease = self.lease(pchannel)
        ready = {"ready-term": str(lease.ready_term)} if lease.ready_term else {}
        self.grant(pchannel, lease.term, lease.holder, release=str(lease.term), **ready)

    def channel(self, pchannel: str) -> ChannelFollower:
        return next(each for each in self.follower.followers if each.pchannel == pchannel)

    async def served(self, pchannel: str, term: int) -> None:
        await until(lambda: self.lease(pchannel).ready_term == term)
        assert self.lease(pchannel).holder == ME
        assert self.host.held[pchannel] == term


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeApi]:
    async with KubeApi.serving() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        yield api


@pytest.fixture
async def world(api: KubeApi) -> AsyncIterator[World]:
    async with KubeLeases.connect("test", 1.0) as store:
        world = World(api, store)
        tasks = [asyncio.create_task(job) for job in (world.watch.run(), world.follower.run())]
        await world.watch.synced.wait()
        yield world
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks), "nothing crashed"


async def test_a_grant_is_opened_and_confirmed(world: World) -> None:
    world.grant(P0, 1)
    world.grant(P1, 4, OTHER)
    await world.served(P0, 1)
    assert world.host.calls == [("assign", P0, 1)]
    assert world.follower.held == [P0]


async def test_a_grant_waits_until_the_coordinator_answers(world: World) -> None:
    world.may_open.clear()
    world.grant(P0, 1)
    await until(lambda: bool(world.follower.held))
    await asyncio.sleep(0.2)
    assert world.host.calls == [], "no log is touched"
    world.may_open.set()
    await world.served(P0, 1)


async def test_a_hanging_open_delays_no_other(world: World) -> None:
    world.host.opening = asyncio.Event()
    world.grant(P0, 1)
    await until(lambda: ("assign", P0, 1) in world.host.calls)
    hanging, world.host.opening = world.host.opening, None
    world.grant(P1, 1)
    await world.served(P1, 1)
    hanging.set()
    await world.served(P0, 1)


@pytest.mark.parametrize("holder", [OTHER, EARLIER_ME, ""])
async def test_another_holder_ends_it_at_once_and_is_left_alone(world: World, holder: str) -> None:
    world.grant(P0, 1)
    await world.served(P0, 1)
    world.grant(P0, 2, holder)
    await until(lambda: ("stop", P0, 1) in world.host.calls)
    await asyncio.sleep(0.2)
    lease = world.lease(P0)
    assert (lease.holder, lease.term, lease.ready_term) == (holder, 2, 0), "it writes nothing"
    assert not world.follower.held
    world.grant(P0, 3)
    await world.served(P0, 3)


async def test_another_holder_ends_an_open_under_way(world: World) -> None:
    world.host.opening = asyncio.Event()
    world.grant(P0, 1)
    await until(lambda: ("assign", P0, 1) in world.host.calls)
    world.grant(P0, 2, OTHER)
    await until(lambda: world.channel(P0).local.phase is Phase.IDLE)
    world.host.opening.set()
    await asyncio.sleep(0.1)
    assert world.host.held == {}
    assert world.lease(P0).holder == OTHER


async def test_another_holder_ends_it_while_it_is_being_closed(world: World) -> None:
    world.grant(P0, 1)
    await world.served(P0, 1)
    world.host.closing = asyncio.Event()
    world.ask_back(P0)
    await until(lambda: ("release", P0, 1) in world.host.calls)
    world.grant(P0, 2, OTHER)
    await until(lambda: ("stop", P0, 1) in world.host.calls)
    world.host.closing.set()
    await asyncio.sleep(0.1)
    assert world.lease(P0).holder == OTHER


async def test_a_higher_term_for_the_same_process_is_opened_anew(world: World) -> None:
    world.grant(P0, 1)
    await world.served(P0, 1)
    world.grant(P0, 2)
    await world.served(P0, 2)
    assert world.host.calls == [("assign", P0, 1), ("stop", P0, 1), ("assign", P0, 2)]


async def test_a_lower_term_is_ignored_and_reported(world: World) -> None:
    world.grant(P0, 5)
    await world.served(P0, 5)
    world.grant(P0, 4, OTHER)
    world.grant(P0, 4)
    await asyncio.sleep(0.3)
    assert world.host.held == {P0: 5}
    assert world.channel(P0).term_floor == 5
    world.grant(P0, 6)
    await world.served(P0, 6)


async def test_the_grant_of_the_process_before_is_not_resumed(world: World) -> None:
    world.grant(P0, 3, EARLIER_ME, **{"ready-term": "3"})
    await asyncio.sleep(0.3)
    assert world.host.calls == []
    assert world.lease(P0).holder == EARLIER_ME


async def test_a_missing_lease_is_no_order(world: World) -> None:
    world.grant(P0, 1)
    await world.served(P0, 1)
    world.api.remove("demo-pch-0")
    await until(lambda: world.channel(P0).lease is None)
    await asyncio.sleep(0.2)
    assert world.host.held == {P0: 1}
    world.grant(P0, 1, ME)
    await world.served(P0, 1)
    assert world.host.calls == [("assign", P0, 1)], "the same grant goes on"


async def test_what_is_asked_back_is_closed_then_given_back(world: World) -> None:
    world.grant(P0, 1)
    await world.served(P0, 1)
    world.host.closing = asyncio.Event()
    world.ask_back(P0)
    await until(lambda: ("release", P0, 1) in world.host.calls)
    await asyncio.sleep(0.1)
    assert world.lease(P0).holder == ME, "not before it is closed"
    world.host.closing.set()
    await until(lambda: world.lease(P0).holder == "")
    lease = world.lease(P0)
    assert (lease.term, lease.ready_term, lease.release) == (1, 0, 0)


async def test_an_open_that_is_asked_back_is_given_up(world: World) -> None:
    world.host.opening = asyncio.Event()
    world.grant(P0, 1)
    await until(lambda: ("assign", P0, 1) in world.host.calls)
    world.ask_back(P0)
    await until(lambda: world.lease(P0).holder == "")
    assert world.host.held == {}


async def test_a_failed_open_is_reported_first_then_given_back(world: World) -> None:
    world.host.failure = StaleTerm(P0, 1, 7)
    world.grant(P0, 1)
    await until(lambda: world.lease(P0).holder == "")
    channel = world.channel(P0)
    assert (channel.reason, channel.term_floor, channel.attempts) == ("StaleTerm", 7, 1)
    assert "term 7" in channel.last_error
    assert world.told.index("changed") < world.told.index(f"reported, holder {ME}")
    world.host.failure = RuntimeError("a bug")
    world.grant(P0, 8)
    await until(lambda: world.lease(P0).holder == "" and world.lease(P0).term == 8)
    assert (channel.reason, channel.attempts) == ("OpenFailed", 2)
    world.host.failure = None
    world.grant(P0, 9)
    await world.served(P0, 9)
    assert (channel.last_error, channel.reason, channel.attempts) == ("", "", 0)
    assert [call for call in world.host.calls if call[0] == "assign"] == [
        ("assign", P0, term) for term in (1, 8, 9)
    ], "never twice under one term"


async def test_a_log_that_stops_by_itself_is_given_back(world: World) -> None:
    world.grant(P0, 1)
    await world.served(P0, 1)
    world.host.held.clear()
    world.follower.lost(P0, 1, StaleTerm(P0, 1, 3))
    await until(lambda: world.lease(P0).holder == "")
    assert (world.channel(P0).reason, world.channel(P0).term_floor) == ("StaleTerm", 3)
    world.follower.lost(P0, 1, StaleTerm(P0, 1, 4))
    assert world.channel(P0).term_floor == 3, "what is over is over"


@pytest.mark.parametrize("status", [401, 403, 429, 500])
async def test_refused_writes_are_tried_again(world: World, status: int) -> None:
    world.api.answer(status, times=2, method="PUT")
    world.grant(P0, 1)
    await world.served(P0, 1)
    world.api.answer(status, times=2, method="PUT")
    world.ask_back(P0)
    await until(lambda: world.lease(P0).holder == "")


async def test_a_confirmation_that_crosses_another_grant_is_not_written(world: World) -> None:
    world.host.opening = asyncio.Event()
    world.grant(P0, 1)
    await until(lambda: ("assign", P0, 1) in world.host.calls)
    world.api.silent = True  # the watch shows nothing of what follows
    world.grant(P0, 2, OTHER)
    world.host.opening.set()
    await until(lambda: ("stop", P0, 1) in world.host.calls)
    lease = world.lease(P0)
    assert (lease.holder, lease.term, lease.ready_term) == (OTHER, 2, 0)


async def test_a_deleted_lease_is_not_made_by_a_confirmation(world: World) -> None:
    world.host.opening = asyncio.Event()
    world.grant(P0, 1)
    await until(lambda: ("assign", P0, 1) in world.host.calls)
    world.api.silent = True
    world.api.remove("demo-pch-0")
    world.host.opening.set()
    await asyncio.sleep(0.5)
    assert world.api.leases == {}
    assert world.host.held == {P0: 1}


async def test_it_serves_on_while_the_api_server_is_away(world: World) -> None:
    world.grant(P0, 1)
    await world.served(P0, 1)
    await world.api.stop()
    await until(lambda: not world.watch.live)
    await asyncio.sleep(0.3)
    assert world.host.held == {P0: 1}
    await world.api.start()
    await until(lambda: world.watch.live)
    assert world.host.calls == [("assign", P0, 1)]
    assert world.lease(P0).ready_term == 1


async def test_a_draining_node_serves_until_it_is_asked(world: World) -> None:
    world.grant(P0, 1)
    await world.served(P0, 1)
    world.follower.set_mode(Mode.DRAINING)
    world.grant(P1, 1)
    await until(lambda: world.lease(P1).holder == "")
    await asyncio.sleep(0.2)
    assert world.host.held == {P0: 1}
    world.ask_back(P0)
    async with asyncio.timeout(10):
        await world.follower.none_held()
    assert world.lease(P0).holder == ""


async def test_a_draining_node_whose_leases_are_deleted_waits_for_nobody(world: World) -> None:
    world.grant(P0, 1)
    await world.served(P0, 1)
    world.follower.set_mode(Mode.DRAINING)
    world.api.remove("demo-pch-0")
    async with asyncio.timeout(10):
        await world.follower.none_held()
    assert world.host.held == {}
    assert world.api.leases == {}


async def test_a_leaving_node_gives_everything_back(world: World) -> None:
    for pchannel in (P0, P1):
        world.grant(pchannel, 1)
        await world.served(pchannel, 1)
    world.follower.set_mode(Mode.LEAVING)
    async with asyncio.timeout(10):
        await world.follower.none_held()
    assert [world.lease(pchannel).holder for pchannel in (P0, P1)] == ["", ""]
    assert world.host.held == {}


async def test_leases_that_make_no_sense_are_no_orders(world: World) -> None:
    world.grant(P0, 1)
    await world.served(P0, 1)
    body = {**world.api.leases["demo-pch-0"]}
    body["metadata"] = {
        **body["metadata"],
        "annotations": {contract.CHANNEL: P0, contract.TERM: "x"},
    }
    world.api.put(body)
    copy = {**body, "metadata": {**body["metadata"], "name": "second"}}
    copy["metadata"]["annotations"] = {contract.CHANNEL: P0, contract.TERM: "9"}
    copy["spec"] = {"holderIdentity": OTHER}
    world.api.put(copy)
    await asyncio.sleep(0.3)
    assert world.host.held == {P0: 1}
