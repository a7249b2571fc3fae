"""Who shall hold which PChannel: every case that a person can bring about."""

from __future__ import annotations

from collections import Counter

import pytest

from walplane.testkit.kube_objects import Object
from walplane_operator.plan.assignment import MAX_MOVES, Assignment
from walplane_operator.plan.channels import (
    OPEN_DEADLINE_S,
    RELEASE_DEADLINE_S,
    SETTLED_S,
    Phase,
)
from walplane_operator.testkit import Scene, targets


def test_everything_is_granted_evenly_at_the_start() -> None:
    scene = Scene(count=6)
    nodes = [scene.node(ordinal) for ordinal in range(3)]
    step = scene.step()
    assert Counter(targets(step).values()) == dict.fromkeys(nodes, 2)
    assert {(grant.term, grant.reason) for grant in step.grants} == {(1, "Initial")}
    assert step.releases == ()


def test_nothing_is_granted_without_a_leading_coordinator() -> None:
    scene = Scene(coordinator=False)
    scene.node(0)
    assert scene.step().grants == ()
    scene.coordinator(leading=False)
    assert scene.step().grants == (), "a cluster whose claim was refused must fence nobody"


def test_nothing_is_granted_without_a_node() -> None:
    assert Scene().step() == Assignment()


def test_a_settled_cluster_is_left_alone() -> None:
    scene = Scene(count=6)
    scene.serve(6, *(scene.node(ordinal) for ordinal in range(3)))
    assert scene.step() == Assignment()


def test_the_channels_of_a_dead_node_go_to_the_others_under_higher_terms() -> None:
    scene = Scene(count=6)
    nodes = [scene.node(ordinal) for ordinal in range(3)]
    scene.serve(6, *nodes, term=4)
    scene.dead.add(nodes[2])
    step = scene.step()
    assert set(targets(step)) == {2, 5}
    assert set(targets(step).values()) == set(nodes[:2])
    assert {(grant.term, grant.reason) for grant in step.grants} == {(5, "NodeExpired")}


def test_a_new_incarnation_ends_the_old_session_at_once() -> None:
    scene = Scene(count=2)
    scene.serve(2, scene.node(0), scene.node(1))
    reborn = scene.node(0, "0000000b")
    step = scene.step()
    assert targets(step) == {0: reborn}
    assert step.grants[0].reason == "NodeRestarted"


def test_a_deleted_session_ends_at_once() -> None:
    scene = Scene(count=2)
    nodes = [scene.node(0), scene.node(1)]
    scene.serve(2, *nodes)
    del scene.leases["demo-node-0"]
    step = scene.step()
    assert targets(step) == {0: nodes[1]}
    assert step.grants[0].reason == "NodeGone"


@pytest.mark.parametrize(
    ("lease_term", "status_term", "floor", "granted"),
    [(3, 3, 0, 4), (0, 7, 0, 8), (3, 3, 20, 21), (5, 2, 4, 6)],
)
def test_a_term_lies_above_lease_status_and_log(
    lease_term: int, status_term: int, floor: int, granted: int
) -> None:
    scene = Scene(count=1)
    scene.node(0, channels={0: {"term": 1, "termFloor": floor}})
    scene.pchannels[0]["status"] = {"term": status_term}
    if lease_term:
        scene.grant(0, "", lease_term)
    assert [grant.term for grant in scene.step().grants] == [granted]


def test_a_grant_lies_above_what_a_node_serves_under() -> None:
    """Lease and PChannel were deleted together: the node that serves knows its term alone."""
    scene = Scene(count=1)
    scene.node(0, channels={0: {"term": 7, "timeTick": 1}})
    assert [grant.term for grant in scene.step().grants] == [8]


def test_the_log_of_a_cluster_made_anew_is_opened_above_its_old_terms() -> None:
    scene = Scene(count=1)
    scene.node(0)
    scene.fail(0, 0, 1, termFloor=41, reason="StaleTerm")
    step = scene.step()
    assert [(grant.term, grant.reason) for grant in step.grants] == [(42, "StaleTerm")]


def test_a_release_that_takes_too_long_is_ended_by_a_higher_term() -> None:
    scene = Scene(count=1)
    stuck, other = scene.node(0), scene.node(1)
    scene.grant(0, stuck, 1, release=1)
    assert scene.step() == Assignment(wake_s=RELEASE_DEADLINE_S)
    scene.clock += RELEASE_DEADLINE_S
    step = scene.step("demo-node-0")
    assert targets(step) == {0: other}
    assert step.grants[0].reason == "ReleaseTimeout"


def test_a_released_channel_says_why_it_moved() -> None:
    scene = Scene(count=4)
    nodes = [scene.node(0), scene.node(1)]
    scene.serve(4, *nodes)
    releases = scene.step("demo-node-0").releases
    assert {release.reason for release in releases} == {"Draining"}
    scene.grant(0, "", 1)
    step = scene.step("demo-node-0")
    assert [(grant.session, grant.reason) for grant in step.grants] == [(nodes[1], "Draining")]


