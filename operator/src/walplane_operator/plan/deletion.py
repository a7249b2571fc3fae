"""The end of a WALCluster: pods first, then topics, within a deadline. Pure. Layer: plan.

Contract: only `deletionPolicy: Delete` holds the object by a finalizer, and no operator holds it
for longer than `DEADLINE_S`: a backend that is gone must not hang a namespace. That time is its
process' own and monotonic: its wall clock may be far from that of the API server.
"""

from __future__ import annotations

import enum

from walplane.channel import coord_topic, meta_topic
from walplane_operator.api import names
from walplane_operator.api.spec import WALCluster
from walplane_operator.plan.assignment import Release
from walplane_operator.plan.observed import Observed

DEADLINE_S = 120.0


class Ending(enum.Enum):
    """What to do next about an object that is being deleted."""

    NOTHING = "others hold it, or nobody"
    STOP_PODS = "the topics go once nobody serves them"
    DELETE_DATA = "nobody serves them any more"
    LET_GO = "the deadline has passed"


def wants_finalizer(cluster: WALCluster) -> bool | None:
    """Whether to add (True) or remove (False) the finalizer; None: it is as it shall be."""
    wanted = cluster.spec.deletion_policy == "Delete"
    present = names.FINALIZER in cluster.finalizers
    if wanted == present or (wanted and cluster.deleted_at):
        return None  # a finalizer cannot be added to what is being deleted
    return wanted


def ending(observed: Observed, began: float) -> Ending:
    """The next step of a deletion that was first seen at `began`, monotonic seconds."""
    cluster = observed.cluster
    if names.FINALIZER not in cluster.finalizers:
        return Ending.NOTHING
    if observed.clock - began >= DEADLINE_S:
        return Ending.LET_GO
    if observed.node_set or observed.coord or observed.pods or observed.coord_pods:
        return Ending.STOP_PODS
    return Ending.DELETE_DATA


def asked_back(observed: Observed) -> list[Release]:
    """What to ask holders for, so that no node waits for somebody to take its PChannels over."""
    return [
        Release(index, lease, "Deleted")
        for index, lease in sorted(observed.leases.items())
        if lease.holder and lease.release != lease.term
    ]


def topics(cluster: WALCluster) -> list[str]:
    """Every topic that the cluster may have made."""
    channels = [cluster.channel(index) for index in range(cluster.spec.pchannels.count)]
    return [*channels, *map(meta_topic, channels), coord_topic(cluster.prefix)]
