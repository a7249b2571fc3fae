"""What is there for one WALCluster, as typed values. Pure. Layer: plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from walplane_operator.api import names
from walplane_operator.api.leases import PChannelLease, Session
from walplane_operator.api.names import Object
from walplane_operator.api.spec import PChannel, WALCluster

_REVISION = "controller-revision-hash"


@dataclass(frozen=True)
class Pod:
    """A StreamingNode's pod.

    Attributes:
        ordinal: in the StatefulSet; -1 when the name has none.
        revision: of the template it was made from.
        waiting: why its container does not run, when it says so.
    """

    name: str
    uid: str
    ordinal: int
    ready: bool
    terminating: bool
    revision: str
    waiting: str

    @classmethod
    def read(cls, raw: Object) -> Pod:
        """The pod as it was read."""
        metadata, status = raw["metadata"], raw.get("status") or {}
        ordinal = metadata["name"].rpartition("-")[2]
        conditions = {c["type"]: c["status"] for c in status.get("conditions") or []}
        states = [c.get("state") or {} for c in status.get("containerStatuses") or []]
        reasons = [(s.get("waiting") or {}).get("reason", "") for s in states]
        if conditions.get("PodScheduled") == "False":
            reasons.insert(0, "Unschedulable")
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            ordinal=int(ordinal) if ordinal.isdigit() else -1,
            ready=conditions.get("Ready") == "True",
            terminating="deletionTimestamp" in metadata,
            revision=(metadata.get("labels") or {}).get(_REVISION, ""),
            waiting=next((reason for reason in reasons if reason), ""),
        )


@dataclass(frozen=True)
class Workload:
    """A StatefulSet or a Deployment.

    Attributes:
        replicas: as its spec says.
        ready: pods that are.
        current: its status speaks of its present spec.
        rolled: every pod of it, as many as it shall have, is of its present template.
        revision: of its present template (StatefulSet).
        image: of its container.
    """

    replicas: int
    ready: int
    current: bool
    revision: str
    image: str
    rolled: bool = True

    @classmethod
    def read(cls, raw: Object) -> Workload:
        """The workload as it was read."""
        spec, status = raw["spec"], raw.get("status") or {}
        containers = spec["template"]["spec"]["containers"]
        observed = status.get("observedGeneration", 0)
        replicas = spec.get("replicas", 1)
        current = observed >= raw["metadata"].get("generation", 0)
        counts = (status.get("replicas", 0), status.get("updatedReplicas", 0))
        return cls(
            replicas=replicas,
            ready=status.get("readyReplicas", 0),
            current=current,
            rolled=current and counts == (replicas, replicas),
            revision=status.get("updateRevision", ""),
            image=containers[0]["image"],
        )


@dataclass(frozen=True)
class NodeSession:
    """A StreamingNode's session and whether it lives."""

    session: Session
    alive: bool

    @property
    def usable(self) -> bool:
        """Whether a PChannel may be granted to it."""
        return self.alive and not self.session.report.draining


@dataclass(frozen=True)
class Observed:
    """Everything that one reconcile decides upon.

    Attributes:
        pchannels: by index; those that the cluster asks for.
        foreign: PChannels that name the cluster and are none of its own, with the reason.
        leases: by index.
        nodes: by identity.
        coords: sessions of coordinators.
        node_set: None when it is not there.
        coord: None when it is not there.
        pods: of StreamingNodes, by name.
        coord_pods: of coordinators.
        now: wall clock, for what people read.
        clock: monotonic seconds, for what is decided.
    """

    cluster: WALCluster
    pchannels: Mapping[int, PChannel]
    foreign: tuple[tuple[PChannel, str], ...]
    leases: Mapping[int, PChannelLease]
    nodes: Mapping[str, NodeSession]
    coords: tuple[Session, ...]
    node_set: Workload | None
    coord: Workload | None
    pods: Mapping[str, Pod]
    coord_pods: tuple[Pod, ...]
    now: datetime
    clock: float

    @property
    def leader(self) -> Session | None:
        """The coordinator that leads; rather one that stays than one that is about to end."""
        leading = [one for one in self.coords if one.report.leading]
        return min(leading, key=lambda one: one.report.draining, default=None)

    @property
    def led(self) -> bool:
        """Whether a coordinator leads that stays: what is given back now can be taken over."""
        return self.leader is not None and not self.leader.report.draining

    def with_leases(self, written: Iterable[tuple[int, PChannelLease]]) -> Observed:
        """The same, after some Leases were written."""
        return replace(self, leases={**self.leases, **dict(written)})

    def held_by(self, pod: str) -> list[int]:
        """PChannels whose Lease names a session of that pod."""
        return [
            index
            for index, lease in sorted(self.leases.items())
            if names.pod_of(lease.holder) == pod
        ]