def test_few_channels_are_on_the_move_at_a_time() -> None:
    scene = Scene(count=12)
    scene.serve(12, scene.node(0))
    scene.node(1)
    releases = scene.step().releases
    assert len(releases) == MAX_MOVES
    for release in releases:
        scene.grant(release.index, scene.views[release.index].pod + "_x", 1, release=1)
    moving = [view for view in scene.views if view.phase is Phase.RELEASING]
    assert moving == []
    for release in releases:
        scene.grant(release.index, release.lease.holder, 1, release=1)
    assert scene.step().releases == ()


def test_opens_that_take_long_hold_up_no_move() -> None:
    """They have no deadline, and a node that is emptied cannot wait for them."""
    scene = Scene(count=MAX_MOVES + 1)
    scene.node(1)
    opener = scene.node(0, channels={index: {"term": 1} for index in range(MAX_MOVES)})
    for index in range(MAX_MOVES):
        scene.grant(index, opener, 1, ready=False)
    scene.grant(MAX_MOVES, scene.node(2), 1)
    assert scene.step("demo-node-2").releases == ()
    scene.clock += OPEN_DEADLINE_S
    assert [release.index for release in scene.step("demo-node-2").releases] == [MAX_MOVES]


def test_nodes_that_join_get_their_share_and_then_all_is_quiet() -> None:
    scene = Scene(count=16)
    scene.serve(16, scene.node(0))
    nodes = [scene.node(ordinal) for ordinal in range(3)]
    holders = dict.fromkeys(range(16), nodes[0])
    for term in range(2, 40):
        step = scene.step()
        if step == Assignment(wake_s=step.wake_s) and not step.wake_s:
            break
        for release in step.releases:
            scene.grant(release.index, "", release.lease.term)
        for grant in scene.step().grants:
            scene.grant(grant.index, grant.session, grant.term)
            holders[grant.index] = grant.session
        scene.clock += 11
        assert term < 39, "it never comes to rest"
    assert sorted(Counter(holders.values()).values()) == [5, 5, 6]


def test_a_channel_that_moved_rests_before_it_moves_for_balance_again() -> None:
    scene = Scene(count=4)
    first = scene.node(0)
    for index in range(4):
        scene.grant(index, first, 2)
    scene.node(1)
    step = scene.step()
    assert (step.releases, step.wake_s) == ((), 10.0)
    scene.clock += 10
    assert scene.step().releases != ()


def test_a_node_that_comes_back_gets_its_share_and_not_one_more() -> None:
    """What is on its way to it counts as there: else it gets more, and gives it back later."""
    scene = Scene(count=16)
    scene.serve(16, scene.node(0), scene.node(1))
    scene.node(2)
    moved = 0
    for term in range(2, 20):
        step = scene.step()
        on_the_move = sum(view.phase is not Phase.SERVED for view in scene.views)
        assert on_the_move + len(step.releases) <= MAX_MOVES
        for grant in step.grants:
            scene.grant(grant.index, grant.session, term)
        for release in step.releases:
            moved += 1
            scene.grant(release.index, "", release.lease.term)
        scene.clock += 1
    assert moved == 5
    assert sorted(Counter(view.pod for view in scene.views).values()) == [5, 5, 6]


@pytest.mark.parametrize("coordinator", ["none", "not leading", "draining"])
def test_nothing_is_asked_back_that_nobody_could_take_over(coordinator: str) -> None:
    """A roll-out replaces the coordinator too: what was emptied then would serve nobody."""
    scene = Scene(count=6, coordinator=False)
    scene.serve(6, *(scene.node(ordinal) for ordinal in range(3)))
    if coordinator == "not leading":
        scene.coordinator(leading=False)
    elif coordinator == "draining":
        scene.coordinator(draining=True)
    assert scene.step("demo-node-2").releases == ()
    scene.coordinator()
    assert {release.index for release in scene.step("demo-node-2").releases} == {2, 5}


def test_a_draining_node_gets_nothing_and_is_emptied() -> None:
    scene = Scene(count=4)
    leaving, staying = scene.node(0), scene.node(1)
    scene.serve(3, leaving)
    scene.node(0, draining=True)
    step = scene.step()
    assert targets(step) == {3: staying}
    assert {release.index for release in step.releases} == {0, 1}, "three on the move, with 3"


def test_an_open_on_a_draining_node_is_given_up() -> None:
    scene = Scene(count=1)
    leaving = scene.node(0, draining=True)
    scene.node(1)
    scene.grant(0, leaving, 1, ready=False)
    assert [release.index for release in scene.step().releases] == [0]


