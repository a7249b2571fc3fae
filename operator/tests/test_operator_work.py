"""The queue: each key once, its own backoff, nobody held up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from walplane_operator.apply.kube import Kube
from walplane_operator.handlers.main import Operator
from walplane_operator.handlers.settings import Settings
from walplane_operator.handlers.work import WorkQueue


class Worker:
    """Counts what it is given; fails or waits where told."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.fails: set[str] = set()
        self.gates: dict[str, asyncio.Event] = {}
        self.times: dict[str, list[float]] = {}
        self.again: float | None = None
        self.news = asyncio.Condition()

    async def work(self, key: str) -> float | None:
        async with self.news:
            self.times.setdefault(key, []).append(asyncio.get_running_loop().time())
            self.news.notify_all()
        if key in self.gates:
            await self.gates[key].wait()
        async with self.news:
            self.done[key] += 1
            self.news.notify_all()
        if key in self.fails:
            raise RuntimeError(key)
        return self.again

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self.news:
            await self.news.wait_for(condition)

    @asynccontextmanager
    async def queue(self, workers: int = 2, pause_s: float = 0.01) -> AsyncIterator[WorkQueue[str]]:
        queue = WorkQueue(self.work, workers, pause_s)
        running = asyncio.create_task(queue.run())
        try:
            yield queue
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_many_pokes_are_one_run() -> None:
    worker = Worker()
    async with worker.queue() as queue:
        for _ in range(50):
            queue.poke("a")
        await worker.until(lambda: worker.done["a"] == 1)
        queue.poke("b")
        await worker.until(lambda: worker.done["b"] == 1)
    assert worker.done == {"a": 1, "b": 1}


async def test_a_poke_during_a_run_leads_to_another() -> None:
    worker = Worker()
    gate = worker.gates["a"] = asyncio.Event()
    async with worker.queue() as queue:
        queue.poke("a")
        await worker.until(lambda: "a" in worker.times)
        queue.poke("a")
        gate.set()
        await worker.until(lambda: worker.done["a"] == 2)


async def test_a_failing_key_waits_longer_each_time_and_holds_up_no_other() -> None:
    worker = Worker()
    worker.fails.add("bad")
    async with worker.queue() as queue:
        queue.poke("bad")
        await worker.until(lambda: worker.done["bad"] == 1)
        for _ in range(20):
            queue.poke("bad")
            queue.poke("good")
            await worker.until(lambda: worker.done["good"] > 0)
        await worker.until(lambda: worker.done["bad"] == 3)
    first, second = (
        b - a for a, b in zip(worker.times["bad"], worker.times["bad"][1:], strict=False)
    )
    assert first >= 0.5
    assert second >= 1.0, "pokes do not shorten the wait"


async def test_success_ends_the_backoff() -> None:
    worker = Worker()
    worker.fails.add("a")
    async with worker.queue() as queue:
        queue.poke("a")
        await worker.until(lambda: worker.done["a"] == 1)
        worker.fails.clear()
        await worker.until(lambda: worker.done["a"] == 2)
        queue.poke("a")
        await worker.until(lambda: worker.done["a"] == 3)
    assert worker.times["a"][2] - worker.times["a"][1] < 0.5


async def test_a_key_that_hangs_takes_one_worker_only() -> None:
    worker = Worker()
    worker.gates["slow"] = asyncio.Event()
    async with worker.queue(workers=2) as queue:
        queue.poke("slow")
        for key in "abcdef":
            queue.poke(key)
        await worker.until(lambda: worker.done.total() == 6)
    assert worker.done["slow"] == 0


async def test_work_says_when_to_look_again() -> None:
    worker = Worker()
    worker.again = 0.02
    async with worker.queue() as queue:
        queue.poke("a")
        await worker.until(lambda: worker.done["a"] == 3)


async def test_a_later_poke_does_not_delay_an_earlier_one() -> None:
    worker = Worker()
    async with worker.queue() as queue:
        queue.poke("a", 0.01)
        queue.poke("a", 60)
        await worker.until(lambda: worker.done["a"] == 1)
        assert queue.waiting == 0


async def test_the_metric_of_the_queue_is_what_waits_now() -> None:
    operator = Operator(Settings(), cast(Kube, None))  # nothing of it runs
    operator._queue.poke(("ns", "demo"))
    assert operator.metrics.registry.get_sample_value("walplane_operator_queue_length") == 1
