"""Events on WALClusters and PChannels, for `kubectl describe`. Layer: apply.

Contract: the same event again raises its count instead of making another, at most once a minute.
Events are written behind, in their order; one that cannot be written is dropped, and so are the
oldest of too many: nothing they tell about is ever held up by them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import structlog

from walplane_operator.api import names
from walplane_operator.api.names import Object
from walplane_operator.api.times import second_time
from walplane_operator.apply.kube import ApiError, Kube, path_of

_log = structlog.get_logger(__name__)

_REMEMBERED = 4096
_WAITING = 1000
_AGAIN = timedelta(minutes=1)
_MAX_MESSAGE = 1024


@dataclass(frozen=True)
class Event:
    """Something to tell about an object.

    Attributes:
        about: a WALCluster or a PChannel, as it was read.
        reason: one word in CamelCase.
    """

    about: Object
    kind: str
    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


class EventWriter:
    """Writes events; `run` it."""

    def __init__(self, kube: Kube, reporter: str) -> None:
        """Takes the name of the process that reports."""
        self._kube = kube
        self._reporter = reporter
        self._told: OrderedDict[str, tuple[int, datetime]] = OrderedDict()
        self._waiting: deque[tuple[Event, datetime]] = deque(maxlen=_WAITING)
        self._news = asyncio.Event()

    def tell(self, event: Event, now: datetime) -> None:
        """`event` is to be told, or counted up, as of `now`."""
        self._waiting.append((event, now))
        self._news.set()

    async def run(self) -> None:
        """Writes what is told until cancelled."""
        while True:
            await self._news.wait()
            await self.flush()

    async def flush(self) -> None:
        """Writes what waits; returns once it is written or dropped."""
        self._news.clear()
        while self._waiting:
            event, now = self._waiting.popleft()
            try:
                await self._write(event, now)
            except Exception:  # whatever it is: all clusters share this task
                _log.warning("event dropped", reason=event.reason, exc_info=True)

    async def _write(self, event: Event, now: datetime) -> None:
        about = event.about["metadata"]
        text = "\0".join((about["uid"], event.type, event.reason, event.message))
        name = f"{about['name']}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        count, when = self._told.get(name, (0, now))
        if count and now - when < _AGAIN:
            return
        try:
            if count and await self._count_up(about["namespace"], name, count + 1, now):
                self._remember(name, count + 1, now)
                return
            await self._create(event, name, now)
            self._remember(name, 1, now)
        except ApiError as error:
            _log.info("event not written", reason=event.reason, error=str(error))

    async def _count_up(self, namespace: str, name: str, count: int, now: datetime) -> bool:
        body = {"count": count, "lastTimestamp": second_time(now)}
        try:
            await self._kube.patch(path_of("v1", "Event", namespace, name), body)
        except ApiError as error:
            if error.status != 404:
                raise
            return False  # events live for an hour
        return True

    async def _create(self, event: Event, name: str, now: datetime) -> None:
        about = event.about["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": about["namespace"]},
            "involvedObject": {
                "apiVersion": names.API_VERSION,
                "kind": event.kind,
                "name": about["name"],
                "namespace": about["namespace"],
                "uid": about["uid"],
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:_MAX_MESSAGE],
            "count": 1,
            "firstTimestamp": second_time(now),
            "lastTimestamp": second_time(now),
            "source": {"component": names.FIELD_MANAGER},
            "reportingComponent": names.FIELD_MANAGER,
            "reportingInstance": self._reporter,
        }
        try:
            await self._kube.create(path_of("v1", "Event", about["namespace"]), body)
        except ApiError as error:
            if error.status != 409:
                raise
            await self._count_up(about["namespace"], name, 2, now)  # told by an operator before us

    def _remember(self, name: str, count: int, now: datetime) -> None:
        self._told[name] = (count, now)
        self._told.move_to_end(name)
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
