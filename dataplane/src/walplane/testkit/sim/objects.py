"""The simulated segment store: objects that are created, and what goes wrong on the way to them.

Contract: behind the same port as obstore. A create that was sent may be done though its answer is
lost, may be done long after its caller gave up or died, and changes nothing where an object is. The
world remembers in which order objects came to be. Layer: testkit.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from walplane.testkit.sim.network import Network
from walplane.testkit.sim.process import Process
from walplane.testkit.sim.rows import RowFormat
from walplane.wal.recovery.segments.budget import SegmentBudget
from walplane.wal.recovery.segments.storing import SegmentDeps

_T = TypeVar("_T")

HOST = "store"
_TIMEOUT_S = 2.0
_ENCODING_S = 0.0005


@dataclass
class Habits:
    """How the store behaves; shares of calls.

    Attributes:
        latency_s: of a call, on average.
        fails: refused, and nothing is done.
        unheard: done, and the answer is an error.
        late: done up to five timeouts later, when who waited has given up as a rule.
    """

    latency_s: float = 0.005
    fails: float = 0.0
    unheard: float = 0.0
    late: float = 0.0

    def calm(self) -> None:
        """No more faults."""
        self.fails = self.unheard = self.late = 0.0


class Objects:
    """The store's own end.

    Attributes:
        data: by path, in the order in which the objects came to be.
        up: False while it is away.
        habits: may be changed at any time.
        on_delete: told before an object is deleted.
    """

    def __init__(self, network: Network, habits: Habits, budget_bytes: int, seed: int) -> None:
        """Empty; what waits at a node for it takes `budget_bytes` there."""
        self.data: dict[str, bytes] = {}
        self.up = True
        self.on_delete: Callable[[str], None] = lambda _path: None
        self.habits = habits
        self.network = network
        self._budget_bytes = budget_bytes
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret

    def put(self, path: str, data: bytes) -> bool:
        """Creates an object unless there is one."""
        return self.data.setdefault(path, data) is data

    def delete(self, paths: Sequence[str]) -> None:
        """Removes the objects that are there."""
        for path in paths:
            if path in self.data:
                self.on_delete(path)
                del self.data[path]

    def calm(self) -> None:
        """It is there, and honest."""
        self.up = True
        self.habits.calm()

    def delay(self) -> float:
        """How long a call takes in the store."""
        habits = self.habits
        if self.network.chance(habits.late):
            return self._random.uniform(0.5, 5.0) * _TIMEOUT_S
        return self._random.expovariate(1 / habits.latency_s)

    def deps(self, process: Process) -> SegmentDeps:
        """What a node in `process` stores segments with."""
        store = ObjectClient(self, process)
        return SegmentDeps(store, RowFormat(), SegmentBudget(self._budget_bytes), _beside_the_loop)


class ObjectClient:
    """A `SegmentStore` as one process sees it."""

    def __init__(self, objects: Objects, process: Process) -> None:
        """A client library in `process`."""
        self._objects = objects
        self._process = process

    async def create(self, path: str, data: bytes) -> bool:
        """See `SegmentStore`."""
        return await self._call(lambda: self._objects.put(path, data))

    async def read(self, path: str) -> bytes:
        """See `SegmentStore`."""
        return await self._call(lambda: self._objects.data[path])

    async def paths(self, folder: str) -> list[str]:
        """See `SegmentStore`."""
        data = self._objects.data
        return await self._call(lambda: [path for path in data if path.startswith(f"{folder}/")])

    async def delete(self, paths: Sequence[str]) -> None:
        """See `SegmentStore`."""
        await self._call(lambda: self._objects.delete(paths))

    async def _call(self, action: Callable[[], _T]) -> _T:
        """Does `action` in the store.

        Raises:
            OSError: refused, or there was no answer; done or not.
        """
        objects = self._objects
        answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()

        def act() -> None:
            if not objects.up or objects.network.chance(objects.habits.fails):
                outcome: tuple[Any, str] = (None, "the store refuses")
            else:
                outcome = (action(), "")
                if objects.network.chance(objects.habits.unheard):
                    outcome = (None, "the connection broke")
            tell(*outcome)

        def tell(result: _T, trouble: str) -> None:
            if answer.done() or not objects.network.reaches(HOST, self._process.host):
                return
            if trouble:
                answer.set_exception(OSError(trouble))
                answer.exception()
            else:
                answer.set_result(result)

        if objects.network.reaches(self._process.host, HOST):
            objects.network.world(objects.delay(), act)
        async with asyncio.timeout(_TIMEOUT_S):
            return await answer


async def _beside_the_loop(work: Callable[[], Any]) -> Any:  # noqa: ANN401
    await asyncio.sleep(_ENCODING_S)
    return work()
