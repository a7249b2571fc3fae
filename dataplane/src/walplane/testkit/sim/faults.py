"""What scenarios do to a cluster, by name. Layer: testkit.

Contract: a fault takes what it needs from two numbers drawn when the plan was made: which of the
candidates it hits, and how hard. A fault that finds nothing to hit does nothing. What lasts ends by
itself, or when the scenario heals everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from walplane.testkit.sim.backend import HOST as BACKEND
from walplane.testkit.sim.cluster import SimCluster
from walplane.testkit.sim.leases import HOST as LEASES
from walplane.testkit.sim.process import Process
from walplane.testkit.sim.workload import User

_T = TypeVar("_T")

_HOUR_MS = 3_600_000


class Stage(NamedTuple):
    """What faults act on."""

    cluster: SimCluster
    users: Sequence[User]


Fault = Callable[[Stage, int, float], None]
"""Takes (stage, which, how hard between 0 and 1)."""

FAULTS: dict[str, tuple[int, Fault]] = {}
"""Weight and deed by name."""


def fault(weight: int) -> Callable[[Fault], Fault]:
    """Enters a fault under its function's name."""

    def enter(deed: Fault) -> Fault:
        FAULTS[deed.__name__] = (weight, deed)
        return deed

    return enter


def _pick(candidates: Sequence[_T], which: int) -> _T | None:
    return candidates[which % len(candidates)] if candidates else None


def _owner(stage: Stage, which: int) -> Process | None:
    """The node that holds a PChannel, as the Leases have it."""
    cluster = stage.cluster
    holder = cluster.leases.channel(cluster.pchannels[which % len(cluster.pchannels)]).node_id
    for node in cluster.nodes.values():
        if node.process.name == holder:
            return node.process
    return None


def _coordinator(stage: Stage) -> Process | None:
    coordinator = _pick(stage.cluster.coordinators, -1)
    return coordinator.process if coordinator is not None else None


@fault(6)
def kill_owner(stage: Stage, which: int, force: float) -> None:
    """Between two of its next steps: mid-append, mid-checkpoint, wherever that is."""
    if (owner := _owner(stage, which)) is not None:
        stage.cluster.kill_within(owner, 1 + int(400 * force * force))


@fault(3)
def kill_node(stage: Stage, which: int, force: float) -> None:
    """Any node, for instance one that opens."""
    if (node := _pick(list(stage.cluster.nodes.values()), which)) is not None:
        stage.cluster.kill_within(node.process, 1 + int(100 * force))


@fault(2)
def kill_coordinator(stage: Stage, which: int, force: float) -> None:
    """Between two of its next steps."""
    if (coordinator := _coordinator(stage)) is not None:
        stage.cluster.kill_within(coordinator, 1 + int(60 * force))


@fault(1)
def second_coordinator(stage: Stage, which: int, force: float) -> None:
    """Two at once: the older one finds out."""
    if len(stage.cluster.coordinators) == 1:
        stage.cluster.start_coordinator()


@fault(3)
def pause_owner(stage: Stage, which: int, force: float) -> None:
    """SIGSTOP for a third of a lease up to ten of them, then SIGCONT."""
    if (owner := _owner(stage, which)) is not None:
        stage.cluster.pause(owner, stage.cluster.shape.lease_s * 0.3 * 33.0**force)


@fault(1)
def pause_coordinator(stage: Stage, which: int, force: float) -> None:
    """SIGSTOP for up to five seconds."""
    if (coordinator := _coordinator(stage)) is not None:
        stage.cluster.pause(coordinator, 5.0 * force)


@fault(5)
def move(stage: Stage, which: int, force: float) -> None:
    """Granted to another node while the present owner knows nothing: two owners at once."""
    pchannel = stage.cluster.pchannels[which % len(stage.cluster.pchannels)]
    stage.cluster.leases.move(pchannel, rest_after_s=2.0 * force * force)


@fault(3)
def overtake(stage: Stage, which: int, force: float) -> None:
    """Granted twice in a row: the first one hears of its grant before anybody of the second."""
    leases = stage.cluster.leases
    pchannel = stage.cluster.pchannels[which % len(stage.cluster.pchannels)]
    late = 0.02 * force
    leases.move(pchannel, told_after_s=late, rest_after_s=late)
    leases.move(pchannel, told_after_s=late + force, rest_after_s=late + force)


@fault(2)
def ask_back(stage: Stage, which: int, force: float) -> None:
    """Drained and granted anew."""
    stage.cluster.leases.ask_back(stage.cluster.pchannels[which % len(stage.cluster.pchannels)])


