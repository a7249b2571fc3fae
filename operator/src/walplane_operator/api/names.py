"""Names, labels and annotations: the operator's half of the contract in docs/kubernetes.md.

Contract: pure; one function or constant for each name, used everywhere. Layer: api.
"""

from __future__ import annotations

import hashlib
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object as JSON."""

GROUP = "walplane.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
WALCLUSTER = "WALCluster"
PCHANNEL = "PChannel"

FIELD_MANAGER = "walplane-operator"
FINALIZER = f"{GROUP}/topics"

LABEL_LEASE = f"{GROUP}/lease"
LABEL_CLUSTER = f"{GROUP}/cluster"
LABEL_COMPONENT = f"{GROUP}/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "walplane-operator"

LEASE_SESSION = "session"
LEASE_PCHANNEL = "pchannel"
LEASE_COORD = "coord"
LEASE_OPERATOR = "operator"

NODE = "node"
COORD = "coord"

ANNOTATION_REPORT = f"{GROUP}/report"
ANNOTATION_CHANNEL = f"{GROUP}/channel"
ANNOTATION_TERM = f"{GROUP}/term"
ANNOTATION_READY_TERM = f"{GROUP}/ready-term"
ANNOTATION_RELEASE = f"{GROUP}/release"
ANNOTATION_ADOPT = f"{GROUP}/adopt"
ANNOTATION_CONFIG = f"{GROUP}/config"

COORD_PORT = 7650
NODE_PORT = 7651
METRICS_PORT = 7660

MAX_PREFIX = 40
_HASH_DIGITS = 8


def default_prefix(namespace: str, cluster: str) -> str:
    """Of the topics' names, when the user names none; cut with a hash above 40 characters."""
    prefix = f"{namespace}-{cluster}"
    if len(prefix) <= MAX_PREFIX:
        return prefix
    digest = hashlib.sha256(prefix.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{prefix[: MAX_PREFIX - _HASH_DIGITS - 1].rstrip('-')}-{digest}"


def node_set(cluster: str) -> str:
    """StatefulSet of the nodes, and everything that goes with it."""
    return f"{cluster}-node"


def coord(cluster: str) -> str:
    """Deployment, Service and Lease of the coordinator, and everything that goes with them."""
    return f"{cluster}-coord"


def config_map(cluster: str) -> str:
    """What the pods of the cluster are told."""
    return f"{cluster}-config"


def node_pod(cluster: str, ordinal: int) -> str:
    """A StreamingNode's pod."""
    return f"{node_set(cluster)}-{ordinal}"


def data_claim(cluster: str) -> str:
    """PersistentVolumeClaim of an embedded cluster."""
    return f"data-{node_pod(cluster, 0)}"


def pchannel_object(cluster: str, index: int) -> str:
    """The PChannel object."""
    return f"{cluster}-{index}"


def pchannel_lease(cluster: str, index: int) -> str:
    """The Lease that decides who holds a PChannel."""
    return f"{cluster}-pch-{index}"


def pod_of(session: str) -> str:
    """The pod in a session `<pod>_<uid>_<incarnation>`; empty for nobody."""
    return session.partition("_")[0]


def selector(cluster: str, component: str) -> dict[str, str]:
    """Labels that select the pods of one component; never changed, Deployments pin them."""
    return {
        "app.kubernetes.io/name": "walplane",
        LABEL_CLUSTER: cluster,
        LABEL_COMPONENT: component,
    }


def selector_text(labels: dict[str, str]) -> str:
    """`labels` as a label selector."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def owner_reference(owner: Object, *, controller: bool) -> Object:
    """A reference to `owner`, by which the garbage collector takes what it owns along."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": True,
    }
    return reference | {"controller": True} if controller else reference
