"""Kubernetes objects of one WALCluster, as JSON, for tests. Layer: testkit.

Contract: what a test does not say is as in a healthy cluster; every change of an object gives it a
new resourceVersion, as the API server does. Follows docs/kubernetes.md, knows no operator code.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

Object = dict[str, Any]

API_VERSION = "walplane.dev/v1alpha1"
LEASES = "coordination.k8s.io/v1"
UID = "3b1f7c9e-0000-4000-8000-000000000001"
RENEWED = "2026-01-02T03:04:05.678901Z"

_versions = itertools.count(1000)


def walcluster(
    namespace: str = "default",
    name: str = "demo",
    *,
    count: int = 4,
    nodes: int = 3,
    **spec: object,
) -> Object:
    """A WALCluster as the API server gives it, defaults filled in."""
    pulsar = {
        "serviceUrl": "pulsar://pulsar:6650",
        "adminUrl": "http://pulsar:8080",
        "tenant": "public",
        "namespace": "walplane",
    }
    filled: Object = {
        "backend": {"pulsar": pulsar},
        "pchannels": {"count": count},
        "nodes": {"replicas": nodes},
        "coord": {"replicas": 1},
        "lease": {"durationSeconds": 10},
        "paused": False,
        "deletionPolicy": "Retain",
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "WALCluster",
        "metadata": _metadata(namespace, name, uid=UID, generation=1),
        "spec": filled | spec,
    }


class ClusterObjects:
    """A WALCluster and everything that belongs to it.

    Attributes:
        cluster: the WALCluster.
        pchannels: by index.
        leases: by name.
        pods: by name.
        node_set: the StatefulSet; None before it was made.
        coord: the Deployment; None before it was made.
    """

    def __init__(self, cluster: Object | None = None) -> None:
        """With PChannels, StatefulSet and Deployment; no pod runs, nothing is granted."""
        self.cluster = cluster or walcluster()
        self.name: str = self.cluster["metadata"]["name"]
        self.namespace: str = self.cluster["metadata"]["namespace"]
        spec = self.cluster["spec"]
        self.pchannels: dict[int, Object] = {
            index: self._pchannel(index) for index in range(spec["pchannels"]["count"])
        }
        self.leases: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        self.node_set: Object | None = self._workload("StatefulSet", spec["nodes"]["replicas"])
        self.coord: Object | None = self._workload("Deployment", spec["coord"]["replicas"])

    def channel(self, index: int) -> str:
        """Name of a PChannel in the log."""
        return f"{self.namespace}-{self.name}_{index}"

    def lists(self) -> Object:
        """Everything, as the lists of the API server."""
        return {
            "pchannels": list(self.pchannels.values()),
            "leases": list(self.leases.values()),
            "node_set": self.node_set,
            "coord": self.coord,
            "pods": list(self.pods.values()),
        }

    def node(
        self,
        ordinal: int,
        incarnation: str = "0000000a",
        *,
        channels: dict[int, Object] | None = None,
        draining: bool = False,
        revision: str = "new",
    ) -> str:
        """A StreamingNode that runs and has a session; returns its identity."""
        name = f"{self.name}-node-{ordinal}"
        self.pod(name, "node", revision=revision)
        report = {
            "draining": draining,
            "address": f"10.0.0.{ordinal + 1}:7651",
            "channels": {self.channel(i): each for i, each in (channels or {}).items()},
        }
        return self.session(name, "node", incarnation, report)

    def coordinator(self, *, leading: bool = True, **report: object) -> str:
        """A coordinator that runs and has a session; returns its identity."""
        name = f"{self.name}-coord-5f8c-x7k2p"
        self.pod(name, "coord")
        backend = {"reachable": leading, "reason": "", "message": ""}
        return self.session(
            name, "coord", "0000000c", {"leading": leading, "backend": backend, **report}
        )

    def session(self, pod: str, component: str, incarnation: str, report: Object) -> str:
        """The session Lease of a process."""
        identity = f"{pod}_uid-of-{pod}_{incarnation}"
        labels = {"walplane.dev/lease": "session", "walplane.dev/component": component}
        self.leases[pod] = self._lease(
            pod, labels, {"walplane.dev/report": json.dumps(report)}, identity
        )
        self.leases[pod]["spec"] |= {"leaseDurationSeconds": 10, "renewTime": RENEWED}
        return identity

    def grant(
        self, index: int, holder: str = "", term: int = 1, *, ready: bool = True, release: int = 0
    ) -> Object:
        """The Lease of a PChannel."""
        name = f"{self.name}-pch-{index}"
        annotations = {
            "walplane.dev/channel": self.channel(index),
            "walplane.dev/term": str(term),
        }
        if ready and holder:
            annotations["walplane.dev/ready-term"] = str(term)
        if release:
            annotations["walplane.dev/release"] = str(release)
        labels = {
            "walplane.dev/lease": "pchannel",
            "app.kubernetes.io/managed-by": "walplane-operator",
        }
        lease = self._lease(name, labels, annotations, holder)
        lease["metadata"]["ownerReferences"] = [self._owner()]
        self.leases[name] = lease
        return lease

    def pod(
        self,
        name: str,
        component: str,
        *,
        ready: bool = True,
        revision: str = "new",
        waiting: str = "",
    ) -> Object:
        """A pod of the cluster."""
        labels = {
            "walplane.dev/cluster": self.name,
            "walplane.dev/component": component,
            "controller-revision-hash": revision,
        }
        state = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": _metadata(self.namespace, name, uid=f"uid-of-{name}", labels=labels),
            "status": {
                "conditions": [{"type": "Ready", "status": str(ready)}],
                "containerStatuses": [{"state": state}],
            },
        }
        self.pods[name] = pod
        return pod

    def _pchannel(self, index: int) -> Object:
        name = f"{self.name}-{index}"
        return {
            "apiVersion": API_VERSION,
            "kind": "PChannel",
            "metadata": _metadata(
                self.namespace,
                name,
                uid=f"uid-of-{name}",
                generation=1,
                labels={"walplane.dev/cluster": self.name},
                ownerReferences=[self._owner()],
            ),
            "spec": {"clusterRef": self.name, "index": index, "channel": self.channel(index)},
        }

    def _owner(self) -> Object:
        return {"apiVersion": API_VERSION, "kind": "WALCluster", "name": self.name, "uid": UID}

    def _lease(self, name: str, labels: Object, annotations: Object, holder: str) -> Object:
        labels = labels | {"walplane.dev/cluster": self.name}
        return {
            "apiVersion": LEASES,
            "kind": "Lease",
            "metadata": _metadata(self.namespace, name, labels=labels, annotations=annotations),
            "spec": {"holderIdentity": holder},
        }

    def _workload(self, kind: str, replicas: int) -> Object:
        component = "node" if kind == "StatefulSet" else "coord"
        container = {"name": component, "image": "walplane:running"}
        return {
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": _metadata(self.namespace, f"{self.name}-{component}", generation=1),
            "spec": {
                "replicas": replicas,
                "template": {"spec": {"containers": [container]}},
            },
            "status": {
                "observedGeneration": 1,
                "replicas": replicas,
                "readyReplicas": replicas,
                "updatedReplicas": replicas,
                "updateRevision": "new",
            },
        }


def _metadata(namespace: str, name: str, **more: object) -> Object:
    return {
        "name": name,
        "namespace": namespace,
        "resourceVersion": str(next(_versions)),
        **more,
    }
