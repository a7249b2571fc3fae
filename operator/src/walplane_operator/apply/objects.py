"""Manifests onto the API server, by server-side apply. Layer: apply.

Contract: applying what is there already writes nothing. A manifest that did not change is sent
again only now and then, which mends what others have changed. A few go out at a time, each when
what it needs is there: RoleBindings behind Roles, what runs pods behind all that pods use.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from walplane_operator.api.names import Object
from walplane_operator.apply.kube import ApiError, Kube, object_path
from walplane_operator.manifests.common import digest

RESYNC_S = 30.0
_AT_ONCE = 8
_STAGES: tuple[frozenset[str], ...] = (
    frozenset({"RoleBinding"}),  # refused with 404 while there is no Role
    frozenset({"StatefulSet", "Deployment"}),
)
"""Kinds behind all others, in this order."""


class Applier:
    """Applies manifests and remembers what it applied."""

    def __init__(self, kube: Kube, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is applied yet; `clock` gives monotonic seconds."""
        self._kube = kube
        self._clock = clock
        self._applied: dict[str, tuple[str, float]] = {}

    async def apply(self, manifests: Sequence[Object], missing: frozenset[str]) -> list[str]:
        """Applies `manifests`; returns what the API server said to those it refused, in order.

        Args:
            manifests: what shall be there.
            missing: kinds of which the cluster was seen to have none: sent whatever is remembered.

        Raises:
            ExceptionGroup: of ApiErrors: it did not answer, or could not now.
        """
        refusals: dict[str, str] = {}
        limit = asyncio.Semaphore(_AT_ONCE)

        async def send(manifest: Object) -> None:
            async with limit:
                if said := await self._apply(manifest, missing):
                    refusals[object_path(manifest)] = said

        for stage in range(len(_STAGES) + 1):
            async with asyncio.TaskGroup() as tasks:
                for manifest in manifests:
                    if _stage_of(manifest) == stage:
                        tasks.create_task(send(manifest))
        paths = map(object_path, manifests)
        return [refusals[path] for path in paths if path in refusals]

    async def _apply(self, manifest: Object, missing: frozenset[str]) -> str:
        """Applies one, if it has to be; returns what it was refused with."""
        path, mark = object_path(manifest), digest(manifest)
        known, when = self._applied.get(path, ("", 0.0))
        fresh = known == mark and self._clock() - when < RESYNC_S
        if fresh and manifest["kind"] not in missing:
            return ""
        try:
            await self._kube.apply(manifest)
        except ApiError as error:
            if not error.refused:
                raise
            return f"{manifest['kind']} {manifest['metadata']['name']}: {error.message}"
        self._applied[path] = (mark, self._clock())
        return ""

    def forget(self, namespace: str, cluster: str) -> None:
        """The cluster is gone: what was applied for it no longer counts."""
        start = f"/namespaces/{namespace}/"
        gone = [
            path
            for path in self._applied
            if start in path and path.rpartition("/")[2].startswith(f"{cluster}-")
        ]
        for path in gone:
            del self._applied[path]


def _stage_of(manifest: Object) -> int:
    kind = manifest["kind"]
    return next((number for number, kinds in enumerate(_STAGES, 1) if kind in kinds), 0)
