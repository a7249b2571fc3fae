"""Opens that fail, that take long, that nobody takes up: when a PChannel is granted anew."""

from __future__ import annotations

import pytest

from walplane.testkit.kube_objects import Object
from walplane_operator.plan.assignment import Assignment
from walplane_operator.plan.channels import OPEN_DEADLINE_S, Phase
from walplane_operator.testkit import Scene, targets


def test_a_failed_open_is_tried_at_once_on_another_node() -> None:
    scene = Scene(count=1)
    other = scene.node(1)
    scene.fail(0, 0, 1)
    assert targets(scene.step()) == {0: other}


def test_a_failed_open_is_tried_on_the_same_node_when_there_is_no_other() -> None:
    scene = Scene(count=1)
    scene.fail(0, 0, 1)
    assert [grant.term for grant in scene.step().grants] == [2]


def test_what_fails_again_and_again_waits_longer_and_holds_up_nobody() -> None:
    scene = Scene(count=2)
    scene.node(1)
    waits = []
    for term in range(1, 5):
        scene.fail(0, 0, term)
        waits.append(scene.step().wake_s)
    assert waits == [None, 1.0, 2.0, 4.0]
    assert [grant.index for grant in scene.step().grants] == [1], "0 waits, 1 does not"
    scene.clock += 4
    assert 0 in targets(scene.step())


def test_a_failure_is_counted_once() -> None:
    scene = Scene(count=1)
    scene.fail(0, 0, 3)
    for _ in range(5):
        scene.step()
    assert scene.memory.channels[0].attempts == 1


def test_serving_forgets_the_failures() -> None:
    scene = Scene(count=1)
    scene.fail(0, 0, 1)
    scene.step()
    scene.grant(0, scene.node(1), 2)
    scene.step()
    assert scene.memory.channels[0].attempts == 0


def test_an_operator_that_starts_anew_does_not_count_twice() -> None:
    scene = Scene(count=1)
    scene.fail(0, 0, 3)
    scene.pchannels[0]["status"] = {"term": 3, "attempts": 4, "state": "Unavailable"}
    scene.step()
    assert scene.memory.channels[0].attempts == 4


def test_lost_data_waits_for_a_person() -> None:
    scene = Scene(count=1)
    scene.node(1)
    scene.fail(0, 0, 1, reason="DataLoss")
    step = scene.step()
    assert (step.grants, step.wake_s) == ((), 300.0)


def test_a_grant_that_nobody_takes_up_is_given_to_another() -> None:
    scene = Scene(count=1)
    slow, other = scene.node(0), scene.node(1)
    scene.grant(0, slow, 1, ready=False)
    assert scene.step().wake_s == OPEN_DEADLINE_S
    scene.clock += OPEN_DEADLINE_S
    step = scene.step()
    assert targets(step) == {0: other}
    assert (step.grants[0].reason, step.releases) == ("OpenTimeout", ())


def test_an_open_that_its_node_reports_is_never_taken_away() -> None:
    """A long replay would begin anew elsewhere, and be taken away there too."""
    scene = Scene(count=1)
    scene.node(1)
    opener = scene.node(0, channels={0: {"term": 1}})
    scene.grant(0, opener, 1, ready=False)
    for _ in range(5):
        assert scene.step() == Assignment()
        scene.clock += OPEN_DEADLINE_S
    assert scene.views[0].phase is Phase.OPENING
    scene.node(0, channels={0: {"term": 1, "timeTick": 7}})
    assert scene.step() == Assignment(wake_s=OPEN_DEADLINE_S), "open; it confirms any moment now"
    scene.clock += OPEN_DEADLINE_S
    assert scene.step().grants[0].reason == "OpenTimeout", "it never did"


@pytest.mark.parametrize("report", [{"term": 1}, {"term": 2, "lastError": "disk"}])
def test_a_report_of_another_grant_or_of_a_failure_is_no_open(report: Object) -> None:
    scene = Scene(count=1)
    other = scene.node(1)
    scene.grant(0, scene.node(0, channels={0: report}), 2, ready=False)
    scene.step()
    scene.clock += OPEN_DEADLINE_S
    assert targets(scene.step()) == {0: other}


def test_the_open_of_a_dead_node_goes_to_another() -> None:
    scene = Scene(count=1)
    opener, other = scene.node(0, channels={0: {"term": 1}}), scene.node(1)
    scene.grant(0, opener, 1, ready=False)
    scene.step()
    scene.dead.add(opener)
    assert targets(scene.step()) == {0: other}
