"""What manifests have in common: metadata, pods, probes. Pure. Layer: manifests.

Contract: pods fit the restricted pod security standard; the user's `podTemplate` is laid over them
and never removes a label that a selector needs.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field

from walplane_operator.api import names
from walplane_operator.api.names import Object
from walplane_operator.api.spec import WALCluster

GRACE_S = 120
"""terminationGracePeriodSeconds: time for a node to be drained."""
LIVENESS_PERIOD_S = 10
LEASES_TOLERATED = 4
ANSWERS = "grpc.health.v1.Health"
"""What health calls SERVING as soon as the process answers at all."""
_USER = 65532

_POD_SECURITY: Object = {
    "runAsNonRoot": True,
    "runAsUser": _USER,
    "runAsGroup": _USER,
    "fsGroup": _USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER_SECURITY: Object = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


_SCRAPED = {
    "prometheus.io/scrape": "true",
    "prometheus.io/port": str(names.METRICS_PORT),
    "prometheus.io/path": "/metrics",
}
# By the environment, not by a flag: an image that does not know it starts all the same.
_METRICS: Object = {"name": "WALPLANE_METRICS", "value": f"0.0.0.0:{names.METRICS_PORT}"}


def metadata(cluster: WALCluster, name: str, component: str | None = None) -> Object:
    """Of an object that the cluster owns."""
    labels = {names.LABEL_CLUSTER: cluster.name, names.LABEL_MANAGED_BY: names.MANAGED_BY}
    if component is not None:
        labels |= names.selector(cluster.name, component)
    return {
        "name": name,
        "namespace": cluster.namespace,
        "labels": labels,
        "ownerReferences": [cluster.owner()],
    }


def digest(value: object) -> str:
    """A short hash of a JSON value: a new one means that pods must start anew."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Container:
    """What differs between the containers of a cluster.

    Attributes:
        component: node or coord; the container's name too.
        port: of its gRPC server.
        args: of the command `walplane`.
        env: beyond what every container has.
        resources: requests and limits.
        mounts: volume mounts beyond `/tmp`.
        secret: whose keys become environment variables, if one shall.
    """

    component: str
    port: int
    args: list[str]
    env: list[Object] = field(default_factory=list)
    resources: Object = field(default_factory=dict)
    mounts: list[Object] = field(default_factory=list)
    secret: str | None = None


def pod_template(
    cluster: WALCluster, image: str, container: Container, config: Object, service_account: str
) -> Object:
    """The template of a component's pods.

    Args:
        cluster: whose pods.
        image: of the container.
        container: what runs.
        config: contents of the ConfigMap that the container reads as environment.
        service_account: empty for a pod that never calls the API server.
    """
    overlay = cluster.spec.pod_template
    labels = names.selector(cluster.name, container.component)
    managed = {names.LABEL_MANAGED_BY: names.MANAGED_BY}
    spec: Object = {
        "automountServiceAccountToken": bool(service_account),
        "enableServiceLinks": False,  # they would fill the environment with WALPLANE_… of Services
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": {**_POD_SECURITY, **overlay.security_context},
        "containers": [_container(cluster, image, container)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "topologySpreadConstraints": _spread(cluster, labels),
    }
    if service_account:
        spec["serviceAccountName"] = service_account
    if overlay.affinity:
        spec["affinity"] = overlay.affinity
    if overlay.tolerations:
        spec["tolerations"] = overlay.tolerations
    if overlay.priority_class:
        spec["priorityClassName"] = overlay.priority_class
    if overlay.image_pull_secrets:
        spec["imagePullSecrets"] = overlay.image_pull_secrets
    annotations = {**_SCRAPED, **overlay.annotations, names.ANNOTATION_CONFIG: digest(config)}
    return {
        "metadata": {"labels": {**overlay.labels, **managed, **labels}, "annotations": annotations},
        "spec": spec,
    }


def _container(cluster: WALCluster, image: str, container: Container) -> Object:
    return {
        "name": container.component,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": container.args,
        "env": [*_pod_environment(), _METRICS, *container.env],
        "envFrom": _sources(cluster, container),
        "ports": [_port("grpc", container.port), _port("metrics", names.METRICS_PORT)],
        "resources": container.resources,
        "securityContext": _CONTAINER_SECURITY,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *container.mounts],  # noqa: S108
        **_probes(container.port, cluster.spec.lease.duration_seconds),
    }


def _sources(cluster: WALCluster, container: Container) -> list[Object]:
    """The secret comes first: what the operator says wins."""
    secret = [{"secretRef": {"name": container.secret}}] if container.secret else []
    return [*secret, {"configMapRef": {"name": names.config_map(cluster.name)}}]


def _port(name: str, number: int) -> Object:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _pod_environment() -> list[Object]:
    fields = {
        "WALPLANE_POD_NAME": "metadata.name",
        "WALPLANE_POD_UID": "metadata.uid",
        "WALPLANE_NAMESPACE": "metadata.namespace",
        "WALPLANE_POD_IP": "status.podIP",
    }
    return [
        {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
        for name, path in fields.items()
    ]


def _probes(port: int, lease_s: int) -> Object:
    """Ready is who serves; alive is who answers, however long its start replays a log.

    Liveness gives a process four lease durations.
    """
    ready: Object = {"grpc": {"port": port, "service": ""}, "timeoutSeconds": 5}
    alive: Object = {"grpc": {"port": port, "service": ANSWERS}, "timeoutSeconds": 5}
    tolerated = math.ceil(LEASES_TOLERATED * lease_s / LIVENESS_PERIOD_S) + 1
    return {
        "startupProbe": {**alive, "periodSeconds": 1, "failureThreshold": 300},
        "readinessProbe": {**ready, "periodSeconds": 2, "failureThreshold": 3},
        "livenessProbe": {
            **alive,
            "periodSeconds": LIVENESS_PERIOD_S,
            "failureThreshold": tolerated,
        },
    }


def _spread(cluster: WALCluster, labels: dict[str, str]) -> list[Object]:
    """As the user says; else over hosts, as far as that goes."""
    wanted = cluster.spec.pod_template.topology_spread or [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
        }
    ]
    return [{"labelSelector": {"matchLabels": labels}, **each} for each in wanted]
