"""The finalizer of a WALCluster and what it holds up. Layer: handlers.

Contract: after the deadline the object is let go whatever happened, with an event that names what
was kept. Topics are deleted beside the reconciles, which only look whether that is done: a backend
that is dead holds up no other cluster.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

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


Kept = list[tuple[str, str]]
"""(what, why) of the data that could not be deleted."""


@dataclass
class _End:
    """One deletion.

    Attributes:
        uid: of the WALCluster.
        began: when this process first saw that it is being deleted; monotonic seconds.
        deleting: an attempt to delete its data.
    """

    uid: str
    began: float
    deleting: asyncio.Task[Kept] | None = None


class Ender:
    """Takes WALClusters to their end; `close` it."""

    def __init__(self, kube: Kube, events: EventWriter) -> None:
        """Takes what it works with."""
        self._kube = kube
        self._events = events
        self._ends: dict[tuple[str, str], _End] = {}

    def forget(self, key: tuple[str, str]) -> None:
        """The cluster is gone."""
        end = self._ends.pop(key, None)
        if end is not None and end.deleting is not None:
            end.deleting.cancel()

    async def close(self) -> None:
        """Ends what goes on beside the reconciles."""
        deleting = [end.deleting for end in self._ends.values() if end.deleting is not None]
        for task in deleting:
            task.cancel()
        await asyncio.gather(*deleting, return_exceptions=True)

    async def settle_finalizer(self, cluster: WALCluster) -> bool:
        """Adds or removes the finalizer as `deletionPolicy` says; whether it did."""
        wanted = wants_finalizer(cluster)
        if wanted is None:
            return False
        await self._write_finalizer(cluster, wanted)
        return True

    async def end(self, observed: Observed) -> float | None:
        """The next step of a deletion; returns when to look again."""
        cluster, end = observed.cluster, self._end_of(observed)
        step = ending(observed, end.began)
        if step is Ending.STOP_PODS:
            await leases.write(self._kube, cluster, [], asked_back(observed), observed.now)
            await self._stop_pods(cluster)
            return _AGAIN_S
        if step is Ending.DELETE_DATA and not self._data_gone(observed, end):
            return _AGAIN_S
        if step is Ending.LET_GO:
            message = "the deadline has passed: topics or volumes were kept; delete them by hand"
            self._tell(observed, "DataKept", message)
        if step is not Ending.NOTHING:
            await self._write_finalizer(cluster, False)
        return None

    def _end_of(self, observed: Observed) -> _End:
        cluster = observed.cluster
        key = (cluster.namespace, cluster.name)
        known = self._ends.get(key)
        if known is None or known.uid != cluster.uid:
            self.forget(key)
            known = self._ends[key] = _End(cluster.uid, observed.clock)
        return known

    async def _stop_pods(self, cluster: WALCluster) -> None:
        node_set, coord = names.node_set(cluster.name), names.coord(cluster.name)
        await self._kube.delete(path_of("apps/v1", "StatefulSet", cluster.namespace, node_set))
        await self._kube.delete(path_of("apps/v1", "Deployment", cluster.namespace, coord))

    def _data_gone(self, observed: Observed, end: _End) -> bool:
        """Whether all of it is gone; else that is tried, beside the reconciles.

        Raises:
            ApiError: the attempt failed with it.
        """
        if end.deleting is None:
            work = self._delete_data(observed.cluster)
            end.deleting = asyncio.create_task(work, name=f"delete data of {end.uid}")
        if not end.deleting.done():
            return False
        attempt, end.deleting = end.deleting, None
        if kept := attempt.result():
            self._tell(observed, "DeletingTopics", describe(kept))
        return not kept

    async def _delete_data(self, cluster: WALCluster) -> Kept:
        if cluster.embedded:
            claim = names.data_claim(cluster.name)
            await self._kube.delete(
                path_of("v1", "PersistentVolumeClaim", cluster.namespace, claim)
            )
            return []
        result = Deleted([], [])
        try:
            async with asyncio.timeout(_TOPICS_TIMEOUT_S):
                result = await delete_topics(cluster)
        except TimeoutError:
            result.kept.append(("topics", f"not deleted within {_TOPICS_TIMEOUT_S:g} s"))
        return result.kept

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
