"""The simulated world keeps its own promises: time, processes, pipes, disk."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

from walplane.backends.interface import EARLIEST
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.sim.backend import Broker, Manners, SimBackend
from walplane.testkit.sim.disk import Disk
from walplane.testkit.sim.loop import SimLoop, SimulationError
from walplane.testkit.sim.network import Network, Pipe
from walplane.testkit.sim.process import Process


def run(loop: SimLoop, main: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - whatever main returns
    try:
        return loop.run(main)
    finally:
        loop.close()


def test_an_hour_passes_at_once() -> None:
    loop = SimLoop(0)

    async def main() -> float:
        await asyncio.sleep(3600)
        return loop.time()

    began = time.monotonic()
    assert run(loop, main()) == pytest.approx(3600, abs=0.001)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("real", ["sleep", "thread", "socket"])
def test_what_would_really_wait_fails(real: str) -> None:
    loop = SimLoop(0)

    async def main() -> None:
        if real == "sleep":
            time.sleep(0.001)  # noqa: ASYNC251 - that is the test
        elif real == "thread":
            await asyncio.to_thread(lambda: None)
        else:
            await asyncio.open_connection("127.0.0.1", 1)

    with pytest.raises((SimulationError, NotImplementedError)):
        run(loop, main())


def test_a_world_in_which_nothing_can_happen_says_so() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(SimulationError, match="nothing will ever happen"):
        run(SimLoop(0), main())


def test_a_world_that_spins_says_so() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 - that is the test
            await asyncio.sleep(0)

    with pytest.raises(SimulationError, match="spins"):
        run(SimLoop(0, max_steps=10_000), main())


def test_a_killed_process_takes_no_further_step_and_says_nothing() -> None:
    loop = SimLoop(0)
    seen: list[str] = []

    async def work() -> None:
        try:
            for step in range(10):
                seen.append(f"step {step}")
                await asyncio.sleep(1)
        finally:
            seen.append("finally")

    async def main() -> None:
        process = Process(loop, "p.1", "p", 0)
        process.start(work())
        await asyncio.sleep(2.5)
        process.kill()
        await asyncio.sleep(10)

    run(loop, main())
    assert seen == ["step 0", "step 1", "step 2"]


def test_a_stopped_process_goes_on_where_it_was() -> None:
    loop = SimLoop(0)
    seen: list[int] = []

    async def work() -> None:
        for _ in range(3):
            seen.append(round(loop.time()))
            await asyncio.sleep(1)

    async def main() -> None:
        process = Process(loop, "p.1", "p", 0)
        process.start(work())
        await asyncio.sleep(0.5)
        process.stop()
        await asyncio.sleep(10)
        process.resume()
        await asyncio.sleep(5)

    run(loop, main())
    assert seen == [0, 10, 11] or seen == [0, 11, 12]


def test_a_pipe_keeps_its_order_through_a_cut() -> None:
    loop = SimLoop(3)
    got: list[object] = []

    async def main() -> None:
        network = Network(loop, 3)
        network.weather.jitter_s = 0.1
        pipe = Pipe(network, Process(loop, "a.1", "a", 0), Process(loop, "b.1", "b", 1), got.append)
        for number in range(50):
            pipe.send(number)
            if number == 25:
                network.cut("a", "b")
            await asyncio.sleep(0.01)
        await asyncio.sleep(5)
        assert got == list(range(len(got)))
        assert len(got) < 50
        network.heal()
        await asyncio.sleep(5)

    run(loop, main())
    assert got == list(range(50))


class Backend:
    """A simulated backend and a client of it in a process of its own."""

    def __init__(self, loop: SimLoop, manners: Manners) -> None:
        self.network = Network(loop, 5)
        self.disk = Disk(self.network, 0.01)
        self.broker = Broker(self.network, self.disk, manners, 5)
        self.process = Process(loop, "n.1", "n", 5)

    async def records(self) -> list[bytes]:
        topic = self.disk.topics["t"]
        return topic.records[: topic.visible - topic.earliest]


def on_backend(manners: Manners, work: Any) -> Any:  # noqa: ANN401 - a test's own function
    loop = SimLoop(5)

    async def main() -> Any:  # noqa: ANN401
        backend = Backend(loop, manners)
        return await backend.process.start(work(backend))

    return run(loop, main())


async def writer_of(backend: Backend, term: int) -> Any:  # noqa: ANN401
    session = await SimBackend(backend.broker, backend.process, 1000).session()
    await session.ensure_topic("t")
    return await session.open_writer("t", term, 0)


def test_a_crash_takes_what_was_not_acknowledged_and_nothing_else() -> None:
    async def work(backend: Backend) -> None:
        writer = await writer_of(backend, 1)
        assert await writer.append(b"kept") == (1,)
        lost = writer.append(b"lost")
        await asyncio.sleep(0.005)
        backend.broker.fail(crash=True)
        await asyncio.sleep(0.1)
        assert not lost.done()
        assert await backend.records() == [b"kept"]

    on_backend(Manners(), work)


def test_a_later_opener_fences_the_writer_with_frames_in_flight() -> None:
    async def work(backend: Backend) -> None:
        old = await writer_of(backend, 2)
        await old.append(b"before")
        in_flight = old.append(b"maybe")
        new = await writer_of(backend, 1)  # the last one wins, whatever its term
        too_late = old.append(b"never")
        await new.append(b"after")
        with pytest.raises(WalError) as refused:
            await too_late
        assert refused.value.code is ErrorCode.CHANNEL_FENCED
        assert in_flight.done()
        assert b"never" not in await backend.records()

    on_backend(Manners(evicts=0.0, silent_fence=0.0), work)


def test_a_backend_that_knows_terms_refuses_a_lower_one() -> None:
    async def work(backend: Backend) -> None:
        await writer_of(backend, 2)
        with pytest.raises(WalError) as refused:
            await writer_of(backend, 1)
        assert refused.value.code is ErrorCode.CHANNEL_FENCED

    on_backend(Manners(knows_terms=True), work)


def test_a_session_forgets_scanners_that_are_closed() -> None:
    async def work(backend: Backend) -> None:
        session = await SimBackend(backend.broker, backend.process, 1000).session()
        await session.ensure_topic("t")
        scanner = await session.open_scanner("t", EARLIEST)
        gone = weakref.ref(scanner)
        await scanner.close()
        del scanner
        await asyncio.sleep(10)  # the timer of the call that opened it
        gc.collect()
        assert gone() is None
        left = await session.open_scanner("t", EARLIEST)
        await session.close()
        with pytest.raises(WalError, match="ON_SHUTDOWN"):
            await left.read()

    on_backend(Manners(), work)


@pytest.mark.parametrize("deduplicates", [True, False])
def test_a_broken_connection_makes_the_client_send_again(deduplicates: bool) -> None:
    async def work(backend: Backend) -> None:
        writer = await writer_of(backend, 1)
        told = [writer.append(b"%d" % number) for number in range(5)]
        while not backend.disk.topics["t"].records:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.0001)
        writer.reset()
        await asyncio.gather(*told)
        records = await backend.records()
        assert [record for record in dict.fromkeys(records)] == [b"0", b"1", b"2", b"3", b"4"]
        assert (len(records) == 5) is deduplicates

    on_backend(Manners(deduplicates=deduplicates), work)
