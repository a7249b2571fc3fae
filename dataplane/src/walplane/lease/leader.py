"""Which of a cluster's coordinators coordinates: the holder of the coordinator's Lease.

Contract: the Lease is liveness only, the fence of the coordinator's meta topic is the safety. Who
holds it renews it, and goes on while the API server is away; another holder ends it. Others take it
when it is free, when its holder is known to be gone, was an earlier process of the same pod, or
when it is expired by their own clock. Nothing is known of a holder that the watch has not shown: it
may lag, and lack the session of one that lives. Layer: lease.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable

import structlog

from walplane.lease import contract
from walplane.lease.contract import Body, Identity
from walplane.lease.expiry import Expiry
from walplane.lease.store import NOT_FOUND, ApiError, LeaseStore
from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime

_log = structlog.get_logger(__name__)

_RETRY_S = 0.5


class Claim(enum.Enum):
    """What a coordinator does about the Lease."""

    MINE = "hold it"
    TAKE = "take it"
    WAIT = "leave it to its holder"


def claim(holder: str, me: Identity, *, gone: bool) -> Claim:
    """The next step of `me` when `holder` has the Lease; `gone` says that it lives no more."""
    if holder == str(me):
        return Claim.MINE
    other = Identity.parse(holder)
    earlier_self = other is not None and (other.pod, other.uid) == (me.pod, me.uid)
    return Claim.TAKE if not holder or earlier_self or gone else Claim.WAIT


class Leadership:
    """One process' part in choosing the coordinator.

    Args:
        store: the API server.
        identity: of this process.
        cluster: its cluster's name.
        duration_s: of the Lease.
        runtime: clocks.
        ended: whether the watch, which showed this holder, shows that its process is gone.
        owner: ownerReference of the Lease, so that it goes with its cluster; None for none.

    Attributes:
        lost: done with the reason once another process holds the Lease; only after `acquire`.
    """

    def __init__(
        self,
        store: LeaseStore,
        identity: Identity,
        cluster: str,
        duration_s: float,
        runtime: Runtime,
        ended: Callable[[str], bool] = lambda _: False,
        owner: Body | None = None,
    ) -> None:
        """Holds nothing."""
        self.lost: asyncio.Future[WalError] = asyncio.get_running_loop().create_future()
        self._store = store
        self._identity = identity
        self._name = contract.coord_lease_name(cluster)
        self._labels = {
            contract.KIND_LABEL: contract.COORDINATOR,
            contract.CLUSTER_LABEL: cluster,
        }
        self._duration_s = duration_s
        self._runtime = runtime
        self._ended = ended
        self._owner = owner
        self._expiry = Expiry()
        self._shown = ""  # the holder, by the watch
        self._body: Body | None = None
        self._seen = asyncio.Event()

    # --- what the watch tells ------------------------------------------------------------------

    def observe(self, body: Body | None) -> None:
        """The coordinator's Lease as the watch shows it."""
        self._shown = contract.holder_of(body) if body is not None else ""
        if body is None:
            self._expiry.gone(self._name)
        else:
            self._saw(body)
        self.look()

    def look(self) -> None:
        """Something that may free the Lease changed."""
        self._seen.set()

    def set_live(self, live: bool) -> None:
        """Whether the watch shows what is there."""
        if live:
            self._expiry.live(self._runtime.monotonic())
        else:
            self._expiry.lost()
        self.look()

    # --- taking and keeping --------------------------------------------------------------------

    async def acquire(self) -> None:
        """Returns once this process holds the Lease."""
        while True:
            try:
                if await self._try_to_take():
                    _log.info("coordinating", lease=self._name, holder=str(self._identity))
                    return
            except ApiError as error:
                _log.warning("the coordinator's Lease was not taken", error=str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            await self._until_it_may_be_free()

    async def keep(self) -> None:
        """Renews the Lease until it is lost, or this is cancelled."""
        pause = self._duration_s / 3
        while not self.lost.done():
            await asyncio.sleep(pause)
            pause = self._duration_s / 3
            try:
                await self._renew()
            except ApiError as error:
                _log.warning("the coordinator's Lease was not renewed", error=str(error))
                pause = min(pause, _RETRY_S)

    async def release(self) -> None:
        """Gives the Lease to whoever wants it, if this process still holds it."""
        if self.lost.done():
            return
        try:
            body = await self._store.get(self._name)
            if contract.holder_of(body) == str(self._identity):
                await self._store.replace(self._held_by("", body))
        except ApiError as error:
            _log.warning("the coordinator's Lease was not given back", error=str(error))

    async def _try_to_take(self) -> bool:
        """Whether this process holds the Lease after one look at it."""
        body = await self._find()
        if body is None:
            self._body = await self._store.create(self._held_by(str(self._identity), None))
            return True
        self._saw(body)  # a renewal that the watch has not shown yet restarts the clock
        now, holder = self._runtime.monotonic(), contract.holder_of(body)
        seconds = contract.duration_of(body, self._duration_s)
        ended = holder == self._shown and self._ended(holder)
        gone = ended or self._expiry.expired(self._name, seconds, now)
        if claim(holder, self._identity, gone=gone) is Claim.WAIT:
            return False
        self._body = await self._store.replace(self._held_by(str(self._identity), body))
        return True

    async def _until_it_may_be_free(self) -> None:
        self._seen.clear()
        left = self._expiry.left(self._name, self._duration_s, self._runtime.monotonic())
        try:
            async with asyncio.timeout(self._duration_s if left is None else max(left, _RETRY_S)):
                await self._seen.wait()
        except TimeoutError:
            pass

    async def _renew(self) -> None:
        body, self._body = self._body, None
        if body is None:
            body = await self._find()
        if body is None:
            # Deleted by hand; who makes it first leads, the other one finds a conflict.
            self._body = await self._store.create(self._held_by(str(self._identity), None))
            return
        holder = contract.holder_of(body)
        if holder != str(self._identity):
            reason = f"{holder or 'nobody'} holds Lease {self._name} now: this process ends"
            self.lost.set_result(WalError(ErrorCode.ON_SHUTDOWN, reason))
            return
        self._body = await self._store.replace(self._held_by(holder, body))

    async def _find(self) -> Body | None:
        """The Lease as it is; None when there is none."""
        try:
            return await self._store.get(self._name)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            return None

    def _saw(self, body: Body) -> None:
        self._expiry.saw(self._name, contract.renewal_of(body), self._runtime.monotonic())

    def _held_by(self, holder: str, base: Body | None) -> Body:
        return contract.held_body(
            base,
            name=self._name,
            labels=self._labels,
            holder=holder,
            duration_s=self._duration_s,
            now=contract.micro_time(self._runtime.wall_ms()),
            owner=self._owner,
        )
