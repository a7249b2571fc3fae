"""Everything that shall be there for one WALCluster. Pure. Layer: manifests."""

from __future__ import annotations

from walplane_operator.api import names
from walplane_operator.api.names import Object
from walplane_operator.api.spec import WALCluster
from walplane_operator.manifests.common import metadata
from walplane_operator.manifests.config import config_map
from walplane_operator.manifests.coord import coord
from walplane_operator.manifests.nodes import embedded, nodes


def workloads(cluster: WALCluster, image: str, node_replicas: int) -> list[Object]:
    """What runs, in the order to apply it: configuration and accounts before pods."""
    if cluster.embedded:
        return [config_map(cluster), *embedded(cluster, image)]
    return [
        config_map(cluster),
        *nodes(cluster, image, node_replicas),
        *coord(cluster, image),
    ]


def pchannel(cluster: WALCluster, index: int) -> Object:
    """One PChannel; `frozen` and `pinnedNode` are the user's."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.PCHANNEL,
        "metadata": metadata(cluster, names.pchannel_object(cluster.name, index)),
        "spec": {
            "clusterRef": cluster.name,
            "index": index,
            "channel": cluster.channel(index),
        },
    }


def pchannel_lease(cluster: WALCluster, index: int) -> Object:
    """The Lease of a PChannel that was never granted."""
    about = metadata(cluster, names.pchannel_lease(cluster.name, index))
    about["labels"][names.LABEL_LEASE] = names.LEASE_PCHANNEL
    about["ownerReferences"] = [cluster.owner(controller=False)]
    about["annotations"] = {names.ANNOTATION_CHANNEL: cluster.channel(index)}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": about,
        "spec": {"holderIdentity": ""},
    }


def dressed_lease(cluster: WALCluster, index: int, lease: Object) -> Object:
    """`lease` with the labels, the channel and the owner that it shall have; the rest as it is.

    Without its labels no list shows it, without its channel no node follows it, and under the owner
    of old it is collected together with the terms that it keeps.
    """
    wanted, about = pchannel_lease(cluster, index)["metadata"], dict(lease["metadata"])
    for part in ("labels", "annotations"):
        about[part] = {**(about.get(part) or {}), **wanted[part]}
    if [owner["uid"] for owner in about.get("ownerReferences") or []] != [cluster.uid]:
        about["ownerReferences"] = wanted["ownerReferences"]
    return {**lease, "metadata": about}