@fault(4)
def repeat_grant(stage: Stage, which: int, force: float) -> None:
    """A grant of old arrives once more."""
    if stage.cluster.leases.grants:
        stage.cluster.leases.repeat_grant()


@fault(6)
def cut(stage: Stage, which: int, force: float) -> None:
    """A partition, one way or both, for up to eight seconds."""
    cluster = stage.cluster
    nodes = sorted(cluster.nodes)
    sides = [(node, other) for node in nodes for other in (BACKEND, LEASES, "coord")]
    sides += [("coord", BACKEND)]
    sides += [(user.process.host, node) for user in stage.users for node in nodes]
    one, other = sides[which % len(sides)]
    kind = which // len(sides) % 3
    seconds = 8.0 * force * force
    if kind != 1:
        cluster.network.cut(one, other)
        cluster.network.world(seconds, cluster.network.heal, one, other)
    if kind != 2:
        cluster.network.cut(other, one)
        cluster.network.world(seconds, cluster.network.heal, other, one)


@fault(3)
def outage(stage: Stage, which: int, force: float) -> None:
    """The backend is down for up to six seconds; most times it loses what it did not sync."""
    broker = stage.cluster.broker
    broker.fail(crash=which % 4 > 0)
    stage.cluster.network.world(6.0 * force**3, broker.recover)


@fault(8)
def flaky(stage: Stage, which: int, force: float) -> None:
    """For a while, the backend's client library does what they all do."""
    manners = stage.cluster.broker.manners
    name = ("mute", "times_out", "gap", "no_id", "resets", "stalls")[which % 6]
    setattr(manners, name, 0.02 + 0.3 * force)
    stage.cluster.network.world(2.0, setattr, manners, name, 0.0)


@fault(2)
def slow_disk(stage: Stage, which: int, force: float) -> None:
    """Syncs take up to two seconds, for a while."""
    cluster = stage.cluster
    cluster.disk.sync_s = 2.0 * force * force
    cluster.network.world(3.0, setattr, cluster.disk, "sync_s", cluster.shape.sync_s)


@fault(1)
def disk_full(stage: Stage, which: int, force: float) -> None:
    """The backend can write nothing for a while."""
    stage.cluster.broker.fail_storage("no space left", lost=False)
    stage.cluster.network.world(2.0 * force, stage.cluster.broker.recover)


@fault(1)
def fsync_error(stage: Stage, which: int, force: float) -> None:
    """What was not synced is lost; nothing is written before the backend was started again."""
    broker, world = stage.cluster.broker, stage.cluster.network.world
    broker.fail_storage("fsync failed", lost=True)
    world(2.0 * force, partial(broker.fail, crash=True))
    world(2.0 * force + 0.5, broker.recover)


@fault(2)
def bit_flips(stage: Stage, which: int, force: float) -> None:
    """Records come damaged from the disk, for a while."""
    manners = stage.cluster.broker.manners
    manners.flips = 0.2 * force * force
    stage.cluster.network.world(1.0, setattr, manners, "flips", 0.0)


@fault(2)
def no_api_server(stage: Stage, which: int, force: float) -> None:
    """Nobody reaches the store of Leases, and nothing is decided, for up to eight seconds."""
    cluster = stage.cluster
    seconds = 8.0 * force * force
    cluster.leases.frozen = True
    cluster.network.world(seconds, setattr, cluster.leases, "frozen", False)
    for host in [*cluster.nodes, "coord"]:
        for way in ((host, LEASES), (LEASES, host)):
            cluster.network.cut(*way)
            cluster.network.world(seconds, cluster.network.heal, *way)


@fault(3)
def bad_weather(stage: Stage, which: int, force: float) -> None:
    """Spikes, losses and doubles, for a while."""
    weather = stage.cluster.network.weather
    name = ("spike", "lost", "doubled")[which % 3]
    setattr(weather, name, 0.4 * force)
    stage.cluster.network.world(3.0, setattr, weather, name, 0.0)


@fault(2)
def clock_jump(stage: Stage, which: int, force: float) -> None:
    """A wall clock is off by up to an hour from now on."""
    coordinator = _coordinator(stage)
    processes = [node.process for node in stage.cluster.nodes.values()]
    hit = _pick([*processes, *([coordinator] if coordinator else [])], which)
    if hit is not None:
        hit.skew_ms = int(_HOUR_MS * (2 * force - 1))


@fault(3)
def kill_user(stage: Stage, which: int, force: float) -> None:
    """A program dies, and goes on later from what it remembers."""
    if (user := _pick(stage.users, which)) is not None:
        user.kill_within(1 + int(60 * force))
