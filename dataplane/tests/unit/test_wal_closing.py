"""A log that is being closed: takes nothing more, answers what is in flight, and is quick."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from walplane.backends.interface import BackendSession
from walplane.rpc.errors import Action, ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.testkit.faulty import Fault, no_faults
from walplane.testkit.outside import TestNode
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import (
    CH,
    EARLIEST,
    V,
    World,
    create,
    drop_entry,
    entry,
    payloads_of,
    read_all,
)
from walplane.wal.config import WALConfig
from walplane.wal.scan.buffer import WriteAheadMemory
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind


async def test_a_close_refuses_what_comes_and_answers_what_is_in_flight(world: World) -> None:
    wal = await world.open(1, WALConfig(frames_in_flight=2, ack_timeout_s=60))
    acknowledged = asyncio.Event()
    world.backend.before_ack = acknowledged.wait
    appends = [asyncio.create_task(wal.append(entry(b"%d" % i, number=i))) for i in range(5)]
    await until(lambda: wal.status().bytes_pending > 0)
    async with asyncio.timeout(10):
        closing = asyncio.create_task(wal.close())
        await until(lambda: wal.state == "closing")
        with pytest.raises(WalError) as refused:
            await wal.append(entry(b"late", number=5))
        assert refused.value.code is ErrorCode.ON_SHUTDOWN
        assert refused.value.action is Action.REDISCOVER
        assert not closing.done()
        world.backend.before_ack = None
        acknowledged.set()
        await asyncio.gather(closing, *appends)
        successor = await world.open(2)
    assert successor.recovery.checkpoint_tick >= appends[-1].result().first_tick
    await successor.append(entry(b"late", number=5))
    expected = [b"0", b"1", b"2", b"3", b"4", b"late"]
    assert payloads_of(await read_all(successor)) == expected


async def test_a_close_under_load_that_never_ends_is_quick(world: World) -> None:
    """Something is in flight at every moment: waiting for a quiet one would last for ever."""
    wal = await world.open(1, WALConfig(close_timeout_s=60.0))
    world.backend.before_ack = partial(asyncio.sleep, 0.004)
    acknowledged = [0] * 120

    async def load(writer: int) -> WalError:
        while True:
            number = acknowledged[writer]
            try:
                await wal.append(entry(b"x", number=number, producer=b"%d" % writer))
            except WalError as error:
                return error
            acknowledged[writer] += 1
            await asyncio.sleep(0.001 * (writer % 7))  # out of step with the others

    writers = [asyncio.create_task(load(writer)) for writer in range(len(acknowledged))]
    await until(lambda: min(acknowledged) > 3)
    async with asyncio.timeout(5):
        await wal.close()
        errors = await asyncio.gather(*writers)
    assert {error.code for error in errors} == {ErrorCode.ON_SHUTDOWN}
    world.backend.before_ack = None
    successor = await world.open(2)
    assert successor.replayed < 10, "it begins at a checkpoint"
    assert len(await read_all(successor)) == sum(acknowledged)


async def test_a_close_that_is_given_up_goes_on_and_lets_go_of_all(world: World) -> None:
    wal = await world.open(1)
    acknowledged = asyncio.Event()
    world.backend.before_ack = acknowledged.wait
    append = asyncio.create_task(wal.append(entry(b"row")))
    await until(lambda: wal.status().bytes_pending > 0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await wal.close()
    with pytest.raises(WalError, match="being closed"):
        await wal.append(entry(b"late"))
    acknowledged.set()
    async with asyncio.timeout(10):
        assert await wal.stopped is None
        await append
        await until(lambda: not wal._running._tasks)
        await wal.close()
    assert wal.recovery.checkpoint_tick >= append.result().first_tick


async def test_a_close_lets_go_of_the_rest_when_a_session_cannot_be_closed(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    outside = (world.backend, world.oracle, world.authority, Runtime.system())
    node = TestNode(*outside)
    node.deps = replace(node.deps, write_ahead=(memory := WriteAheadMemory(1 << 20)))
    wal = await node.open(CH, 1)
    await create(wal, V)
    assert memory.used
    session = wal._opened.session
    closing = session.close

    async def broken() -> None:
        await closing()
        raise WalError(ErrorCode.INNER, "the disk does not answer")

    monkeypatch.setattr(session, "close", broken)
    with pytest.raises(WalError, match="does not answer"):
        await wal.close()
    assert not memory.used
    await node.reserve.close()


async def test_a_close_does_not_wait_for_a_truncation(world: World) -> None:
    begun = asyncio.Event()

    async def never() -> None:
        begun.set()
        await asyncio.Event().wait()

    world.backend.before_truncation = never
    wal = await world.open(1, WALConfig(idle_tick_s=0.02, checkpoint_bytes=1, close_timeout_s=60))
    async with asyncio.timeout(10):
        await wal.append(entry(b"a", number=0))
        await begun.wait()
        result = await wal.append(entry(b"b", number=1))
        await wal.close()
    assert wal.recovery.checkpoint_tick >= result.first_tick


async def test_a_reopen_that_ends_during_a_close_answers_but_does_not_serve_again(
    world: World,
) -> None:
    wal = await world.open(1)
    world.backend.faults = lambda _topic: Fault.FAIL_BEFORE
    world.backend.refused = True
    append = asyncio.create_task(wal.append(entry(b"patient", number=0)))
    await until(lambda: wal.status().attempts >= 1)
    closing = asyncio.create_task(wal.close())
    await until(lambda: wal.state == "closing")
    world.backend.faults, world.backend.refused = no_faults, False
    states = set()
    async with asyncio.timeout(10):
        while not closing.done():
            states.add(wal.state)
            await asyncio.sleep(0)
    assert states <= {"closing", "closed"}
    await append
    successor = await world.open(2)
    assert payloads_of(await read_all(successor)) == [b"patient"]


async def test_a_close_gives_up_when_an_acknowledgement_is_lost(world: World) -> None:
    wal = await world.open(1, WALConfig(idle_tick_s=0.02, ack_timeout_s=0.3, close_timeout_s=60.0))
    world.backend.faults = lambda _topic: Fault.LOSE_ACK
    append = asyncio.create_task(wal.append(entry(b"a", number=0)))
    await until(lambda: wal.status().bytes_pending > 0)
    async with asyncio.timeout(10):
        await wal.close()
    with pytest.raises(WalError) as error:
        await append
    assert error.value.action is Action.REDISCOVER, "the next owner knows"
    world.backend.faults = no_faults
    successor = await world.open(2)
    assert (await successor.append(entry(b"a", number=0))).term == 1


async def test_readers_of_a_log_that_closes_in_trouble_hear_that_the_owner_is_gone(
    world: World,
) -> None:
    wal = await world.open(1, WALConfig(idle_tick_s=0.02, ack_timeout_s=0.3, close_timeout_s=60.0))
    async with wal.scan(ScanRequest(ScanStart(StartKind.LATEST))) as scanner, asyncio.timeout(10):
        world.backend.faults = lambda _topic: Fault.LOSE_ACK
        append = asyncio.create_task(wal.append(entry(b"a", number=0)))
        await until(lambda: wal.status().bytes_pending > 0)
        closing = asyncio.create_task(wal.close())
        with pytest.raises(WalError) as told:
            while True:
                await scanner.next()
        assert told.value.action is Action.REDISCOVER, "they can read on from the next owner"
        await asyncio.wait([append, closing])
        assert isinstance(append.exception(), WalError)


@pytest.mark.parametrize("what", ["append", "open"])
async def test_who_waits_for_a_log_that_ends_is_told_so_and_not_taken_for_cancelled(
    world: World, what: str
) -> None:
    wal = await world.open(1, WALConfig(close_timeout_s=0.05))
    world.backend.before_ack = asyncio.Event().wait
    row = asyncio.create_task(wal.append(entry(b"row")))
    await until(lambda: wal.status().bytes_pending > 0)
    dropping = asyncio.create_task(wal.append(drop_entry(V)))
    await asyncio.sleep(0)
    waits = wal.opens.open(V, "n", b"me", 0) if what == "open" else wal.append(entry(b"behind"))
    waiting = asyncio.create_task(waits)
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await wal.close()
        for call in (dropping, waiting):
            with pytest.raises(WalError, match="test_0 went away") as told:
                await call
            assert told.value.action is Action.REDISCOVER
        await asyncio.wait([row])
    world.backend.before_ack = None


async def test_a_caller_that_is_cancelled_itself_is_cancelled(world: World) -> None:
    wal = await world.open(1)
    acknowledged = asyncio.Event()
    world.backend.before_ack = acknowledged.wait
    append = asyncio.create_task(wal.append(entry(b"row")))
    await until(lambda: wal.status().bytes_pending > 0)
    append.cancel()
    await asyncio.wait([append])
    assert append.cancelled()
    acknowledged.set()
    await until(lambda: wal.status().bytes_pending == 0)
    assert payloads_of(await read_all(wal)) == [b"row"], "which takes nothing back"


async def test_a_reader_that_comes_while_a_log_closes_leaves_no_session(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend gives it one when the log has let go of all it had."""
    wal = await world.open(1)
    session, asked, answers = world.backend.session, asyncio.Event(), asyncio.Event()
    closed: list[bool] = []

    async def slow() -> BackendSession:
        asked.set()
        await answers.wait()
        made = await session()
        closing = made.close

        async def close() -> None:
            closed.append(True)
            await closing()

        monkeypatch.setattr(made, "close", close)
        return made

    monkeypatch.setattr(world.backend, "session", slow)
    async with asyncio.timeout(10), wal.scan(ScanRequest(EARLIEST)) as scanner:
        reading = asyncio.create_task(scanner.next())
        await asked.wait()
        await wal.close()
        answers.set()
        with pytest.raises(WalError) as error:
            await reading
    assert error.value.code is ErrorCode.ON_SHUTDOWN
    assert closed
