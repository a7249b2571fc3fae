"""StreamingNodes: StatefulSet, headless Service, and what they may do. Pure. Layer: manifests."""

from __future__ import annotations

from walplane_operator.api import names
from walplane_operator.api.names import Object
from walplane_operator.api.spec import WALCluster
from walplane_operator.manifests.access import access, disruption_budget
from walplane_operator.manifests.common import Container, metadata, pod_template
from walplane_operator.manifests.config import DATA_DIRECTORY, endpoint, environment


def nodes(cluster: WALCluster, image: str, replicas: int) -> list[Object]:
    """Everything of the StreamingNodes; `replicas` is what the StatefulSet shall have now."""
    name = names.node_set(cluster.name)
    return [
        *access(cluster, names.NODE, name),
        _headless_service(cluster, names.NODE_PORT),
        disruption_budget(cluster, names.NODE, name),
        _stateful_set(cluster, replicas, _node_template(cluster, image)),
    ]


def embedded(cluster: WALCluster, image: str) -> list[Object]:
    """One pod that is node and coordinator, on a volume of its own."""
    stateful_set = _stateful_set(cluster, 1, _embedded_template(cluster, image))
    # The pod holds no Leases, so that there is nothing to drain: Kubernetes may replace it.
    stateful_set["spec"]["updateStrategy"] = {"type": "RollingUpdate"}
    stateful_set["spec"]["volumeClaimTemplates"] = [_volume_claim(cluster)]
    retain = {"whenDeleted": "Retain", "whenScaled": "Retain"}
    stateful_set["spec"]["persistentVolumeClaimRetentionPolicy"] = retain
    return [
        _headless_service(cluster, names.COORD_PORT),
        service(cluster, names.NODE),
        stateful_set,
    ]


def service(cluster: WALCluster, component: str) -> Object:
    """Where programs connect: the pods of `component`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(cluster, names.coord(cluster.name), component),
        "spec": {
            "selector": names.selector(cluster.name, component),
            "ports": [_port(names.COORD_PORT)],
        },
    }


def _port(number: int) -> Object:
    return {"name": "grpc", "port": number, "targetPort": "grpc", "protocol": "TCP"}


def _headless_service(cluster: WALCluster, port: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(cluster, names.node_set(cluster.name), names.NODE),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector(cluster.name, names.NODE),
            "ports": [_port(port)],
        },
    }


def _stateful_set(cluster: WALCluster, replicas: int, template: Object) -> Object:
    name = names.node_set(cluster.name)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(cluster, name, names.NODE),
        "spec": {
            "serviceName": name,
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": names.selector(cluster.name, names.NODE)},
            "template": template,
        },
    }


def _node_template(cluster: WALCluster, image: str) -> Object:
    container = Container(
        component=names.NODE,
        port=names.NODE_PORT,
        args=[
            "node",
            "--backend=$(WALPLANE_BACKEND)",
            "--coord=$(WALPLANE_COORD)",
            f"--listen=0.0.0.0:{names.NODE_PORT}",
            "--log-format=json",
        ],
        resources=cluster.spec.nodes.resources,
        **_segments(cluster),
    )
    account = names.node_set(cluster.name)
    return pod_template(cluster, image, container, environment(cluster), account)


def _embedded_template(cluster: WALCluster, image: str) -> Object:
    container = Container(
        component=names.NODE,
        port=names.COORD_PORT,
        args=[
            "standalone",
            f"--data={DATA_DIRECTORY}",
            "--prefix=$(WALPLANE_PREFIX)",
            f"--pchannels={cluster.spec.pchannels.count}",
            f"--listen=0.0.0.0:{names.COORD_PORT}",
            f"--advertise={endpoint(cluster)}",
            "--log-format=json",
        ],
        resources=cluster.spec.nodes.resources,
        mounts=[{"name": "data", "mountPath": DATA_DIRECTORY}],
        **_segments(cluster),
    )
    return pod_template(cluster, image, container, environment(cluster), "")


def _segments(cluster: WALCluster) -> Object:
    """What a container needs of the segment store; told to nodes alone."""
    store = cluster.spec.segment_store
    if store is None:
        return {}
    env = [
        {"name": "WALPLANE_SEGMENT_STORE", "value": store.url},
        {"name": "WALPLANE_RETENTION_SECONDS", "value": str(store.retention_seconds)},
    ]
    return {"env": env, "secret": store.secret_name}


def _volume_claim(cluster: WALCluster) -> Object:
    embedded_spec = cluster.spec.backend.embedded
    if embedded_spec is None:
        raise ValueError(f"{cluster.name} has no embedded backend")
    storage = embedded_spec.storage
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    labels = names.selector(cluster.name, names.NODE)
    return {"metadata": {"name": "data", "labels": labels}, "spec": spec}
