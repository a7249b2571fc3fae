"""The Leases of a cluster as text and as values: names, labels, annotations, edits. Pure.

Contract: a Lease is the dictionary that the API server sends; an edit returns a changed copy that
keeps everything else, so that it can be PUT back with the resourceVersion it was read with. What
is granted stands in a PChannel's Lease alone: holder, term, whether it was asked back, whether its
holder confirmed. Layer: lease.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

API_VERSION = "coordination.k8s.io/v1"
CLUSTER_API_VERSION = "walplane.dev/v1alpha1"
KIND_LABEL = "walplane.dev/lease"
CLUSTER_LABEL = "walplane.dev/cluster"
COMPONENT_LABEL = "walplane.dev/component"
CHANNEL = "walplane.dev/channel"
TERM = "walplane.dev/term"
READY_TERM = "walplane.dev/ready-term"
RELEASE = "walplane.dev/release"
ADOPT = "walplane.dev/adopt"
REPORT = "walplane.dev/report"

SESSION = "session"
PCHANNEL = "pchannel"
COORDINATOR = "coord"
"""Values of `KIND_LABEL`."""

NODE = "node"
COORD = "coord"
"""Values of `COMPONENT_LABEL` on a session Lease."""

Body = dict[str, Any]
"""A Lease as the API server sends and takes it."""


@dataclass(frozen=True)
class Identity:
    """One process: a container that was killed keeps pod and uid, never the incarnation."""

    pod: str
    uid: str
    incarnation: str

    def __str__(self) -> str:
        """As it stands in holderIdentity."""
        return f"{self.pod}_{self.uid}_{self.incarnation}"

    @classmethod
    def parse(cls, holder: str) -> Identity | None:
        """The identity that `holder` names; None when it is not of that form."""
        parts = holder.split("_")
        return cls(*parts) if len(parts) == 3 and all(parts) else None


def pod_of(holder: str) -> str:
    """The pod that a holderIdentity names, or what stands there instead."""
    identity = Identity.parse(holder)
    return identity.pod if identity is not None else holder


def pchannel_lease_name(cluster: str, pchannel: str) -> str:
    """Name of the Lease of `<prefix>_<index>`."""
    return f"{cluster}-pch-{pchannel.rpartition('_')[2]}"


def coord_lease_name(cluster: str) -> str:
    """Name of the coordinator's Lease."""
    return f"{cluster}-coord"


def selector(cluster: str, kind: str | None = None) -> str:
    """Label selector of a cluster's Leases, of one kind or all."""
    chosen = f"{CLUSTER_LABEL}={cluster}"
    return chosen if kind is None else f"{chosen},{KIND_LABEL}={kind}"


def name_of(body: Body) -> str:
    """The Lease's name."""
    return str(body["metadata"]["name"])


def kind_of(body: Body) -> str:
    """Which of ours it is; empty when it is none."""
    return str(_labels(body).get(KIND_LABEL, ""))


def holder_of(body: Body) -> str:
    """Its holderIdentity; empty when there is none."""
    return str((body.get("spec") or {}).get("holderIdentity") or "")


def duration_of(body: Body, default: float) -> float:
    """Its duration in seconds; `default` when it names none."""
    seconds = (body.get("spec") or {}).get("leaseDurationSeconds")
    return float(seconds) if seconds else default


def renewal_of(body: Body) -> tuple[str, str]:
    """What changes with every renewal, and with every new holder."""
    return holder_of(body), str((body.get("spec") or {}).get("renewTime") or "")


def annotation(body: Body, key: str) -> str:
    """One annotation; empty when it is not there."""
    return str((body["metadata"].get("annotations") or {}).get(key, ""))


def micro_time(wall_ms: int) -> str:
    """A time as Leases take it: exactly six fraction digits."""
    at = datetime.fromtimestamp(wall_ms / 1000, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True)
