"""What the pods of a cluster are told: backend URL and environment. Pure. Layer: manifests."""

from __future__ import annotations

from urllib.parse import urlencode

from walplane_operator.api import names
from walplane_operator.api.names import Object
from walplane_operator.api.spec import WALCluster
from walplane_operator.manifests.common import GRACE_S, metadata

DATA_DIRECTORY = "/data"


def backend_url(cluster: WALCluster) -> str:
    """The backend as the data plane names it."""
    pulsar = cluster.spec.backend.pulsar
    if pulsar is None:
        return "rocksdb"
    options = {"admin": pulsar.admin_url, "namespace": f"{pulsar.tenant}/{pulsar.namespace}"}
    return f"{pulsar.service_url.rstrip('/')}?{urlencode(options, safe=':/')}"


def environment(cluster: WALCluster) -> dict[str, str]:
    """Contents of the ConfigMap; a change of it restarts every pod."""
    return {
        "WALPLANE_CLUSTER": cluster.name,
        "WALPLANE_CLUSTER_UID": cluster.uid,
        "WALPLANE_PREFIX": cluster.prefix,
        "WALPLANE_BACKEND": backend_url(cluster),
        "WALPLANE_COORD": f"{names.coord(cluster.name)}:{names.COORD_PORT}",
        "WALPLANE_LEASE_SECONDS": str(cluster.spec.lease.duration_seconds),
        "WALPLANE_GRACE_SECONDS": str(GRACE_S),
    }


def config_map(cluster: WALCluster) -> Object:
    """The ConfigMap that pods read as environment."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(cluster, names.config_map(cluster.name)),
        "data": environment(cluster),
    }


def endpoint(cluster: WALCluster) -> str:
    """Where programs of the cluster connect to."""
    return f"{names.coord(cluster.name)}.{cluster.namespace}.svc:{names.COORD_PORT}"