@dataclass(frozen=True)
class Raw:
    """Complete lists and objects as the API server gave them."""

    pchannels: list[Object]
    leases: list[Object]
    node_set: Object | None
    coord: Object | None
    pods: list[Object]


def read(
    cluster: WALCluster, raw: Raw, alive: Callable[[Session], bool], now: datetime, clock: float
) -> Observed:
    """The typed view of `raw`."""
    sessions = [Session.read(lease) for lease in _labelled(raw.leases, names.LEASE_SESSION)]
    own, foreign = _sort_pchannels(cluster, raw.pchannels)
    node_sessions = [
        s for s in sessions if s.identity and s.component == names.NODE and _own_pod(cluster, s.pod)
    ]
    return Observed(
        cluster=cluster,
        pchannels=own,
        foreign=foreign,
        leases=_pchannel_leases(cluster, raw.leases),
        nodes={s.identity: NodeSession(s, alive(s)) for s in node_sessions},
        coords=tuple(s for s in sessions if s.component == names.COORD and alive(s)),
        node_set=Workload.read(raw.node_set) if raw.node_set else None,
        coord=Workload.read(raw.coord) if raw.coord else None,
        pods={pod.name: pod for pod in _pods(raw.pods, names.NODE)},
        coord_pods=tuple(_pods(raw.pods, names.COORD)),
        now=now,
        clock=clock,
    )


def _pods(raw: list[Object], component: str) -> list[Pod]:
    return [
        Pod.read(pod)
        for pod in raw
        if pod["metadata"].get("labels", {}).get(names.LABEL_COMPONENT) == component
    ]


def _own_pod(cluster: WALCluster, pod: str) -> bool:
    prefix, _, ordinal = pod.rpartition("-")
    return prefix == names.node_set(cluster.name) and ordinal.isdigit()


def _labelled(leases: list[Object], kind: str) -> list[Object]:
    return [
        lease
        for lease in leases
        if (lease["metadata"].get("labels") or {}).get(names.LABEL_LEASE) == kind
    ]


def _pchannel_leases(cluster: WALCluster, leases: list[Object]) -> dict[int, PChannelLease]:
    by_name = {lease["metadata"]["name"]: lease for lease in leases}
    found = {}
    for index in range(cluster.spec.pchannels.count):
        lease = by_name.get(names.pchannel_lease(cluster.name, index))
        if lease is not None:
            found[index] = PChannelLease.read(lease)
    return found


def _sort_pchannels(
    cluster: WALCluster, raw: list[Object]
) -> tuple[dict[int, PChannel], tuple[tuple[PChannel, str], ...]]:
    own: dict[int, PChannel] = {}
    foreign: list[tuple[PChannel, str]] = []
    for pchannel in map(PChannel, raw):
        if pchannel.spec.cluster_ref != cluster.name:
            continue
        why = _wrong(cluster, pchannel)
        if why:
            foreign.append((pchannel, why))
        else:
            own[pchannel.spec.index] = pchannel
    return own, tuple(foreign)


def _wrong(cluster: WALCluster, pchannel: PChannel) -> str:
    """Why `pchannel` is none that the cluster asks for; empty when it is one."""
    index, count = pchannel.spec.index, cluster.spec.pchannels.count
    name = names.pchannel_object(cluster.name, index)
    if index >= count:
        return (
            f"WALCluster {cluster.name} has {count} PChannels, 0 to {count - 1}: delete this "
            "object, or raise spec.pchannels.count"
        )
    if pchannel.name != name:
        return f"PChannel {index} of WALCluster {cluster.name} is the object {name}: delete this"
    if pchannel.spec.channel != cluster.channel(index):
        return (
            f"PChannel {index} of WALCluster {cluster.name} is {cluster.channel(index)}, not "
            f"{pchannel.spec.channel}: delete this object, the operator makes it anew"
        )
    return ""
