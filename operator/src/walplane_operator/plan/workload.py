"""How many nodes there shall be now, and which of them is emptied or replaced. Pure. Layer: plan.

Contract: stateless: the same sight gives the same decision, so that a restart of the operator
changes nothing. A node leaves only when no PChannel's Lease names it. One pod at a time is replaced
for a roll-out, and only while all others are ready and live and a coordinator of the new template
leads; a pod that never ran is replaced at once, since it holds nothing and may be what the roll-out
mends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from walplane_operator.api import names
from walplane_operator.plan.channels import ChannelView, Phase
from walplane_operator.plan.observed import Observed, Pod, Workload

DRAINING = "Draining"
ROLLING_OUT = "RollingOut"


@dataclass(frozen=True)
class Progress:
    """What is going on, for people."""

    reason: str
    message: str


@dataclass(frozen=True)
class Workforce:
    """The decision.

    Attributes:
        replicas: of the StatefulSet, now.
        cordoned: pods that get nothing new and are emptied.
        replace: pod to delete now; its successor comes from the new template.
        progress: None when nothing of this kind goes on.
    """

    replicas: int
    cordoned: frozenset[str] = frozenset()
    replace: Pod | None = None
    progress: Progress | None = None


def decide(observed: Observed, views: Sequence[ChannelView]) -> Workforce:
    """The nodes as they shall be now."""
    wanted = observed.cluster.spec.nodes.replicas
    present = observed.node_set
    if present is None or observed.cluster.embedded:
        return Workforce(wanted)
    if wanted < present.replicas:
        return _shrink(observed, wanted, present.replicas)
    return _roll_out(observed, views, present, wanted)


def _shrink(observed: Observed, wanted: int, present: int) -> Workforce:
    leaving = [names.node_pod(observed.cluster.name, n) for n in range(wanted, present)]
    highest = leaving[-1]
    held = len(observed.held_by(highest))
    alone = not _others_usable(observed, frozenset(leaving))
    settled = observed.node_set is not None and observed.node_set.current
    surplus = [pod for pod in observed.pods.values() if pod.ordinal >= present]
    if held == 0 and settled and not surplus:
        progress = Progress(DRAINING, f"{highest} is empty and goes; {wanted} nodes are wanted")
        return Workforce(present - 1, frozenset(leaving), progress=progress)
    message = f"{highest} holds {held} PChannels that move first"
    if surplus:
        message = f"{surplus[0].name} is on its way out"
    elif alone:
        message += "; no other node is ready to take them"
    return Workforce(present, frozenset(leaving), progress=Progress(DRAINING, message))


def _roll_out(
    observed: Observed, views: Sequence[ChannelView], present: Workload, wanted: int
) -> Workforce:
    pods = sorted(observed.pods.values(), key=lambda pod: -pod.ordinal)
    outdated = [
        pod for pod in pods if present.current and pod.revision and pod.revision != present.revision
    ]
    if not outdated:
        return Workforce(wanted)
    leaving = next((pod for pod in outdated if pod.terminating), None)
    if leaving is not None:
        progress = Progress(ROLLING_OUT, f"{leaving.name} is on its way out")
        return Workforce(wanted, frozenset({leaving.name}), progress=progress)
    idle = next((pod for pod in outdated if _never_ran(observed, pod)), None)
    if idle is not None:
        progress = Progress(ROLLING_OUT, f"{idle.name} never ran ({idle.waiting}): replaced")
        return Workforce(wanted, replace=idle, progress=progress)
    return _replace_next(observed, views, outdated, wanted)


def _replace_next(
    observed: Observed, views: Sequence[ChannelView], outdated: list[Pod], wanted: int
) -> Workforce:
    victim, left = outdated[0], len(outdated)
    waiting = _not_ready(observed, wanted, victim) or _coordinator_not_ready(observed)
    if waiting:
        progress = Progress(ROLLING_OUT, f"{left} pods are outdated; waits for {waiting}")
        return Workforce(wanted, progress=progress)
    cordoned = frozenset({victim.name})
    held = len(observed.held_by(victim.name))
    # What fails again and again must not hold up the roll-out that may mend it.
    moving = [view for view in views if view.phase is not Phase.SERVED and not view.failing]
    if wanted > 1 and (held or moving):
        message = f"{victim.name} is emptied: {held} PChannels left, {len(moving)} on the move"
        return Workforce(wanted, cordoned, progress=Progress(ROLLING_OUT, message))
    message = f"{victim.name} is replaced; {left} pods were outdated"
    return Workforce(wanted, cordoned, victim, Progress(ROLLING_OUT, message))


def _never_ran(observed: Observed, pod: Pod) -> bool:
    sessions = [n for n in observed.nodes.values() if n.session.pod == pod.name and n.alive]
    return not pod.ready and bool(pod.waiting) and not sessions and not observed.held_by(pod.name)


def _coordinator_not_ready(observed: Observed) -> str:
    """What is wanting of the coordinator: without one, nobody takes over what a node gives back."""
    if observed.coord is not None and not observed.coord.rolled:
        return f"{names.coord(observed.cluster.name)}, which is replaced itself"
    return "" if observed.led else "a coordinator that leads"


def _not_ready(observed: Observed, wanted: int, victim: Pod) -> str:
    """The first node beside `victim` that does not serve yet, and why."""
    usable = {node.session.pod for node in observed.nodes.values() if node.usable}
    for ordinal in range(wanted):
        name = names.node_pod(observed.cluster.name, ordinal)
        pod = observed.pods.get(name)
        if name == victim.name:
            continue
        if pod is None or not pod.ready or name not in usable:
            return f"{name} ({pod.waiting})" if pod is not None and pod.waiting else name
    return ""


def _others_usable(observed: Observed, leaving: frozenset[str]) -> bool:
    return any(n.usable and n.session.pod not in leaving for n in observed.nodes.values())
