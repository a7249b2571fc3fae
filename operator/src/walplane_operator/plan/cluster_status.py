"""Status of a WALCluster: phase, counts, conditions. Pure. Layer: plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from walplane.channel import cchannel_name
from walplane_operator.api import names
from walplane_operator.api.conditions import Condition, merge, truth
from walplane_operator.api.names import Object
from walplane_operator.manifests.config import endpoint
from walplane_operator.plan.channels import LEASE_CONFLICT
from walplane_operator.plan.observed import Observed
from walplane_operator.plan.workload import Progress

_ROLE = "PRIMARY"
_HELD_UP = {"Quarantined", "SegmentsWait"}  # they serve, and their logs only grow
_REPEATED = 2
"""A PChannel that failed this often needs a look."""


@dataclass(frozen=True)
class Sight:
    """What the status is made of.

    Attributes:
        channels: status of every PChannel, in order.
        progress: what goes on with the nodes.
        refused: what the API server said to manifests.
    """

    observed: Observed
    channels: Sequence[Object]
    progress: Progress | None
    refused: tuple[str, ...] = ()

    @property
    def assigned(self) -> int:
        """PChannels that are served."""
        return sum(status["state"] == "Assigned" for status in self.channels)

    @property
    def nodes_ready(self) -> int:
        """StreamingNodes that serve: pod ready, session alive."""
        sessions = {n.session.pod for n in self.observed.nodes.values() if n.alive}
        if self.observed.cluster.embedded:
            sessions = set(self.observed.pods)
        pods = self.observed.pods.items()
        return sum(pod.ready and not pod.terminating and name in sessions for name, pod in pods)

    @property
    def coord_ready(self) -> int:
        """Coordinators that serve or stand by."""
        if self.observed.cluster.embedded:
            return self.nodes_ready
        return self.observed.coord.ready if self.observed.coord else 0


def cluster_status(sight: Sight) -> Object:
    """The whole status."""
    observed, cluster = sight.observed, sight.observed.cluster
    conditions = merge(
        cluster.status.get("conditions") or [], _conditions(sight), cluster.generation, observed.now
    )
    nodes, coord = cluster.spec.nodes.replicas, cluster.spec.coord.replicas
    truths = {one["type"]: one["status"] for one in conditions}
    return {
        "phase": _phase(sight, truths),
        "observedGeneration": cluster.generation,
        "backend": "Embedded" if cluster.embedded else "Pulsar",
        "prefix": cluster.prefix,
        "selector": names.selector_text(names.selector(cluster.name, names.NODE)),
        "cchannel": cchannel_name(cluster.channel(0)),
        "endpoints": {"coord": endpoint(cluster)},
        "pchannels": {"total": len(sight.channels), "assigned": sight.assigned},
        "nodes": {
            "replicas": sum(not pod.terminating for pod in observed.pods.values()),
            "ready": sight.nodes_ready,
            "summary": f"{sight.nodes_ready}/{nodes}",
        },
        "coord": {"ready": sight.coord_ready, "summary": f"{sight.coord_ready}/{coord}"},
        "replication": {"role": _ROLE},
        "conditions": conditions,
    }


def _phase(sight: Sight, truths: dict[str, str]) -> str:
    cluster = sight.observed.cluster
    if cluster.deleted_at:
        return "Deleting"
    if cluster.spec.paused:
        return "Paused"
    if truths["Degraded"] == "True":
        return "Degraded"
    # A PChannel on the move makes no running cluster pending.
    ran = cluster.status.get("phase") in ("Running", "Degraded", "Paused")
    moving = ran and sight.assigned > 0
    return "Running" if truths["Assigned"] == "True" or moving else "Pending"


def _conditions(sight: Sight) -> list[Condition]:
    assigned, degraded = _assigned(sight), _degraded(sight)
    return [
        _ready(sight, assigned),
        _progressing(sight, assigned),
        degraded,
        _backend(sight),
        assigned,
    ]


def _ready(sight: Sight, assigned: Condition) -> Condition:
    spec = sight.observed.cluster.spec
    if assigned.status != "True":
        return Condition("Ready", "False", assigned.reason, assigned.message)
    short = _short(sight)
    if short:
        return Condition("Ready", "False", "PodsNotReady", short)
    message = (
        f"{len(sight.channels)} PChannels are served by {spec.nodes.replicas} nodes"
        if spec.nodes.replicas > 1
        else f"{len(sight.channels)} PChannels are served"
    )
    return Condition("Ready", "True", "Serving", message)


def _short(sight: Sight) -> str:
    """Which pods are missing; empty when all are there."""
    spec = sight.observed.cluster.spec
    if sight.nodes_ready < spec.nodes.replicas:
        what = f"{sight.nodes_ready} of {spec.nodes.replicas} nodes are ready"
        waiting = [f"{p.name}: {p.waiting}" for p in sight.observed.pods.values() if p.waiting]
        return "; ".join([what, *waiting[:3]])
    if sight.coord_ready < spec.coord.replicas:
        what = f"{sight.coord_ready} of {spec.coord.replicas} coordinators are ready"
        waiting = [f"{p.name}: {p.waiting}" for p in sight.observed.coord_pods if p.waiting]
        return "; ".join([what, *waiting[:3]])
    return ""


def _progressing(sight: Sight, assigned: Condition) -> Condition:
    if sight.observed.cluster.spec.paused:
        return Condition(
            "Progressing", "False", "Paused", "spec.paused: the operator changes nothing"
        )
    if sight.progress is not None:
        return Condition("Progressing", "True", sight.progress.reason, sight.progress.message)
    if short := _short(sight):
        return Condition("Progressing", "True", "PodsStarting", short)
    if assigned.status != "True":
        return Condition("Progressing", "True", assigned.reason, assigned.message)
    return Condition("Progressing", "False", "Settled", "everything is as it shall be")


def _degraded(sight: Sight) -> Condition:
    if sight.refused:
        return Condition("Degraded", "True", "Refused", "; ".join(sight.refused))
    lost = _named(sight, lambda status: status.get("reason") == "DataLoss")
    if lost:
        return Condition("Degraded", "True", "DataLoss", lost)
    backend = _backend(sight)
    if backend.status == "False":
        return Condition("Degraded", "True", backend.reason, backend.message)
    held_up = _named(sight, lambda status: status.get("reason") in _HELD_UP)
    if held_up:
        return Condition("Degraded", "True", "ChannelsHeldUp", held_up)
    failing = _named(sight, _fails)
    if failing:
        return Condition("Degraded", "True", "ChannelsUnavailable", failing)
    return Condition("Degraded", "False", "AsExpected")


def _fails(status: Object) -> bool:
    return status.get("attempts", 0) >= _REPEATED or status.get("reason") == LEASE_CONFLICT


def _named(sight: Sight, wanted: Callable[[Object], bool]) -> str:
    """The first PChannel of that kind, how many there are, and why; empty for none."""
    found = [(index, status) for index, status in enumerate(sight.channels) if wanted(status)]
    if not found:
        return ""
    index, status = found[0]
    name = names.pchannel_object(sight.observed.cluster.name, index)
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    why = status.get("message") or status.get("reason") or status["state"]
    return f"{name}{more}: {why}"


def _backend(sight: Sight) -> Condition:
    observed, kind = sight.observed, "BackendReachable"
    if observed.cluster.embedded:
        ready = sight.nodes_ready > 0
        reason = "PodReady" if ready else "PodNotReady"
        return Condition(kind, "True" if ready else "Unknown", reason, "the log is in the pod")
    claimed = _named(sight, lambda status: status.get("reason") == "ClaimedByOther")
    if claimed:
        return Condition(kind, "False", "ClaimedByOther", claimed)
    if observed.leader is not None:
        return Condition(kind, "True", "Reachable", "the coordinator's own topic is open")
    for session in observed.coords:
        report = session.report.backend
        if report is not None and not report.reachable and report.reason:
            return Condition(kind, "False", report.reason, f"{session.pod}: {report.message}")
    if observed.coords:
        return Condition(kind, "Unknown", "NoLeader", "no coordinator leads yet")
    waiting = [f"{pod.name}: {pod.waiting}" for pod in observed.coord_pods if pod.waiting]
    return Condition(
        kind, "Unknown", "NoReport", "; ".join(["no coordinator has reported", *waiting])
    )


def _assigned(sight: Sight) -> Condition:
    total = len(sight.channels)
    if sight.assigned == total:
        return Condition("Assigned", "True", "AllAssigned", f"{total} of {total} PChannels")
    why = _named(sight, lambda status: status["state"] != "Assigned")
    first = next(status for status in sight.channels if status["state"] != "Assigned")
    reason = first.get("reason") or first["state"]
    return Condition("Assigned", truth(False), reason, f"{sight.assigned} of {total}; {why}")
