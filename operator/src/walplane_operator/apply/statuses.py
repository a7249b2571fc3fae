"""Statuses onto the API server, few writes a second. Layer: apply.

Contract: the status of an object is written whole, by server-side apply with the operator's field
manager, so that a field that is left out goes away. State changes are written at once; numbers
within a budget for each cluster, the oldest first.
"""

from __future__ import annotations

from walplane_operator.api.names import Object
from walplane_operator.apply.kube import ApiError, Kube

NUMBERS_PER_S = 5.0


class Budget:
    """Writes allowed now; `rate` a second, as many saved up. Times are monotonic seconds."""

    def __init__(self, rate: float = NUMBERS_PER_S) -> None:
        """Full."""
        self._rate = rate
        self._left = rate
        self._when = 0.0

    def take(self, now: float) -> bool:
        """Whether one more write is allowed; it is taken if so."""
        self._left = min(self._rate, self._left + (now - self._when) * self._rate)
        self._when = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def wait_s(self) -> float:
        """Until the next one is allowed, from the last `take` on."""
        return max(0.0, (1 - self._left) / self._rate)


async def write_status(kube: Kube, raw: Object, kind: str, status: Object) -> None:
    """Writes `status` of the object `raw`; one that is gone needs none.

    Raises:
        ApiError: it was not written.
    """
    metadata = raw["metadata"]
    body = {
        "apiVersion": raw["apiVersion"],
        "kind": kind,
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "status": status,
    }
    try:
        await kube.apply(body, "status")
    except ApiError as error:
        if error.status != 404:
            raise
