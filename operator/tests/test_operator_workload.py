"""How many nodes there shall be, which one is emptied, which one replaced; and the end."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from walplane.testkit.kube_objects import ClusterObjects, walcluster
from walplane_operator.api import names
from walplane_operator.api.spec import WALCluster
from walplane_operator.plan.channels import ClusterMemory, look
from walplane_operator.plan.deletion import DEADLINE_S, Ending, ending, topics, wants_finalizer
from walplane_operator.plan.observed import Observed, Raw, read
from walplane_operator.plan.workload import Workforce, decide

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Crew(ClusterObjects):
    """Nodes of a cluster: all run, all have a session, each serves its share."""

    def __init__(self, running: int, wanted: int | None = None, *, revision: str = "new") -> None:
        super().__init__(walcluster(count=running, nodes=running))
        self.identities = [self.node(n, revision=revision) for n in range(running)]
        self.coordinator()
        for index, identity in enumerate(self.identities):
            self.grant(index, identity)
        self.cluster["spec"]["nodes"]["replicas"] = running if wanted is None else wanted

    def look(self) -> Observed:
        return read(WALCluster(self.cluster), Raw(**self.lists()), lambda _: True, NOW, 0.0)

    def decide(self) -> Workforce:
        observed = self.look()
        return decide(observed, look(observed, ClusterMemory()))

    def empty(self, ordinal: int) -> None:
        self.grant(ordinal, self.identities[0], 2)


def test_a_cluster_that_is_as_wanted_is_left_alone() -> None:
    assert Crew(3).decide() == Workforce(3)


def test_more_nodes_come_at_once() -> None:
    assert Crew(2, wanted=5).decide() == Workforce(5)


def test_the_first_nodes_come_before_there_is_a_stateful_set() -> None:
    crew = Crew(2)
    crew.node_set = None
    assert crew.decide() == Workforce(2)


def test_a_node_is_emptied_before_it_goes() -> None:
    crew = Crew(3, wanted=2)
    decision = crew.decide()
    assert (decision.replicas, decision.cordoned) == (3, frozenset({"demo-node-2"}))
    assert decision.progress is not None
    assert "demo-node-2 holds 1" in decision.progress.message
    crew.empty(2)
    assert crew.decide().replicas == 2


def test_the_highest_goes_first_and_all_that_go_get_nothing() -> None:
    crew = Crew(4, wanted=1)
    decision = crew.decide()
    assert decision.cordoned == {"demo-node-1", "demo-node-2", "demo-node-3"}
    crew.empty(3)
    assert crew.decide().replicas == 3, "one at a time"


def test_a_lease_of_a_dead_session_counts_as_held() -> None:
    crew = Crew(2, wanted=1)
    del crew.leases["demo-node-1"]
    assert crew.decide().replicas == 2


def test_the_next_one_waits_until_the_last_is_gone() -> None:
    crew = Crew(3, wanted=1)
    crew.empty(2)
    crew.empty(1)
    assert crew.node_set is not None
    crew.node_set["spec"]["replicas"] = 2
    assert crew.decide().replicas == 2, "demo-node-2 is still there"
    del crew.pods["demo-node-2"]
    assert crew.decide().replicas == 1


def test_a_roll_out_empties_and_replaces_the_highest_first() -> None:
    crew = Crew(3, revision="old")
    decision = crew.decide()
    assert (decision.cordoned, decision.replace) == (frozenset({"demo-node-2"}), None)
    crew.empty(2)
    decision = crew.decide()
    assert decision.replace is not None
    assert (decision.replace.name, decision.replace.uid) == ("demo-node-2", "uid-of-demo-node-2")


def test_a_roll_out_waits_for_what_is_on_the_move() -> None:
    crew = Crew(3, revision="old")
    crew.empty(2)
    crew.grant(2, crew.identities[0], 2, ready=False)
    assert crew.decide().replace is None


@pytest.mark.parametrize("trouble", ["not ready", "no session", "no pod", "draining"])
def test_a_roll_out_goes_on_only_when_all_others_serve(trouble: str) -> None:
    crew = Crew(3, revision="old")
    crew.empty(2)
    crew.node(1, revision="old", draining=trouble == "draining")
    if trouble == "not ready":
        crew.pod("demo-node-1", "node", ready=False, revision="old")
    elif trouble == "no session":
        del crew.leases["demo-node-1"]
    elif trouble == "no pod":
        del crew.pods["demo-node-1"]
    decision = crew.decide()
    assert (decision.replace, decision.cordoned) == (None, frozenset())
    assert decision.progress is not None
    assert "demo-node-1" in decision.progress.message


@pytest.mark.parametrize(
    "trouble", ["surge", "old template", "not seen yet", "not leading", "leaving"]
)
def test_a_roll_out_of_nodes_waits_for_that_of_the_coordinator(trouble: str) -> None:
    crew = Crew(3, revision="old")
    crew.empty(2)
    assert crew.coord is not None
    if trouble == "surge":
        crew.coord["status"]["replicas"] = 2
    elif trouble == "old template":
        crew.coord["status"]["updatedReplicas"] = 0
    elif trouble == "not seen yet":
        crew.coord["metadata"]["generation"] = 2
    else:
        crew.coordinator(leading=trouble == "leaving", draining=trouble == "leaving")
    decision = crew.decide()
    assert (decision.replace, decision.cordoned) == (None, frozenset())
    assert decision.progress is not None
    assert "coord" in decision.progress.message


def test_a_pod_that_never_ran_is_replaced_at_once() -> None:
    """The new template may be what mends it."""
    crew = Crew(3, revision="old")
    crew.grant(1, crew.identities[0], 2)
    del crew.leases["demo-node-1"]
    crew.pod("demo-node-1", "node", ready=False, revision="old", waiting="ImagePullBackOff")
    decision = crew.decide()
    assert decision.replace is not None
    assert decision.replace.name == "demo-node-1"


def test_a_roll_out_that_is_broken_stops_at_the_first_pod() -> None:
    crew = Crew(3, revision="old")
    crew.pod("demo-node-2", "node", ready=False, revision="new", waiting="ImagePullBackOff")
    del crew.leases["demo-node-2"]
    decision = crew.decide()
    assert decision.replace is None
    assert decision.progress is not None
    assert "demo-node-2 (ImagePullBackOff)" in decision.progress.message


def test_the_only_node_is_replaced_without_being_emptied() -> None:
    decision = Crew(1, revision="old").decide()
    assert decision.replace is not None


def test_a_stateful_set_that_has_not_seen_its_template_decides_nothing() -> None:
    crew = Crew(3, revision="old")
    assert crew.node_set is not None
    crew.node_set["metadata"]["generation"] = 2
    assert crew.decide() == Workforce(3)


@pytest.mark.parametrize(
    ("policy", "finalizers", "deleted", "wanted"),
    [
        ("Retain", [], False, None),
        ("Delete", [], False, True),
        ("Delete", [names.FINALIZER], False, None),
        ("Retain", [names.FINALIZER, "other"], False, False),
        ("Retain", [names.FINALIZER], True, False),
        ("Delete", ["other"], True, None),
    ],
)
def test_only_delete_holds_the_object(
    policy: str, finalizers: list[str], deleted: bool, wanted: bool | None
) -> None:
    raw = walcluster(deletionPolicy=policy)
    raw["metadata"]["finalizers"] = finalizers
    if deleted:
        raw["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert wants_finalizer(WALCluster(raw)) is wanted


def ending_of(crew: Crew, age_s: float) -> Ending:
    crew.cluster["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    observed = crew.look()
    return ending(observed, observed.clock - age_s)


def test_topics_go_after_the_pods_and_within_the_deadline() -> None:
    crew = Crew(1)
    assert ending_of(crew, 1) is Ending.NOTHING, "nothing of ours holds it"
    crew.cluster["metadata"]["finalizers"] = [names.FINALIZER]
    assert ending_of(crew, 1) is Ending.STOP_PODS
    crew.node_set = crew.coord = None
    assert ending_of(crew, 1) is Ending.STOP_PODS, "a pod is still there"
    assert ending_of(crew, DEADLINE_S) is Ending.LET_GO
    crew.pods.clear()
    assert ending_of(crew, 1) is Ending.DELETE_DATA


def test_every_topic_of_the_cluster_is_known() -> None:
    assert topics(WALCluster(walcluster(count=2))) == [
        "default-demo_0",
        "default-demo_1",
        "default-demo_0-meta",
        "default-demo_1-meta",
        "default-demo-coord-meta",
    ]
