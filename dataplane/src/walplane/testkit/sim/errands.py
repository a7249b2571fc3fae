"""What a plan starts beside its writers, each time in a process of its own. Layer: testkit."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from walplane.testkit.sim.process import Process
from walplane.testkit.sim.workload import Work


class Errands:
    """Those of one kind."""

    def __init__(self, work: Work, letter: str) -> None:
        """None yet; their processes are named `letter` and a number."""
        self._work = work
        self._letter = letter
        self._started = 0
        self._under_way: set[asyncio.Task[None]] = set()

    def _process(self) -> Process:
        """One for the next errand, which counts as an operation."""
        self._started += 1
        self._work.operations += 1
        return self._work.cluster.process(f"{self._letter}{self._started}")

    def _begin(self, process: Process, errand: Coroutine[None, None, None]) -> None:
        task = process.start(errand)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
