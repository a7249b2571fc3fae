"""The finalizer of a WALCluster and what it holds up. Layer: handlers.

Contract: after the deadline the object is let go whatever happened, with an event that names what
was kept.
"""

from __future__ import annotations

import asyncio

from walplane_operator.api import names
from walplane_operator.api.spec import WALCluster
from walplane_operator.apply import leases
from walplane_operator.apply.events import Event, EventWriter
from walplane_operator.apply.kube import ApiError, Kube, object_path, path_of
from walplane_operator.apply.topics import Deleted, delete_topics, describe
from walplane_operator.plan.deletion import Ending, asked_back, ending, wants_finalizer
from walplane_operator.plan.observed import Observed

_AGAIN_S = 2.0
_TOPICS_TIMEOUT_S = 30.0


class Ender:
    """Takes WALClusters to their end."""

    def __init__(self, kube: Kube, events: EventWriter) -> None:
        """Takes what it works with."""
        self._kube = kube
        self._events = events
        self._began: dict[tuple[str, str], tuple[str, float]] = {}

    def forget(self, key: tuple[str, str]) -> None:
        """The cluster is gone."""
        self._began.pop(key, None)

    async def settle_finalizer(self, cluster: WALCluster) -> bool:
        """Adds or removes the finalizer as `deletionPolicy` says; whether it did."""
        wanted = wants_finalizer(cluster)
        if wanted is None:
            return False
        await self._write_finalizer(cluster, wanted)
        return True

    async def end(self, observed: Observed) -> float | None:
        """The next step of a deletion; returns when to look again."""
        cluster = observed.cluster
        step = ending(observed, self._first_look(observed))
        if step is Ending.STOP_PODS:
            await leases.write(self._kube, cluster, [], asked_back(observed), observed.now)
            await self._stop_pods(cluster)
            return _AGAIN_S
        if step is Ending.DELETE_DATA and not await self._delete_data(observed):
            return _AGAIN_S
        if step is Ending.LET_GO:
            message = "the deadline has passed: topics or volumes were kept; delete them by hand"
            self._tell(observed, "DataKept", message)
        if step is not Ending.NOTHING:
            await self._write_finalizer(cluster, False)
        return None

    def _first_look(self, observed: Observed) -> float:
        """When this process saw that the cluster is being deleted; monotonic seconds."""
        cluster = observed.cluster
        key = (cluster.namespace, cluster.name)
        if self._began.get(key, ("", 0.0))[0] != cluster.uid:
            self._began[key] = (cluster.uid, observed.clock)
        return self._began[key][1]

    async def _stop_pods(self, cluster: WALCluster) -> None:
        node_set, coord = names.node_set(cluster.name), names.coord(cluster.name)
        await self._kube.delete(path_of("apps/v1", "StatefulSet", cluster.namespace, node_set))
        await self._kube.delete(path_of("apps/v1", "Deployment", cluster.namespace, coord))

    async def _delete_data(self, observed: Observed) -> bool:
        """Whether all of it is gone."""
        cluster = observed.cluster
        if cluster.embedded:
            claim = names.data_claim(cluster.name)
            await self._kube.delete(
                path_of("v1", "PersistentVolumeClaim", cluster.namespace, claim)
            )
            return True
        result = Deleted([], [])
        try:
            async with asyncio.timeout(_TOPICS_TIMEOUT_S):
                result = await delete_topics(cluster)
        except TimeoutError:
            result.kept.append(("topics", f"not deleted within {_TOPICS_TIMEOUT_S:g} s"))
        if result.kept:
            self._tell(observed, "DeletingTopics", describe(result.kept))
        return not result.kept

    def _tell(self, observed: Observed, reason: str, message: str) -> None:
        event = Event(observed.cluster.raw, names.WALCLUSTER, reason, message, "Warning")
        self._events.tell(event, observed.now)

    async def _write_finalizer(self, cluster: WALCluster, wanted: bool) -> None:
        """Adds or removes our own; refused when the object has changed since it was read."""
        others = [each for each in cluster.finalizers if each != names.FINALIZER]
        metadata = {
            "resourceVersion": cluster.raw["metadata"]["resourceVersion"],
            "finalizers": [*others, names.FINALIZER] if wanted else others,
        }
        try:
            await self._kube.patch(object_path(cluster.raw), {"metadata": metadata})
        except ApiError as error:
            if error.status != 404:
                raise