class PChannelLease:
    """What the Lease of one PChannel says.

    Attributes:
        name: of the Lease.
        channel: the PChannel.
        holder: identity of the process it is granted to; empty = nobody.
        term: of the latest grant; 0 = none yet.
        ready_term: the term that the holder confirmed; 0 = none.
        release: the term that is asked back; 0 = none.
        adopt: uid of the WALCluster whose claim on the topic may be replaced; empty = none.
        body: all of it, as read.
    """

    name: str
    channel: str
    holder: str = ""
    term: int = 0
    ready_term: int = 0
    release: int = 0
    adopt: str = ""
    body: Body = field(default_factory=dict, compare=False, repr=False)

    @property
    def served(self) -> bool:
        """Whether its holder confirmed that it serves under the present term."""
        return bool(self.holder) and self.term > 0 and self.ready_term == self.term

    @classmethod
    def parse(cls, body: Body) -> PChannelLease:
        """The Lease's content.

        Raises:
            ValueError: it names no channel, or a term is no number.
        """
        channel = annotation(body, CHANNEL)
        if not channel:
            raise ValueError(f"Lease {name_of(body)} lacks the annotation {CHANNEL}")
        return cls(
            name=name_of(body),
            channel=channel,
            holder=holder_of(body),
            term=_number(body, TERM),
            ready_term=_number(body, READY_TERM),
            release=_number(body, RELEASE),
            adopt=annotation(body, ADOPT),
            body=body,
        )

    def confirmed(self) -> Body:
        """The Lease after its holder said that it serves."""
        return _annotated(self.body, {READY_TERM: str(self.term)})

    def given_back(self) -> Body:
        """The Lease after its holder let go; the term stays, so that the next one is higher."""
        body = _annotated(self.body, {READY_TERM: None, RELEASE: None})
        body["spec"] = {**(body.get("spec") or {}), "holderIdentity": ""}
        return body


def held_body(
    base: Body | None,
    *,
    name: str,
    labels: Mapping[str, str],
    holder: str,
    duration_s: float,
    now: str,
    annotations: Mapping[str, str | None] | None = None,
    owner: Body | None = None,
) -> Body:
    """A session's or the coordinator's Lease, renewed by `holder`.

    Args:
        base: as it was read; None when it is not there.
        name: of the Lease.
        labels: it carries, besides those it has.
        holder: holderIdentity.
        duration_s: leaseDurationSeconds.
        now: the time, by `micro_time`.
        annotations: to set, or with None to remove.
        owner: the only ownerReference, when given.
    """
    body = _annotated(base or {"apiVersion": API_VERSION, "kind": "Lease"}, annotations or {})
    metadata = body["metadata"]
    metadata["name"] = name
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    spec = body["spec"] = dict(body.get("spec") or {})
    if spec.get("holderIdentity") != holder:
        spec["acquireTime"] = now
        spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (base is not None)
    spec.update(
        # whole seconds, for no observer may call it expired while its holder relies on it
        holderIdentity=holder,
        renewTime=now,
        leaseDurationSeconds=math.ceil(duration_s),
    )
    return body


def pod_reference(identity: Identity) -> Body:
    """The ownerReference that makes a Lease go with the pod."""
    return {"apiVersion": "v1", "kind": "Pod", "name": identity.pod, "uid": identity.uid}


def cluster_reference(cluster: str, uid: str) -> Body:
    """The ownerReference that makes a Lease go with the WALCluster."""
    return {"apiVersion": CLUSTER_API_VERSION, "kind": "WALCluster", "name": cluster, "uid": uid}


def _annotated(body: Body, changes: Mapping[str, str | None]) -> Body:
    body = copy.copy(body)
    metadata = body["metadata"] = dict(body.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    for key, value in changes.items():
        if value is None:
            annotations.pop(key, None)
        else:
            annotations[key] = value
    metadata["annotations"] = annotations
    metadata.pop("managedFields", None)  # a history that nobody reads: it only costs bytes
    return body


def _labels(body: Body) -> Mapping[str, str]:
    return body["metadata"].get("labels") or {}


def _number(body: Body, key: str) -> int:
    text = annotation(body, key)
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"annotation {key} of Lease {name_of(body)} is {text!r}, not a number")
    return int(text)
