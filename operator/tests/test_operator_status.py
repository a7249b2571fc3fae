"""What people read: status of PChannels and WALClusters."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from walplane.testkit.kube_objects import RENEWED, ClusterObjects, Object, walcluster
from walplane.ticks import TICKS_PER_MS, TICKS_PER_S
from walplane.wal.status import QUARANTINED, SEGMENTS_WAIT
from walplane_operator.api.conditions import find
from walplane_operator.api.spec import WALCluster
from walplane_operator.plan.channel_status import Change, change, channel_status, lag_text
from walplane_operator.plan.channels import ClusterMemory, look
from walplane_operator.plan.cluster_status import Sight, cluster_status
from walplane_operator.plan.observed import Raw, read
from walplane_operator.plan.workload import Progress

NOW = datetime.fromisoformat(RENEWED) + timedelta(seconds=2)
TICK = int(datetime.fromisoformat(RENEWED).timestamp() * 1000) * TICKS_PER_MS


class Scene(ClusterObjects):
    """A cluster and what its operator says of it."""

    def __init__(self, count: int = 2, nodes: int = 2, cluster: Object | None = None) -> None:
        super().__init__(cluster or walcluster(count=count, nodes=nodes))
        self.memory = ClusterMemory()
        self.dead: set[str] = set()
        self.progress: Progress | None = None
        self.refused: tuple[str, ...] = ()

    def channels(self) -> list[Object]:
        """Statuses, which become those of the objects."""
        observed = read(
            WALCluster(self.cluster),
            Raw(**self.lists()),
            lambda session: session.identity not in self.dead,
            NOW,
            0.0,
        )
        self.observed = observed
        views = look(observed, self.memory)
        found = [channel_status(observed, v, self.memory.channels[v.index]) for v in views]
        for index, status in enumerate(found):
            self.pchannels[index]["status"] = status
        return found

    def status(self) -> Object:
        channels = self.channels()
        found = cluster_status(Sight(self.observed, channels, self.progress, self.refused))
        self.cluster["status"] = found
        return found

    def condition(self, kind: str) -> tuple[str, str]:
        found = find(self.status()["conditions"], kind)
        assert found is not None
        assert found["observedGeneration"] == 1
        return found["status"], found["reason"]

    def healthy(self) -> list[str]:
        self.coordinator()
        nodes = [self.node(ordinal) for ordinal in range(2)]
        for index in self.pchannels:
            self.grant(index, nodes[index % 2], 3)
        return nodes


def test_a_channel_that_was_never_granted() -> None:
    scene = Scene()
    assert scene.channels()[0]["state"] == "Uninitialized"
    assert "term" not in scene.channels()[0]


def test_a_channel_from_grant_to_service_to_loss() -> None:
    scene = Scene()
    scene.coordinator()
    node = scene.node(0)
    scene.grant(0, node, 1, ready=False)
    status = scene.channels()[0]
    assert (status["state"], status["term"], status["node"]) == ("Assigning", 1, "demo-node-0")
    scene.grant(0, node, 1)
    assert scene.channels()[0]["state"] == "Assigned"
    scene.dead.add(node)
    status = scene.channels()[0]
    assert (status["state"], status["term"], status["reason"]) == ("Unavailable", 1, "NodeLost")
    assert "node" not in status


def test_a_term_that_the_lease_lost_stays_in_the_status() -> None:
    scene = Scene()
    scene.pchannels[0]["status"] = {"term": 9, "state": "Assigned", "node": "demo-node-0"}
    assert scene.channels()[0]["term"] == 9


def test_a_channel_to_be_given_back_is_still_served() -> None:
    scene = Scene()
    scene.grant(0, scene.node(0), 4, release=4)
    assert scene.channels()[0]["state"] == "Assigned"


def test_attempts_and_reason_are_told() -> None:
    scene = Scene()
    scene.coordinator()
    scene.node(0, channels={0: {"term": 2, "lastError": "no bookie", "reason": "OpenFailed"}})
    scene.grant(0, "", 2)
    status = scene.channels()[0]
    assert (status["attempts"], status["reason"]) == (1, "OpenFailed")
    assert status["message"] == "demo-node-0: no bookie"


def test_the_last_ten_terms_are_kept() -> None:
    scene = Scene()
    node = scene.node(0)
    for term in range(1, 14):
        scene.grant(0, node, term)
        scene.memory.channels.clear()
        history = scene.channels()[0]["history"]
    assert [entry["term"] for entry in history] == list(range(13, 3, -1))
    assert history[0]["node"] == "demo-node-0"


def test_since_changes_with_state_and_term_only() -> None:
    scene = Scene()
    node = scene.node(0)
    scene.grant(0, node, 1)
    scene.channels()
    scene.pchannels[0]["status"]["since"] = "2020-01-01T00:00:00Z"
    assert scene.channels()[0]["since"] == "2020-01-01T00:00:00Z"
    scene.grant(0, node, 2)
    assert scene.channels()[0]["since"] != "2020-01-01T00:00:00Z"


def test_lags_come_from_the_report_and_the_time_it_was_made() -> None:
    scene = Scene()
    report = {
        "term": 1,
        "timeTick": TICK - 3 * TICKS_PER_S,
        "watermark": TICK - 5 * TICKS_PER_S,
        "checkpoint": TICK - 50 * TICKS_PER_S,
        "vchannels": 12,
    }
    scene.grant(0, scene.node(0, channels={0: report}), 1)
    status = scene.channels()[0]
    assert (status["timeTickLag"], status["checkpointLag"], status["vchannels"]) == (
        "3s",
        "45s",
        12,
    )
    assert status["reportedAt"] == "2026-01-02T03:04:05Z"


def test_lags_are_blank_when_nobody_reports_any_more() -> None:
    scene = Scene()
    node = scene.node(0, channels={0: {"term": 1, "timeTick": TICK, "vchannels": 3}})
    scene.grant(0, node, 1)
    assert "timeTickLag" in scene.channels()[0]
    assert "checkpointLag" not in scene.channels()[0], "there is no checkpoint yet"
    scene.dead.add(node)
    status = scene.channels()[0]
    assert "timeTickLag" not in status
    assert status["vchannels"] == 3, "what does not age is kept"


def test_a_report_about_another_term_is_none() -> None:
    scene = Scene()
    scene.grant(0, scene.node(0, channels={0: {"term": 1, "timeTick": TICK}}), 2)
    assert "timeTickLag" not in scene.channels()[0]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "<1s"), (999, "<1s"), (1000, "1s"), (119_000, "119s"), (120_000, "2m"), (7_200_000, "2h")],
)
def test_lags_are_told_coarsely(milliseconds: int, text: str) -> None:
    assert lag_text(milliseconds) == text


def test_states_are_written_at_once_and_numbers_when_their_text_changes() -> None:
    reported = "2026-01-02T03:04:05Z"
    before = {"state": "Assigned", "timeTick": 1, "timeTickLag": "<1s", "reportedAt": reported}
    at = datetime.fromisoformat(reported)

    def kind(seconds: int, **after: object) -> Change:
        return change(before, before | after, at + timedelta(seconds=seconds))

    assert kind(5) is Change.NONE
    assert kind(5, timeTick=2, reportedAt="2026-01-02T03:04:08Z") is Change.NONE
    assert kind(60, timeTick=2) is Change.NUMBERS
    assert kind(5, timeTickLag="2s") is Change.NUMBERS
    assert kind(5, state="Unavailable") is Change.STATE
    assert change(before, {"state": "Assigned"}, at) is Change.NUMBERS, "the lag goes blank"


def test_lost_data_is_a_condition_that_goes_false_when_it_is_mended() -> None:
    scene = Scene()
    scene.coordinator()
    scene.node(0, channels={0: {"term": 2, "lastError": "gone", "reason": "DataLoss"}})
    scene.grant(0, "", 2)
    scene.channels()
    condition = find(scene.channels()[0]["conditions"], "DataLoss")
    assert condition is not None
    assert condition["status"] == "True"
    assert scene.condition("Degraded") == ("True", "DataLoss")
    scene.grant(0, scene.node(1), 3)
    condition = find(scene.channels()[0]["conditions"], "DataLoss")
    assert condition is not None
    assert condition["status"] == "False"


def test_a_quarantined_log_is_a_condition_until_its_node_says_otherwise() -> None:
    scene = Scene()
    _, second = scene.healthy()
    held = {"term": 3, "reason": QUARANTINED, "lastError": "entry 7 cannot be taken in"}

    def told() -> tuple[str, str, str]:
        found = find(scene.channels()[1]["conditions"], QUARANTINED)
        assert found is not None
        return found["status"], found["reason"], found["message"]

    assert "conditions" not in scene.channels()[1]
    scene.node(1, channels={1: held})
    scene.grant(1, second, 3)
    assert told() == ("True", "NotTakenIn", "entry 7 cannot be taken in")
    assert "conditions" not in scene.channels()[0], "one that was never true is not spoken of"
    first = scene.node(0)
    scene.grant(1, first, 4, ready=False)
    assert told() == ("True", "NotTakenIn", "entry 7 cannot be taken in"), "nobody has looked yet"
    scene.grant(1, first, 4)
    assert told()[0] == "True", "its next owner has not reported yet"
    scene.node(0, channels={1: {"term": 4, "watermark": TICK}})
    scene.grant(1, first, 4)
    assert told() == ("False", "Served", "everything in the log was taken in")


def test_both_conditions_of_a_channel_are_kept() -> None:
    scene = Scene()
    scene.coordinator()
    node = scene.node(1, channels={0: {"term": 2, "reason": QUARANTINED, "lastError": "entry 7"}})
    scene.grant(0, node, 2)
    scene.channels()
    scene.node(0, channels={0: {"term": 3, "lastError": "gone", "reason": "DataLoss"}})
    scene.grant(0, "", 3)
    found = {one["type"]: one["status"] for one in scene.channels()[0]["conditions"]}
    assert found == {"DataLoss": "True", QUARANTINED: "True"}


def test_a_store_that_is_away_quarantines_nothing() -> None:
    scene = Scene()
    _, second = scene.healthy()
    scene.node(1, channels={1: {"term": 3, "reason": SEGMENTS_WAIT, "lastError": "no answer"}})
    scene.grant(1, second, 3)
    assert "conditions" not in scene.channels()[1]


def test_a_healthy_cluster_says_so() -> None:
    scene = Scene()
    scene.healthy()
    status = scene.status()
    assert status["phase"] == "Running"
    assert status["pchannels"] == {"total": 2, "assigned": 2}
    assert (status["nodes"]["summary"], status["coord"]["summary"]) == ("2/2", "1/1")
    assert status["replication"] == {"role": "PRIMARY"}
    assert status["observedGeneration"] == 1
    assert status["cchannel"] == "default-demo_0_vcchan"
    assert status["endpoints"] == {"coord": "demo-coord.default.svc:7650"}
    assert status["selector"].count("=") == 3
    truths = {one["type"]: one["status"] for one in status["conditions"]}
    assert truths == {
        "Ready": "True",
        "Progressing": "False",
        "Degraded": "False",
        "BackendReachable": "True",
        "Assigned": "True",
    }


def test_looking_twice_changes_nothing() -> None:
    scene = Scene()
    scene.healthy()
    assert scene.status() == scene.status()


def test_a_new_cluster_is_pending() -> None:
    scene = Scene()
    assert scene.status()["phase"] == "Pending"
    assert scene.condition("Ready") == ("False", "NoCoordinator")
    assert scene.condition("BackendReachable") == ("Unknown", "NoReport")


def test_missing_pods_are_named_with_what_they_wait_for() -> None:
    scene = Scene()
    scene.healthy()
    scene.pod("demo-node-1", "node", ready=False, waiting="CrashLoopBackOff")
    ready = find(scene.status()["conditions"], "Ready")
    assert ready is not None
    assert ready["message"] == "1 of 2 nodes are ready; demo-node-1: CrashLoopBackOff"


def test_a_node_without_a_session_is_not_ready() -> None:
    scene = Scene()
    scene.healthy()
    del scene.leases["demo-node-1"]
    assert scene.status()["nodes"]["ready"] == 1


def test_somebody_elses_topics() -> None:
    scene = Scene()
    backend = {"reachable": False, "reason": "ClaimedByOther", "message": "a/b has uid 7"}
    scene.coordinator(leading=False, backend=backend)
    assert scene.condition("BackendReachable") == ("False", "ClaimedByOther")
    assert scene.condition("Degraded") == ("True", "ClaimedByOther")


def test_what_the_api_server_refused_is_told() -> None:
    scene = Scene()
    scene.healthy()
    scene.refused = ("StatefulSet demo-node: resources: invalid",)
    assert scene.condition("Degraded") == ("True", "Refused")
    assert scene.status()["phase"] == "Degraded"


def test_one_failure_is_not_worth_a_look_two_are() -> None:
    scene = Scene()
    scene.healthy()
    for term, reason in ((4, "AsExpected"), (5, "ChannelsUnavailable")):
        scene.node(0, channels={0: {"term": term, "lastError": "no disk"}})
        scene.grant(0, "", term)
        assert scene.condition("Degraded")[1] == reason


@pytest.mark.parametrize("condition", [QUARANTINED, SEGMENTS_WAIT])
def test_a_log_that_serves_and_only_grows_is_worth_a_look(condition: str) -> None:
    scene = Scene()
    _, second = scene.healthy()
    held = {"term": 3, "watermark": TICK, "reason": condition, "lastError": "s3://b: no answer"}
    scene.node(1, channels={1: held})
    scene.grant(1, second, 3)
    degraded = find(scene.status()["conditions"], "Degraded")
    assert degraded is not None
    assert (degraded["status"], degraded["reason"]) == ("True", "ChannelsHeldUp")
    assert degraded["message"] == "demo-1: s3://b: no answer"
    assert scene.channels()[1]["state"] == "Assigned"
    assert scene.condition("Ready")[0] == "True"
    scene.node(1, channels={1: {"term": 3, "watermark": TICK}})
    assert scene.condition("Degraded") == ("False", "AsExpected")


def test_progress_and_pause_are_told() -> None:
    scene = Scene()
    scene.healthy()
    scene.progress = Progress("Draining", "demo-node-1 holds 1 PChannel")
    assert scene.condition("Progressing") == ("True", "Draining")
    scene.cluster["spec"]["paused"] = True
    assert scene.condition("Progressing") == ("False", "Paused")
    assert scene.status()["phase"] == "Paused"


def test_a_channel_on_the_move_leaves_a_running_cluster_running() -> None:
    scene = Scene()
    nodes = scene.healthy()
    scene.status()
    scene.grant(0, nodes[1], 4, ready=False)
    assert scene.status()["phase"] == "Running"
    assert scene.condition("Assigned") == ("False", "Assigning")


def test_an_embedded_cluster_is_served_when_its_pod_is_ready() -> None:
    scene = Scene(cluster=walcluster(count=3, nodes=1, backend={"embedded": {}}))
    assert scene.condition("Ready") == ("False", "NoNode")
    scene.pod("demo-node-0", "node")
    status = scene.status()
    assert (status["backend"], status["phase"]) == ("Embedded", "Running")
    assert status["pchannels"] == {"total": 3, "assigned": 3}
    assert status["coord"]["summary"] == "1/1"
    assert {(s["state"], s["node"]) for s in scene.channels()} == {("Assigned", "demo-node-0")}
