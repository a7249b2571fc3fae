"""Keeps a copy of the Leases that one selector chooses, by list and watch.

Contract: `on_change` is told of every Lease that is new or different, and with None of one that is
gone: from a complete list or a DELETED event, never from a failed call. While `live`, the copy lags
by milliseconds; a watch that stops yielding is noticed by its deadline. Whatever fails, it lists
again, with pauses that grow; it never ends. Layer: lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from walplane.lease.contract import Body, name_of
from walplane.lease.store import ApiError, LeaseStore
from walplane.runtime import Runtime

_log = structlog.get_logger(__name__)

WINDOW_S = 25.0
"""How long one watch lasts: also how long one that silently died goes unnoticed."""

_SHORT_S = 0.5  # a watch that lasts no longer than this did not work
_PAUSE_S = (0.2, 5.0)

OnChange = Callable[[str, Body | None], None]


class LeaseWatch:
    """One list-and-watch.

    Args:
        store: the API server.
        selector: label selector.
        runtime: clock and randomness of the pauses.
        on_change: told (name, Lease or None).
        on_live: told whether the copy is kept up to date.
        window_s: how long one watch lasts.

    Attributes:
        leases: the copy, by name.
        live: whether it is kept up to date.
        synced: set once the first list is complete.
    """

    def __init__(
        self,
        store: LeaseStore,
        selector: str,
        runtime: Runtime,
        on_change: OnChange,
        on_live: Callable[[bool], None] = lambda _: None,
        window_s: float = WINDOW_S,
    ) -> None:
        """Watches nothing before `run`."""
        self.leases: dict[str, Body] = {}
        self.live = False
        self.synced = asyncio.Event()
        self._store = store
        self._selector = selector
        self._runtime = runtime
        self._on_change = on_change
        self._on_live = on_live
        self._window_s = window_s

    async def run(self) -> None:
        """Works until it is cancelled."""
        first, most = _PAUSE_S
        pause = first
        while True:
            began = self._runtime.monotonic()
            try:
                version = await self._list()
                while True:
                    version = await self._follow(version)
            except ApiError as error:
                self._set_live(False)
                if self._runtime.monotonic() - began > most:
                    pause = first  # it worked for a while
                _log.warning("watch lost", selector=self._selector, error=str(error))
                wish = error.retry_after_ms / 1000
                await asyncio.sleep(max(wish, pause * (0.5 + self._runtime.random.random())))
                pause = min(pause * 2, most)

    async def _list(self) -> str:
        items, version = await self._store.list(self._selector)
        found = {name_of(body): body for body in items}
        for name in [name for name in self.leases if name not in found]:
            self._take(name, None)
        for name, body in found.items():
            self._take(name, body)
        self._set_live(True)
        self.synced.set()
        return version

    async def _follow(self, version: str) -> str:
        """One watch, to its regular end; returns where the next one goes on.

        Raises:
            ApiError: it failed, or ended before it can have been of use.
        """
        began = self._runtime.monotonic()
        async with self._store.watch(self._selector, version, self._window_s) as events:
            async for kind, body in events:
                version = str(body["metadata"]["resourceVersion"])
                if kind == "DELETED":
                    self._take(name_of(body), None)
                elif kind != "BOOKMARK":
                    self._take(name_of(body), body)
        if self._runtime.monotonic() - began < _SHORT_S:
            raise ApiError(0, f"the watch of {self._selector} ended at once")
        return version

    def _take(self, name: str, body: Body | None) -> None:
        known = self.leases.get(name)
        if body is None:
            if self.leases.pop(name, None) is not None:
                self._on_change(name, None)
        elif known is None or _version(known) != _version(body):
            self.leases[name] = body
            self._on_change(name, body)

    def _set_live(self, live: bool) -> None:
        if live is not self.live:
            self.live = live
            self._on_live(live)


def _version(body: Body) -> object:
    return body["metadata"].get("uid"), body["metadata"].get("resourceVersion")
