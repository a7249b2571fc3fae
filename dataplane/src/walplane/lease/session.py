"""The session Lease of this process: that it lives, where it serves, what it has to say.

Contract: renewed every third of its duration, and soon after something worth telling changed.
`live` is judged by this process' own clock, from before the renewal was sent, so it ends before
any observer may call the session expired. A Lease that is gone, twice in a row a second apart, is
made again; one that names another process ends this session for good: `ended` is done then. An API
server that cannot be reached ends nothing. Layer: lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from walplane.lease import contract
from walplane.lease.contract import Body, Identity
from walplane.lease.report import Report
from walplane.lease.store import FORBIDDEN, NOT_FOUND, UNAUTHORIZED, ApiError, LeaseStore
from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime

_log = structlog.get_logger(__name__)

_GATHER_S = 0.1  # changes that come together leave together
_RETRIES = (0.02, 0.1)
"""Pauses between attempts, of the Lease's duration.

When the API server comes back, observers give every session one duration: time for several attempts
though some of them hang.
"""
_GONE_S = 1.0  # between two looks that find no Lease


class Session:
    """The session of one process.

    Args:
        store: the API server.
        identity: of this process.
        cluster: its cluster's name.
        component: `contract.NODE` or `contract.COORD`.
        duration_s: of the Lease.
        runtime: clocks.
        report: what to say, asked at every renewal.

    Attributes:
        ended: done with the reason once another process has the Lease.
        renewals: how often it was renewed.
    """

    def __init__(
        self,
        store: LeaseStore,
        identity: Identity,
        cluster: str,
        component: str,
        duration_s: float,
        runtime: Runtime,
        report: Callable[[], Report],
    ) -> None:
        """Not alive before `run`."""
        self.ended: asyncio.Future[WalError] = asyncio.get_running_loop().create_future()
        self.renewals = 0
        self._store = store
        self._identity = identity
        self._labels = {
            contract.KIND_LABEL: contract.SESSION,
            contract.CLUSTER_LABEL: cluster,
            contract.COMPONENT_LABEL: component,
        }
        self._duration_s = duration_s
        self._runtime = runtime
        self._report = report
        self._body: Body | None = None
        self._valid_until = float("-inf")
        self._renewed_at: float | None = None
        self._changes = 0
        self._told = 0
        self._wake = asyncio.Event()
        self._renewed = asyncio.Event()
        self._forbidden_since: float | None = None
        self._forbidden = asyncio.Event()

    @property
    def live(self) -> bool:
        """Whether no observer can have called this session expired by now."""
        return not self.ended.done() and self._runtime.monotonic() < self._valid_until

    @property
    def age_s(self) -> float | None:
        """Seconds since the latest renewal was sent; None before the first."""
        return None if self._renewed_at is None else self._runtime.monotonic() - self._renewed_at

    def changed(self) -> None:
        """Something in the report is worth telling at once."""
        self._changes += 1
        self._wake.set()

    async def told(self) -> None:
        """Returns once everything that changed before the call is in the Lease, or it is over."""
        wanted = self._changes
        while not self.ended.done() and (self._told < wanted or self.renewals == 0):
            self._renewed.clear()
            await self._renewed.wait()

    async def refused(self, seconds: float) -> None:
        """Returns once the API server has forbidden every renewal for so many seconds.

        A starting API server forbids for a moment; one that goes on has taken the rights away, and
        then the account, as happens when the cluster that this process is of is deleted.
        """
        while True:
            since = self._forbidden_since
            if since is not None and self._runtime.monotonic() - since >= seconds:
                return
            self._forbidden.clear()
            await self._forbidden.wait()

    async def run(self) -> None:
        """Renews until the session is ended, or this is cancelled."""
        first, most = (self._duration_s * part for part in _RETRIES)
        pause = first
        while not self.ended.done():
            try:
                await self._renew()
                pause = first
                self._forbidden_since = None
            except ApiError as error:
                self._note_refusal(error)
                left = self._valid_until - self._runtime.monotonic()
                _log.warning("session not renewed", error=str(error), lasts_s=round(left, 1))
                await asyncio.sleep(pause)
                pause = min(pause * 2, most)
                continue
            await self._pause()

    async def end(self) -> None:
        """Deletes the Lease, if it still is this process' own; to be called when `run` has ended.

        Raises:
            ApiError: it could not be deleted.
        """
        if self.ended.done() or self.renewals == 0:
            return
        self._valid_until = float("-inf")
        body = await self._get()
        if body is not None and contract.holder_of(body) == str(self._identity):
            await self._store.delete(body)

    def _note_refusal(self, error: ApiError) -> None:
        if error.status not in (UNAUTHORIZED, FORBIDDEN):
            self._forbidden_since = None
        elif self._forbidden_since is None:
            self._forbidden_since = self._runtime.monotonic()
        self._forbidden.set()

    async def _pause(self) -> None:
        """Until the next renewal is due, or something is to be told."""
        if self._told == self._changes:
            self._wake.clear()
            try:
                async with asyncio.timeout(self._duration_s / 3):
                    await self._wake.wait()
            except TimeoutError:
                return
        await asyncio.sleep(_GATHER_S)

    async def _renew(self) -> None:
        changes, began = self._changes, self._runtime.monotonic()
        base = self._body = self._body or await self._read()
        body = self._written(base)
        try:
            if base is None:
                stored = await self._store.create(body)
            else:
                stored = await self._store.replace(body)
        except ApiError as error:
            if error.status:  # without an answer one more write tells: a conflict if this one came
                self._body = None
            raise
        self._body = stored
        self._renewed_at, self._valid_until = began, began + self._duration_s
        self._told = changes
        self.renewals += 1
        self._renewed.set()

    async def _read(self) -> Body | None:
        """The Lease to go on from; None when it is to be made.

        Raises:
            ApiError: it cannot be told, or the session is over.
        """
        name = self._identity.pod
        body = await self._get()
        if body is None and self.renewals > 0:
            await asyncio.sleep(_GONE_S)
            body = await self._get()
        if body is None:
            return None
        holder = contract.holder_of(body)
        if holder != str(self._identity) and self.renewals > 0:
            reason = f"session Lease {name} belongs to {holder or 'nobody'} now: this process ends"
            self.ended.set_result(WalError(ErrorCode.ON_SHUTDOWN, reason))
            self._renewed.set()
            raise ApiError(0, reason)
        return body

    async def _get(self) -> Body | None:
        try:
            return await self._store.get(self._identity.pod)
        except ApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def _written(self, base: Body | None) -> Body:
        return contract.held_body(
            base,
            name=self._identity.pod,
            labels=self._labels,
            holder=str(self._identity),
            duration_s=self._duration_s,
            now=contract.micro_time(self._runtime.wall_ms()),
            annotations={contract.REPORT: self._report().to_json()},
            owner=contract.pod_reference(self._identity),
        )
