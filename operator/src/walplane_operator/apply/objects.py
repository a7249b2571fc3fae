"""Manifests onto the API server, by server-side apply. Layer: apply.

Contract: applying what is there already writes nothing. A manifest that did not change is sent
again only now and then, which mends what others have changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from walplane_operator.api.names import Object
from walplane_operator.apply.kube import ApiError, Kube, object_path
from walplane_operator.manifests.common import digest

RESYNC_S = 30.0


class Applier:
    """Applies manifests and remembers what it applied."""

    def __init__(self, kube: Kube, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is applied yet; `clock` gives monotonic seconds."""
        self._kube = kube
        self._clock = clock
        self._applied: dict[str, tuple[str, float]] = {}

    async def apply(self, manifests: Iterable[Object], missing: frozenset[str]) -> list[str]:
        """Applies `manifests` in order; returns what the API server said to those it refused.

        Args:
            manifests: what shall be there.
            missing: kinds of which the cluster was seen to have none: sent whatever is remembered.

        Raises:
            ApiError: it did not answer, or could not now.
        """
        refused = []
        for manifest in manifests:
            path, mark = object_path(manifest), digest(manifest)
            known, when = self._applied.get(path, ("", 0.0))
            fresh = known == mark and self._clock() - when < RESYNC_S
            if fresh and manifest["kind"] not in missing:
                continue
            try:
                await self._kube.apply(manifest)
            except ApiError as error:
                if not error.refused:
                    raise
                what = f"{manifest['kind']} {manifest['metadata']['name']}"
                refused.append(f"{what}: {error.message}")
            else:
                self._applied[path] = (mark, self._clock())
        return refused

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
