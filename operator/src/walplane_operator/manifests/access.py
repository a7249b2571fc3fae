"""Service accounts, Roles, and disruption budgets. Pure. Layer: manifests.

Contract: pods write Leases and nothing else; the coordinator also reads PChannels.
"""

from __future__ import annotations

from walplane_operator.api import names
from walplane_operator.api.names import Object
from walplane_operator.api.spec import WALCluster
from walplane_operator.manifests.common import metadata

_LEASES: Object = {
    "apiGroups": ["coordination.k8s.io"],
    "resources": ["leases"],
    "verbs": ["get", "list", "watch", "create", "update", "delete"],
}
_READ_PCHANNELS: Object = {
    "apiGroups": [names.GROUP],
    "resources": ["pchannels"],
    "verbs": ["get", "list", "watch"],
}
_RBAC = "rbac.authorization.k8s.io"
RULES = {names.NODE: [_LEASES], names.COORD: [_LEASES, _READ_PCHANNELS]}
"""What each component's pods may do."""


def access(cluster: WALCluster, component: str, name: str) -> list[Object]:
    """ServiceAccount, Role and RoleBinding of one component."""
    about = metadata(cluster, name, component)
    role = {"apiGroup": _RBAC, "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": cluster.namespace}
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": about,
            "automountServiceAccountToken": False,
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "Role",
            "metadata": about,
            "rules": RULES[component],
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": about,
            "roleRef": role,
            "subjects": [subject],
        },
    ]


def disruption_budget(cluster: WALCluster, component: str, name: str) -> Object:
    """One pod of a component at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(cluster, name, component),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": names.selector(cluster.name, component)},
        },
    }