def test_the_only_node_is_emptied_when_it_leaves() -> None:
    """Nobody can take over: its successor comes the sooner."""
    scene = Scene(count=2, nodes=1)
    scene.serve(2, scene.node(0))
    scene.node(0, draining=True)
    scene.pods["demo-node-0"]["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert len(scene.step().releases) == 2


def test_the_last_ready_node_serves_on_while_another_starts() -> None:
    scene = Scene(count=2)
    scene.serve(2, scene.node(0))
    scene.node(0, draining=True)
    scene.pod("demo-node-1", "node", ready=False)
    assert scene.step().releases == ()


def test_a_pinned_channel_goes_where_it_shall() -> None:
    scene = Scene(count=3)
    nodes = [scene.node(ordinal) for ordinal in range(3)]
    scene.serve(3, *nodes)
    scene.pchannels[0]["spec"]["pinnedNode"] = "demo-node-2"
    step = scene.step()
    assert [(release.index, release.reason) for release in step.releases] == [(0, "Pinned")]
    scene.grant(0, "", 1)
    assert targets(scene.step()) == {0: nodes[2]}


def test_a_pin_to_a_node_that_is_not_there_holds_nothing_up() -> None:
    scene = Scene(count=1)
    node = scene.node(0)
    scene.pchannels[0]["spec"]["pinnedNode"] = "demo-node-9"
    assert targets(scene.step()) == {0: node}


def test_a_frozen_channel_stays_for_balance_and_moves_for_a_drain() -> None:
    scene = Scene(count=2)
    scene.serve(2, scene.node(0))
    for pchannel in scene.pchannels.values():
        pchannel["spec"]["frozen"] = True
    scene.node(1)
    assert scene.step().releases == ()
    assert len(scene.step("demo-node-0").releases) == 2


def test_what_clients_complain_about_is_granted_anew() -> None:
    scene = Scene(count=2)
    scene.serve(2, scene.node(0), scene.node(1))
    errors = {scene.channel(1): {"term": 1, "code": "CHANNEL_NOT_EXIST"}}
    scene.coordinator(errors=errors)
    assert [(r.index, r.reason) for r in scene.step().releases] == [(1, "ClientChannelNotExist")]


def test_complaints_about_an_older_grant_are_none() -> None:
    scene = Scene(count=1)
    scene.serve(1, scene.node(0), term=3)
    scene.coordinator(errors={scene.channel(0): {"term": 2, "code": "CHANNEL_FENCED"}})
    assert scene.step().releases == ()


def busy(scene: Scene, carried: dict[int, int]) -> None:
    """The first node carries VChannels, and has reported so for a while."""
    reports: dict[int, Object] = {i: {"term": 1, "vchannels": n} for i, n in carried.items()}
    node = scene.node(0, channels=reports)
    scene.serve(len(carried), node)
    scene.step()
    scene.clock += SETTLED_S
    scene.step()


def test_busy_channels_are_spread_by_what_they_carry() -> None:
    carried = {0: 8, 1: 1, 2: 1, 3: 8}
    scene = Scene(count=4)
    busy(scene, carried)
    scene.node(1)
    assert sum(carried[release.index] for release in scene.step().releases) == 9


def test_balance_waits_until_the_numbers_have_settled() -> None:
    """A collection's VChannels come one after another, reported at different times."""
    scene = Scene(count=4)
    nodes = [scene.node(0), scene.node(1)]
    scene.serve(4, *nodes)
    for vchannels in (5, 9):
        report: Object = {"term": 1, "vchannels": vchannels}
        scene.node(0, channels={0: report, 2: report})
        assert scene.step() == Assignment(wake_s=SETTLED_S)
        scene.clock += SETTLED_S - 1
        assert scene.step().releases == ()
    scene.clock += 1
    assert scene.step().releases != ()


def test_what_was_asked_back_goes_where_it_was_meant_to_go() -> None:
    """Though the loads have changed meanwhile: nothing moves in vain."""
    scene = Scene(count=4)
    first = scene.node(0)
    scene.serve(4, first)
    second = scene.node(1)
    release = scene.step().releases[0]
    assert release.target == second
    for index in range(4):
        scene.grant(index, second if index != release.index else "", 1)
    assert targets(scene.step()) == {release.index: second}
    del scene.leases["demo-node-1"]
    assert targets(scene.step())[release.index] == first, "unless that is gone"


def test_a_lost_lease_is_made_again_above_the_status() -> None:
    scene = Scene(count=1)
    node = scene.node(0)
    scene.serve(1, node, term=5)
    del scene.leases["demo-pch-0"]
    scene.pchannels[0]["status"] = {"term": 5, "node": "demo-node-0"}
    step = scene.step()
    assert [(g.term, g.lease, g.reason) for g in step.grants] == [(6, None, "LeaseLost")]


def test_what_one_retry_avoids_another_node_keeps() -> None:
    """A node that is avoided for one PChannel still holds its own."""
    scene = Scene(count=4)
    first, second = scene.node(0), scene.node(1)
    scene.serve(4, first, second)
    scene.fail(0, 0, 1)
    assert targets(scene.step()) == {0: second}
