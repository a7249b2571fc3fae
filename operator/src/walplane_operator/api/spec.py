"""Spec of a WALCluster and of a PChannel, typed. Layer: api.

Contract: what is read here was validated by the CRD; the defaults are those of the CRD (a test
compares). Unknown fields are left alone, so that an older operator reads a newer object.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from walplane_operator.api import names
from walplane_operator.api.names import Object


class _Model(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore"
    )


class PulsarSpec(_Model):
    """`spec.backend.pulsar`."""

    service_url: str
    admin_url: str
    tenant: str = "public"
    namespace: str = "walplane"


class StorageSpec(_Model):
    """`spec.backend.embedded.storage`."""

    size: str | int = "10Gi"
    storage_class_name: str | None = None


class EmbeddedSpec(_Model):
    """`spec.backend.embedded`."""

    storage: StorageSpec = Field(default_factory=StorageSpec)


class BackendSpec(_Model):
    """`spec.backend`: exactly one is set."""

    pulsar: PulsarSpec | None = None
    embedded: EmbeddedSpec | None = None


class SegmentStoreSpec(_Model):
    """`spec.segmentStore`."""

    url: str
    secret_name: str | None = None
    retention_seconds: int = 259_200


class PChannelsSpec(_Model):
    """`spec.pchannels`."""

    count: int = 16
    prefix: str | None = None


class NodesSpec(_Model):
    """`spec.nodes`."""

    replicas: int = 1
    resources: Object = Field(default_factory=dict)


class CoordSpec(_Model):
    """`spec.coord`."""

    replicas: int = 1


class LeaseSpec(_Model):
    """`spec.lease`."""

    duration_seconds: int = 10


class PodTemplateSpec(_Model):
    """`spec.podTemplate`: laid over every pod."""

    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    affinity: Object | None = None
    tolerations: list[Object] = Field(default_factory=list)
    topology_spread: list[Object] = Field(default_factory=list)
    priority_class: str | None = None
    security_context: Object = Field(default_factory=dict)
    image_pull_secrets: list[Object] = Field(default_factory=list)


class WALClusterSpec(_Model):
    """`spec` of a WALCluster."""

    backend: BackendSpec
    image: str | None = None
    paused: bool = False
    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    segment_store: SegmentStoreSpec | None = None
    pchannels: PChannelsSpec = Field(default_factory=PChannelsSpec)
    nodes: NodesSpec = Field(default_factory=NodesSpec)
    coord: CoordSpec = Field(default_factory=CoordSpec)
    lease: LeaseSpec = Field(default_factory=LeaseSpec)
    pod_template: PodTemplateSpec = Field(default_factory=PodTemplateSpec)


class PChannelSpec(_Model):
    """`spec` of a PChannel."""

    cluster_ref: str
    index: int
    channel: str
    frozen: bool = False
    pinned_node: str | None = None


class _Resource:
    """What every custom object has."""

    def __init__(self, raw: Object) -> None:
        self.raw = raw
        metadata = raw["metadata"]
        self.name: str = metadata["name"]
        self.namespace: str = metadata["namespace"]
        self.uid: str = metadata["uid"]
        self.generation: int = metadata.get("generation", 0)
        self.annotations: dict[str, str] = metadata.get("annotations") or {}
        self.deleted_at: str | None = metadata.get("deletionTimestamp")
        self.status: Object = raw.get("status") or {}


class WALCluster(_Resource):
    """A WALCluster as it was read.

    Attributes:
        spec: typed; `raw` has it as it was.
        prefix: of the topics' names, the user's or the default.
    """

    def __init__(self, raw: Object) -> None:
        """Reads `raw`, an object of the API server."""
        super().__init__(raw)
        self.spec = WALClusterSpec.model_validate(raw["spec"])
        self.finalizers: list[str] = raw["metadata"].get("finalizers") or []
        self.prefix = self.spec.pchannels.prefix or names.default_prefix(self.namespace, self.name)

    @property
    def embedded(self) -> bool:
        """One pod with a volume, no Leases."""
        return self.spec.backend.embedded is not None

    @property
    def adopts(self) -> str:
        """Uid of the WALCluster whose topics it may take over; empty for none."""
        return self.annotations.get(names.ANNOTATION_ADOPT, "")

    def channel(self, index: int) -> str:
        """Name of a PChannel in the log."""
        return f"{self.prefix}_{index}"

    def owner(self, *, controller: bool = True) -> Object:
        """The owner reference of what it owns."""
        identity: dict[str, Any] = {"apiVersion": names.API_VERSION, "kind": names.WALCLUSTER}
        return names.owner_reference({**self.raw, **identity}, controller=controller)


class PChannel(_Resource):
    """A PChannel as it was read."""

    def __init__(self, raw: Object) -> None:
        """Reads `raw`, an object of the API server."""
        super().__init__(raw)
        self.spec = PChannelSpec.model_validate(raw["spec"])
        owners = raw["metadata"].get("ownerReferences") or []
        self.owners = frozenset(owner["uid"] for owner in owners)
