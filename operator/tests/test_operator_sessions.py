"""When a session is dead: the observer's clock, and only while its watch lives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from walplane.testkit.kube_objects import ClusterObjects
from walplane_operator.api.leases import Session
from walplane_operator.plan.sessions import SessionMonitor


class Watch:
    """Three sessions of one cluster, and a clock."""

    def __init__(self) -> None:
        objects = ClusterObjects()
        for ordinal in range(3):
            objects.node(ordinal)
        self.sessions = [Session.read(lease) for lease in objects.leases.values()]
        self.monitor = SessionMonitor()
        self.now = 100.0
        self.list()

    def list(self) -> None:
        self.monitor.listed([("default", "demo", s) for s in self.sessions], self.now)

    def renew(self, *ordinals: int) -> None:
        for ordinal in ordinals:
            session = self.sessions[ordinal]
            self.sessions[ordinal] = replace(session, version=session.version + "x")
            self.monitor.changed("default", "demo", self.sessions[ordinal], self.now)

    def pass_seconds(self, seconds: int, *renewing: int) -> set[str]:
        """Every second there is a sign of life of the watch, and renewals of `renewing`."""
        dead = set()
        for _ in range(seconds):
            self.now += 1
            self.monitor.proved(self.now)
            self.renew(*renewing)
            dead |= {pod for _, _, pod in self.monitor.expire()}
        return dead

    def alive(self, ordinal: int) -> bool:
        return self.monitor.alive("default", "demo", self.sessions[ordinal])


def test_a_silent_session_dies_after_its_duration() -> None:
    watch = Watch()
    assert watch.pass_seconds(9, 0, 1) == set()
    assert watch.alive(2)
    assert watch.pass_seconds(1, 0, 1) == {"demo-node-2"}
    assert not watch.alive(2)
    assert watch.alive(0)
    assert watch.pass_seconds(20, 0, 1) == set(), "it is told once"


def test_it_lives_again_when_it_renews() -> None:
    watch = Watch()
    watch.pass_seconds(10, 0, 1)
    watch.renew(2)
    assert watch.alive(2)


def test_a_new_incarnation_is_another_session() -> None:
    watch = Watch()
    watch.pass_seconds(10, 0, 1)
    reborn = replace(watch.sessions[2], identity="demo-node-2_uid_new", version="9999")
    assert watch.monitor.alive("default", "demo", reborn)


def test_a_silent_watch_proves_nothing() -> None:
    """The API server hangs for a minute: nobody could renew, nobody is dead."""
    watch = Watch()
    watch.pass_seconds(3, 0, 1, 2)
    watch.now += 60
    watch.monitor.proved(watch.now)
    assert watch.monitor.expire() == set()
    assert watch.pass_seconds(9, 0, 1) == set(), "one full duration more"
    assert watch.pass_seconds(1, 0, 1) == {"demo-node-2"}


def test_an_api_server_that_is_slow_is_slow_for_nodes_too() -> None:
    """Renewals of our own Lease come through every four seconds; those of a node take longer."""
    watch = Watch()
    for _ in range(20):
        watch.now += 4
        watch.monitor.proved(watch.now)
        watch.renew(0, 1)
        assert watch.monitor.expire() == set()
    assert watch.pass_seconds(9, 0, 1) == set()
    assert watch.pass_seconds(1, 0, 1) == {"demo-node-2"}


def test_a_watch_that_broke_gives_everyone_a_full_duration() -> None:
    watch = Watch()
    watch.pass_seconds(8, 0, 1)
    watch.monitor.interrupted()
    watch.now += 30
    assert watch.monitor.expire() == set()
    watch.list()
    assert watch.pass_seconds(9, 0, 1) == set()
    assert watch.pass_seconds(1, 0, 1) == {"demo-node-2"}


def test_the_dead_stay_dead_over_a_new_list() -> None:
    watch = Watch()
    watch.pass_seconds(10, 0, 1)
    watch.monitor.interrupted()
    watch.list()
    assert not watch.alive(2)


def test_when_most_expire_together_the_observer_doubts_itself() -> None:
    watch = Watch()
    assert watch.pass_seconds(10, 0) == set()
    assert watch.alive(1)
    assert watch.pass_seconds(9, 0) == set()
    assert watch.pass_seconds(1, 0) == {"demo-node-1", "demo-node-2"}


def test_half_is_not_most() -> None:
    watch = Watch()
    watch.sessions.pop()
    watch.list()
    assert watch.pass_seconds(10, 0) == {"demo-node-1"}


def test_a_deleted_lease_is_forgotten() -> None:
    watch = Watch()
    watch.monitor.deleted("default", "demo", "demo-node-2", watch.now)
    assert watch.pass_seconds(15, 0, 1) == set()


def test_clusters_are_judged_apart() -> None:
    watch = Watch()
    others = [("other", "demo", replace(s, version="1")) for s in watch.sessions]
    watch.monitor.listed([*others, *(("default", "demo", s) for s in watch.sessions)], watch.now)
    for _ in range(10):
        watch.now += 1
        watch.monitor.proved(watch.now)
        watch.renew(0, 1)
        dead = watch.monitor.expire()
    assert dead == {("default", "demo", "demo-node-2")}


@pytest.mark.parametrize("duration_s", [3, 4, 10])
def test_the_heartbeat_alone_shows_that_a_session_is_dead(duration_s: float) -> None:
    """Though each one comes half as late again as it shall."""
    monitor = SessionMonitor()
    session = Session("demo-node-0_u_i", "demo-node-0", "node", "1", duration_s=duration_s)
    now, dead = 0.0, set[tuple[str, str, str]]()
    monitor.listed([("default", "demo", session)], now)
    while not dead:
        now += 1.5 * monitor.heartbeat(1.0)
        monitor.proved(now)
        dead = monitor.expire()
        assert now < 4 * duration_s, "one session is most of them: it has two durations"


def test_nothing_can_expire_while_the_watch_is_broken() -> None:
    watch = Watch()
    watch.monitor.interrupted()
    assert watch.monitor.next_expiry() is None


def test_while_the_observer_doubts_itself_nobody_is_due() -> None:
    """Else the operator would make the watch move again and again until that has passed."""
    watch = Watch()
    watch.pass_seconds(10, 0)
    assert watch.monitor.next_expiry() == 120.0
    assert watch.pass_seconds(10, 0) == {"demo-node-1", "demo-node-2"}


def test_the_next_expiry_is_the_oldest_renewal_plus_its_duration() -> None:
    watch = Watch()
    watch.pass_seconds(4, 0, 1)
    assert watch.monitor.next_expiry() == 110.0
    watch.pass_seconds(6, 0, 1)
    assert watch.monitor.next_expiry() == 120.0
