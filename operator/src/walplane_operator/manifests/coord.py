"""The coordinator: Deployment, Service, and what it may do. Pure. Layer: manifests."""

from __future__ import annotations

from walplane_operator.api import names
from walplane_operator.api.names import Object
from walplane_operator.api.spec import WALCluster
from walplane_operator.manifests.access import access, disruption_budget
from walplane_operator.manifests.common import Container, metadata, pod_template
from walplane_operator.manifests.config import environment
from walplane_operator.manifests.nodes import service


def coord(cluster: WALCluster, image: str) -> list[Object]:
    """Everything of the coordinator."""
    name = names.coord(cluster.name)
    return [
        *access(cluster, names.COORD, name),
        service(cluster, names.COORD),
        disruption_budget(cluster, names.COORD, name),
        _deployment(cluster, image),
    ]


def _deployment(cluster: WALCluster, image: str) -> Object:
    name = names.coord(cluster.name)
    adopt = [{"name": "WALPLANE_ADOPT", "value": cluster.adopts}] if cluster.adopts else []
    container = Container(
        component=names.COORD,
        port=names.COORD_PORT,
        args=[
            "coord",
            "--backend=$(WALPLANE_BACKEND)",
            "--prefix=$(WALPLANE_PREFIX)",
            f"--pchannels={cluster.spec.pchannels.count}",
            f"--listen=0.0.0.0:{names.COORD_PORT}",
            "--log-format=json",
        ],
        env=adopt,
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(cluster, name, names.COORD),
        "spec": {
            "replicas": cluster.spec.coord.replicas,
            "revisionHistoryLimit": 3,
            # The next leader stands by before the present one goes.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "selector": {"matchLabels": names.selector(cluster.name, names.COORD)},
            "template": pod_template(cluster, image, container, environment(cluster), name),
        },
    }
