"""The operator's own Lease: one process acts, others wait. Layer: handlers.

Contract: `acquire` returns when the Lease is held; `keep` renews it and returns when somebody else
has it. `valid` is False as soon as this process cannot be sure, so that it stops writing before
another may begin. While the API server is away nobody can take the Lease over either: this process
waits, and goes on if the Lease is still its own. Its renewals are also the heartbeat by which the
operator sees that its watch of the Leases is live.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from walplane_operator.api import names
from walplane_operator.api.names import Object
from walplane_operator.api.times import micro_time
from walplane_operator.apply.kube import LEASES, ApiError, Kube, path_of

_log = structlog.get_logger(__name__)

NAME = "walplane-operator"
RENEW_S = 1.0
_RETRY_S = 1.0


class Leader:
    """This process' claim on the operator's Lease."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        identity: str,
        duration_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Claims nothing yet."""
        self._kube = kube
        self._namespace = namespace
        self._identity = identity
        self._duration_s = duration_s
        self._clock = clock
        self._renewed: float | None = None
        self._seen: tuple[str, float] = ("", 0.0)
        self._hurry = asyncio.Event()
        self.tried: float | None = None

    @property
    def valid(self) -> bool:
        """Whether nobody else can hold it now."""
        return self._renewed is not None and self._clock() - self._renewed < self._duration_s

    def renew_now(self) -> None:
        """Renews without waiting: somebody wants to see the watch move."""
        self._hurry.set()

    async def acquire(self) -> None:
        """Waits until this process holds it."""
        while not await self._try():  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(_RETRY_S)
        _log.info("leading", identity=self._identity)

    async def keep(self, pause_s: Callable[[], float] = lambda: RENEW_S) -> None:
        """Renews, every `pause_s` seconds; returns when another process holds it."""
        while True:
            try:
                async with asyncio.timeout(pause_s()):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            if not await self._try() and self._renewed is None:
                _log.error("another operator leads", identity=self._identity)
                return

    async def resign(self) -> None:
        """Gives it up, so that the next one need not wait."""
        if not self.valid:
            return
        self._renewed = None
        try:
            lease = await self._read()
            if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"]["holderIdentity"] = ""
                await self._kube.replace(lease)
        except ApiError as error:
            _log.info("lease not given up", error=str(error))

    async def _try(self) -> bool:
        """One attempt to take or renew; `_renewed` None says that another one holds it."""
        self.tried = began = self._clock()
        try:
            lease = await self._read()
            if lease is None:
                await self._create()
            elif not self._free(lease):
                self._renewed = None
                return False
            else:
                await self._kube.replace(self._taken(lease))
        except ApiError as error:
            _log.info("lease not renewed", error=str(error))
            self._seen = ("", 0.0)  # nobody could renew while nobody is answered
            return False
        self._renewed = began
        return True

    async def _read(self) -> Object | None:
        return await self._kube.get(path_of(LEASES, "Lease", self._namespace, NAME))

    def _free(self, lease: Object) -> bool:
        """Whether it is ours, nobody's, or did not change for its duration by our clock."""
        holder = lease["spec"].get("holderIdentity") or ""
        if holder in ("", self._identity):
            return True
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, self._clock())
        duration = float(lease["spec"].get("leaseDurationSeconds") or self._duration_s)
        return self._clock() - self._seen[1] >= duration

    def _taken(self, lease: Object) -> Object:
        spec = lease["spec"]
        now = micro_time(datetime.now(UTC))
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = spec.get("leaseTransitions", 0) + 1
        spec["holderIdentity"] = self._identity
        spec["leaseDurationSeconds"] = round(self._duration_s)
        spec["renewTime"] = now
        lease["metadata"].setdefault("labels", {})[names.LABEL_LEASE] = names.LEASE_OPERATOR
        return lease

    async def _create(self) -> None:
        body = {
            "apiVersion": LEASES,
            "kind": "Lease",
            "metadata": {"name": NAME, "namespace": self._namespace},
            "spec": {},
        }
        await self._kube.create(path_of(LEASES, "Lease", self._namespace), self._taken(body))
