"""Names, labels and annotations, by docs/kubernetes.md; those of Leases are `lease.contract`'s.

Contract: pure; one function or constant for each name, used everywhere. Layer: api.
"""

from __future__ import annotations

import hashlib
from typing import Any

from walplane.lease import contract

Object = dict[str, Any]
"""A Kubernetes object as JSON."""

GROUP = "walplane.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
WALCLUSTER = "WALCluster"
PCHANNEL = "PChannel"

FIELD_MANAGER = "walplane-operator"
FINALIZER = f"{GROUP}/topics"

LABEL_LEASE = contract.KIND_LABEL
LABEL_CLUSTER = contract.CLUSTER_LABEL
LABEL_COMPONENT = contract.COMPONENT_LABEL
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "walplane-operator"

LEASE_SESSION = contract.SESSION
LEASE_PCHANNEL = contract.PCHANNEL
LEASE_OPERATOR = "operator"

NODE = contract.NODE
COORD = contract.COORD

ANNOTATION_REPORT = contract.REPORT
ANNOTATION_CHANNEL = contract.CHANNEL
ANNOTATION_TERM = contract.TERM
ANNOTATION_READY_TERM = contract.READY_TERM
ANNOTATION_RELEASE = contract.RELEASE
ANNOTATION_ADOPT = contract.ADOPT
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
    """The pod in a session `<pod>_<uid>_<incarnation>`; of no such form: `session` itself."""
    return contract.pod_of(session)


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
