"""What cannot be taken in holds one log up, visibly, and never the node; a lost head says so."""

from __future__ import annotations

import asyncio

import pytest

from walplane.lease.report import DATA_LOSS, reason_of
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import (
    CH,
    VCHANNELS,
    V,
    World,
    drop_entry,
    entry,
    payloads_of,
    read_all,
)
from walplane.wal.config import WALConfig
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.state import RecoveryState
from walplane.wal.recovery.windows import ProducerWindows

EAGER = WALConfig(idle_tick_s=0.02, checkpoint_s=0.02)


@pytest.fixture
def world_url(each_url: str) -> str:
    return each_url


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A component that cannot take in batch 3."""
    observe = ProducerWindows.observe

    def broken(windows: ProducerWindows, item: LogEntry) -> None:
        if item.entry.envelope.producer.number == 3:
            raise ZeroDivisionError("nobody thought of this")
        observe(windows, item)

    monkeypatch.setattr(ProducerWindows, "observe", broken)


@pytest.mark.usefixtures("poisoned")
async def test_a_poisoned_log_is_read_and_not_appended_to(world: World) -> None:
    wal = await world.open(1, EAGER)
    for number in range(3):
        await wal.append(entry(b"%d" % number, number=number))
    await until(lambda: wal.recovery.checkpoint_tick >= wal.live_position().watermark)
    before = wal.recovery.checkpoint_tick
    await wal.append(entry(b"3", number=3))
    assert wal.status().state == "quarantined"
    assert "nobody thought of this" in wal.status().last_error
    with pytest.raises(WalError) as error:
        await wal.append(entry(b"4", number=4))
    assert error.value.code is ErrorCode.UNRECOVERABLE
    assert payloads_of(await read_all(wal)) == [b"0", b"1", b"2", b"3"]
    assert wal.recovery.checkpoint_tick == before
    with pytest.raises(WalError):
        await wal.checkpoint()
    for growing in wal.shards.candidates():
        wal.shards.retire(growing, "a test says so")
    last = wal.last_appended()
    wal.seal_segments()
    assert wal.last_appended() == last, "the log writes nothing of its own either"


async def test_what_waited_for_the_entry_that_poisons_a_log_is_not_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they would have to respect is not known: that the VChannel ended, and what a key got."""
    wal = await world.open(1, EAGER)

    def broken(_state: RecoveryState, _item: LogEntry) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(RecoveryState, "_observe", broken)
    acknowledged = asyncio.Event()
    world.backend.before_ack = acknowledged.wait
    other, key = VCHANNELS[1], {"_ik": "once"}
    waiting = [entry(b"behind"), entry(b"keyed", vchannel=other, properties=key)]
    written = [drop_entry(V), entry(b"keyed", vchannel=other, properties=key)]
    appends = [asyncio.create_task(wal.append(each)) for each in written + waiting]
    await until(lambda: wal.status().bytes_pending > 0)
    acknowledged.set()
    async with asyncio.timeout(10):
        *answered, behind, repeat = await asyncio.gather(*appends, return_exceptions=True)
    for error in (behind, repeat):
        assert isinstance(error, WalError)
        assert error.code is ErrorCode.UNRECOVERABLE
    assert not any(isinstance(each, BaseException) for each in answered)
    assert payloads_of(await read_all(wal, vchannel=V)) == [b""], "the drop"
    assert payloads_of(await read_all(wal, vchannel=other)) == [b"keyed"]


@pytest.mark.usefixtures("poisoned")
async def test_a_poisoned_log_opens_again_and_is_poisoned_again(world: World) -> None:
    wal = await world.open(1, EAGER)
    for number in range(4):
        await wal.append(entry(b"%d" % number, number=number))
    successor = await world.open(2, EAGER)
    assert successor.status().condition == "Quarantined"
    assert payloads_of(await read_all(successor)) == [b"0", b"1", b"2", b"3"]
    await successor.close()


async def test_a_log_that_was_mended_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer version knows what to do with the entry: nothing was lost meanwhile."""
    observe = ProducerWindows.observe

    def broken(_windows: ProducerWindows, item: LogEntry) -> None:
        if item.entry.envelope.HasField("producer"):
            raise ZeroDivisionError

    monkeypatch.setattr(ProducerWindows, "observe", broken)
    wal = await world.open(1, EAGER)
    first = await wal.append(entry(b"0", number=0))
    assert wal.status().state == "quarantined"
    monkeypatch.setattr(ProducerWindows, "observe", observe)
    successor = await world.open(2, EAGER)
    assert await successor.append(entry(b"0", number=0)) == first
    await successor.append(entry(b"1", number=1))


async def test_a_checkpoint_before_the_first_record_is_data_loss(world: World) -> None:
    """The backend expired what replay must begin with."""
    wal = await world.open(1, EAGER)
    await wal.append(entry(b"0", number=0))
    await until(lambda: wal.recovery.checkpoint_tick >= wal.live_position().watermark)
    await wal.close()
    other = await world.open(2, WALConfig(idle_tick_s=0.02, checkpoint_s=3600.0))
    for number in range(1, 5):
        await other.append(entry(b"%d" % number, number=number))
    last = other.live_position().record
    session = await world.backend.session()
    await session.truncate(CH, last)
    await session.close()
    with pytest.raises(WalError) as error:
        await world.open(3, EAGER)
    assert error.value.code is ErrorCode.DATA_TRUNCATED
    assert f"data of {CH} is lost" in error.value.message
    assert reason_of(error.value, "OpenFailed") == DATA_LOSS


async def test_a_lost_beginning_without_a_checkpoint_is_data_loss(world: World) -> None:
    wal = await world.open(1, WALConfig(idle_tick_s=0.02, checkpoint_s=3600.0))
    for number in range(5):
        await wal.append(entry(b"%d" % number, number=number))
    session = await world.backend.session()
    await session.truncate(CH, wal.live_position().record)
    await session.close()
    with pytest.raises(WalError, match="its beginning"):
        await world.open(2, EAGER)


async def test_a_snapshot_of_a_later_version_is_read_and_not_built_upon(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older version is put back: what it does not know of may be what makes appends once."""
    wal = await world.open(1, EAGER)
    await wal.append(entry(b"0", number=0))
    with monkeypatch.context() as later:
        later.setattr(ProducerWindows, "component", "promises")
        await wal.close()  # with a snapshot
    wal = await world.open(2, EAGER)
    assert wal.status().state == "quarantined"
    assert "promises, which this version does not know" in wal.status().last_error
    with pytest.raises(WalError) as error:
        await wal.append(entry(b"1", number=1))
    assert error.value.code is ErrorCode.UNRECOVERABLE
    assert payloads_of(await read_all(wal)) == [b"0"]
    await wal.close()
    monkeypatch.setattr(ProducerWindows, "component", "promises")
    wal = await world.open(3, EAGER)  # upgraded again
    await wal.append(entry(b"1", number=1))
    assert payloads_of(await read_all(wal)) == [b"0", b"1"]
