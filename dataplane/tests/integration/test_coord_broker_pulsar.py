"""A coordinator whose broker dies and comes back, and two coordinators on one broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from devservices.pulsar import PrerequisiteMissingError, PulsarProcess
from walplane.backends.registry import open_backend
from walplane.coord.coord import Coord
from walplane.coord.settings import CoordSettings
from walplane.rpc.errors import WalError
from walplane.runtime import Runtime
from walplane.wal.ports import StaleTerm

pytestmark = [pytest.mark.pulsar, pytest.mark.slow]

SETTINGS = CoordSettings(snapshot_deltas=50, call_timeout_s=2.0)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulsarProcess]:
    """A broker of this test's own: it is killed."""
    process = PulsarProcess(tmp_path_factory.mktemp("pulsar"))
    try:
        process.start()
    except PrerequisiteMissingError as missing:
        pytest.skip(str(missing))
    yield process
    process.wipe()


async def fresh_ticks(coord: Coord, ticks: list[int], failures: list[WalError]) -> None:
    """Asks for one fresh tick after another."""
    while True:
        try:
            ticks.append(await coord.oracle.fresh("p_0", 1))
        except WalError as error:
            failures.append(error)
            await asyncio.sleep(0.1)


async def grown(ticks: list[int], by: int) -> None:
    async with asyncio.timeout(90):
        wanted = len(ticks) + by
        while len(ticks) < wanted:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.01)


async def test_a_killed_broker_stops_the_coordinator_for_its_absence_only(
    broker: PulsarProcess,
) -> None:
    backend = await open_backend(f"{broker.url}&namespace=public/coord-killed")
    ticks: list[int] = []
    failures: list[WalError] = []
    async with Coord.open(
        backend, "p", Runtime.system(), pchannel_count=1, settings=SETTINGS
    ) as coord:
        asking = [asyncio.create_task(fresh_ticks(coord, ticks, failures)) for _ in range(4)]
        await grown(ticks, 200)
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        await grown(ticks, 200)
        for task in asking:
            task.cancel()
        assert not coord.stopped.done()
        assert coord.term == 1
    assert len(set(ticks)) == len(ticks)
    print(f"{len(failures)} calls failed while the broker was away")
    async with Coord.open(backend, "p", Runtime.system(), settings=SETTINGS) as coord:
        assert coord.term == 2
        assert await coord.oracle.fresh("p_0", 1) > max(ticks)
    await backend.close()


async def test_of_two_coordinators_on_one_broker_the_newer_one_goes_on_undisturbed(
    broker: PulsarProcess,
) -> None:
    backend = await open_backend(f"{broker.url}&namespace=public/coord-two")
    async with Coord.open(
        backend, "p", Runtime.system(), pchannel_count=1, settings=SETTINGS
    ) as old:
        ticks = [await old.oracle.fresh("p_0", 1)]
        async with Coord.open(backend, "p", Runtime.system(), settings=SETTINGS) as new:
            assert new.term == old.term + 1
            ticks.append(await new.oracle.fresh("p_0", 1))
            lost = asyncio.create_task(old.oracle.fresh("p_0", 1))
            async with asyncio.timeout(60):
                while not old.stopped.done():
                    ticks.append(await new.oracle.fresh("p_0", 1))
            assert isinstance(old.stopped.result(), StaleTerm)
            with pytest.raises(WalError):
                await lost
            ticks.append(await new.oracle.fresh("p_0", 1))
            assert not new.stopped.done()
    assert ticks == sorted(set(ticks))
    await backend.close()
