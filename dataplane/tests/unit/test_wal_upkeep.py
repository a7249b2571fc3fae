"""What goes wrong beside the appends: slow and failed checkpoints, and failures nobody foresaw."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import pytest
import structlog

from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.testkit.faulty import Fault
from walplane.testkit.outside import TestNode
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import CH, EARLIEST, V, World, create, entry, payloads_of, read_all
from walplane.wal.config import WALConfig
from walplane.wal.ports import LogEntry
from walplane.wal.scan.request import ScanRequest
from walplane.wal.wal import WAL

EAGER = WALConfig(idle_tick_s=0.02, checkpoint_s=0.02, checkpoint_bytes=1)


class Truncations:
    """Truncations that never end, or fail, until the backend is well again."""

    def __init__(self, error: WalError | None = None) -> None:
        self.tries = 0
        self.well = asyncio.Event()
        self._error = error

    async def __call__(self) -> None:
        self.tries += 1
        if self.well.is_set():
            return
        if self._error is not None:
            raise self._error
        await self.well.wait()


async def test_a_slow_checkpoint_does_not_pass_for_a_stopped_process(world: World) -> None:
    """Time passes in steps below the limit, each of them noticed by the upkeep."""
    now = [0.0]
    system = Runtime.system()
    runtime = Runtime(system.wall_ms, lambda: now[0], system.random)
    node = TestNode(world.backend, world.oracle, world.authority, runtime)
    truncations = world.backend.before_truncation = Truncations()
    wal = await node.open(CH, 1, EAGER.model_copy(update={"ack_timeout_s": 60.0}))
    world.opened.append((node, wal))
    await create(wal, V)

    async def tail() -> None:
        async with wal.scan(ScanRequest(EARLIEST)) as scanner:
            while True:
                await scanner.next()

    reader = asyncio.create_task(tail())
    async with asyncio.timeout(10):
        await wal.append(entry(b"first", number=0))
        await until(lambda: truncations.tries > 0)
        for number in range(1, 6):
            now[0] += wal.config.stall_limit_s * 0.7
            before = wal.live_position().watermark
            await until(lambda before=before: wal.live_position().watermark > before)  # type: ignore[misc]
            await wal.append(entry(b"%d" % number, number=number))
    assert truncations.tries == 1
    assert wal.open_number == 0
    truncations.well.set()
    reader.cancel()
    await asyncio.wait({reader})


async def test_a_checkpoint_that_takes_too_long_is_tried_again_later(world: World) -> None:
    truncations = world.backend.before_truncation = Truncations()
    wal = await world.open(1, EAGER.model_copy(update={"open_timeout_s": 0.2}))
    await wal.append(entry(b"a", number=0))
    await until(lambda: truncations.tries >= 2)
    truncations.well.set()
    await wal.append(entry(b"b", number=1))
    await until(lambda: truncations.tries >= 3)
    assert wal.open_number == 0
    assert not wal.stopped.done()


async def test_a_truncation_that_fails_costs_no_open(world: World) -> None:
    down = WalError(ErrorCode.INNER, "the admin API cannot be reached")
    truncations = world.backend.before_truncation = Truncations(down)
    wal = await world.open(1, EAGER)
    for number in range(3):
        await wal.append(entry(b"%d" % number, number=number))
        await until(lambda number=number: truncations.tries > number)  # type: ignore[misc]
    assert wal.recovery.checkpoint_tick > 0, "the checkpoint itself counts"
    assert wal.open_number == 0


async def test_a_checkpoint_that_is_not_acknowledged_opens_the_log_again(world: World) -> None:
    wal = await world.open(1, EAGER)
    meta: list[str] = []

    def plan(topic: str) -> Fault:
        if topic != CH and not meta:
            meta.append(topic)
            return Fault.FAIL_BEFORE
        return Fault.NONE

    world.backend.faults = plan
    await wal.append(entry(b"a", number=0))
    await until(lambda: wal.open_number == 1 and wal.state == "serving")
    await until(lambda: wal.recovery.checkpoint_tick > 0)
    assert payloads_of(await read_all(wal)) == [b"a"]


async def test_an_unforeseen_failure_of_a_reopen_ends_the_log_visibly(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = await world.open(1)

    async def broken() -> None:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(world.backend, "session", broken)
    world.backend.faults = lambda _topic: Fault.FAIL_BEFORE
    with structlog.testing.capture_logs() as logs:
        async with asyncio.timeout(5):
            with pytest.raises(WalError) as error:
                await wal.append(entry(b"a", number=0))
            reason = await wal.stopped
    assert error.value.code is ErrorCode.CHANNEL_FENCED
    assert isinstance(reason, WalError)
    assert "nobody thought of this" in reason.message
    assert wal.state == "stopped"
    assert any(isinstance(log.get("exc_info"), RuntimeError) for log in logs)


async def test_an_entry_that_got_lost_on_the_way_ends_the_log_visibly(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written, and no reader would ever have it here: the watermark waits for its ticks."""
    wal = await world.open(1)
    written = wal.shards.written

    def broken(item: LogEntry) -> None:
        monkeypatch.setattr(wal.shards, "written", written)
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(wal.shards, "written", broken)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with asyncio.timeout(10):
        await wal.append(entry(b"lost", number=0))
        for number in itertools.count(1):  # what goes on meanwhile hides nothing
            try:
                await wal.append(entry(b"%d" % number, number=number))
            except WalError:
                break
        reason = await wal.stopped
    assert isinstance(reason, WalError)
    assert reason.code is ErrorCode.INNER
    assert "what became of the entry" in reason.message
    successor = await world.open(2)
    assert payloads_of(await read_all(successor))[0] == b"lost"


async def test_an_unforeseen_failure_of_the_upkeep_ends_the_log_visibly(world: World) -> None:
    def broken() -> bool:
        raise RuntimeError("nobody thought of this")

    node = TestNode(world.backend, world.oracle, world.authority, Runtime.system())
    world.authority.terms[CH] = 1
    wal = await WAL.open(CH, 1, replace(node.deps, may_tick_idle=broken), EAGER)
    world.opened.append((node, wal))
    async with asyncio.timeout(5), wal.scan(ScanRequest(EARLIEST)) as scanner:
        with pytest.raises(WalError, match="nobody thought of this"):
            while True:
                await scanner.next()
        reason = await wal.stopped
    assert isinstance(reason, WalError)
    with pytest.raises(WalError):
        await wal.append(entry(b"a"))
