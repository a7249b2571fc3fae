"""One list-and-watch that notices when it is dead. Layer: handlers.

Contract: `on_list` gets a complete list, then `on_event` every change after it, in order; what
`on_event` gets between two lists is unbroken. A server that hangs is cut off by a deadline; 410,
errors and hangs lead to a new list. Retries are endless, at most two seconds apart; so is what goes
on where a watch ended at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import structlog

from walplane_operator.api.names import Object
from walplane_operator.apply.kube import CALL_TIMEOUT_S, ApiError, Kube, WatchEvent

_log = structlog.get_logger(__name__)

WATCH_S = 50
"""The server ends a watch after this long; the next one goes on where it ended."""
STALE_S = WATCH_S + 4 * CALL_TIMEOUT_S
"""A watch that has not begun anew for so long is dead, and its process with it."""
_RETRY_S = (0.2, 2.0)
_SHORT_S = 0.5  # a watch that ends sooner did not work, whatever it said


@dataclass
class Listeners:
    """Who is told.

    Attributes:
        on_list: the items of a complete list, and when it came.
        on_event: a change; bookmarks too.
        on_break: nothing is known until the next list.
    """

    on_list: Callable[[list[Object], float], None]
    on_event: Callable[[WatchEvent, float], None]
    on_break: Callable[[], None]


class Watcher:
    """Watches one collection; `run` it."""

    def __init__(
        self, kube: Kube, path: str, selector: str, listeners: Listeners, watch_s: int = WATCH_S
    ) -> None:
        """Takes the collection's path and a label selector."""
        self._kube = kube
        self._path = path
        self._selector = selector
        self._listeners = listeners
        self._watch_s = watch_s
        self._began: float | None = None

    def stale(self, now: float) -> bool:
        """Whether it has stopped beginning anew: nobody will ever tell us anything."""
        return self._began is not None and now - self._began > STALE_S

    async def run(self) -> None:
        """Watches until cancelled."""
        loop = asyncio.get_running_loop()
        first, most = _RETRY_S
        pause, version = first, ""
        while True:
            began = loop.time()
            try:
                version = await self._watch(version or await self._list())
            except (ApiError, TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
                _log.info("watch broke", path=self._path, error=str(error) or type(error).__name__)
                self._listeners.on_break()
                version = ""
            short = loop.time() - began < _SHORT_S
            if short or not version:
                await asyncio.sleep(pause)
            pause = min(most, pause * 2) if short else first

    async def _list(self) -> str:
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        items, version = await self._kube.list(self._path, self._selector)
        # Only now: a server that has just come back takes its time, and nobody could renew either.
        self._listeners.on_list(items, loop.time())
        return version

    async def _watch(self, version: str) -> str:
        """Watches from `version` until the server ends it; returns where to go on."""
        loop = asyncio.get_running_loop()
        self._began = loop.time()

        def told(event: WatchEvent) -> None:
            nonlocal version
            version = event.object["metadata"]["resourceVersion"]
            self._listeners.on_event(event, loop.time())

        await self._kube.watch(self._path, self._selector, version, self._watch_s, told)
        return version
