"""One PChannel's log, in memory and on RocksDB: order, retries, self-reopen, terms, reading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from walplane.backends.forwarding import ForwardingSession
from walplane.backends.interface import RecordScanner, Start, StartAt
from walplane.message import codec
from walplane.message.ids import MessageID, ResumeToken
from walplane.prompt import PromptTask
from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.testkit.faulty import Fault, no_faults
from walplane.testkit.outside import TestNode
from walplane.testkit.waiting import until
from walplane.testkit.wal_world import CH, EARLIEST, V, World, create, entry, payloads_of, read_all
from walplane.wal.config import WALConfig
from walplane.wal.interceptors.base import append_op
from walplane.wal.ports import AppendResult, LogEntry, StaleTerm
from walplane.wal.scan.request import ScanRequest, ScanStart, StartKind
from walplane.wal.wal import WAL


@pytest.fixture
def world_url(each_url: str) -> str:
    return each_url


def nth(number: int, fault: Fault, topic: str = CH) -> Callable[[str], Fault]:
    """A plan: the `number`-th record to `topic` from now on meets `fault`."""
    seen = 0

    def plan(name: str) -> Fault:
        nonlocal seen
        if name != topic:
            return Fault.NONE
        seen += 1
        return fault if seen == number else Fault.NONE

    return plan


async def test_appends_come_back_in_order_with_growing_ticks(world: World) -> None:
    wal = await world.open(1)
    results = await asyncio.gather(*(wal.append(entry(b"%d" % i, b"x")) for i in range(100)))
    assert [r.first_tick for r in results] == sorted({r.first_tick for r in results})
    items = await read_all(wal)
    assert payloads_of(items)[::2] == [b"%d" % i for i in range(100)]
    assert [item.message_id for item in items] == [r.message_id for r in results]
    assert [item.first_tick for item in items] == [r.first_tick for r in results]


async def test_queued_entries_share_a_frame(world: World) -> None:
    wal = await world.open(1, WALConfig(frames_in_flight=1))
    results = await asyncio.gather(*(wal.append(entry(b"%d" % i)) for i in range(50)))
    assert len({r.message_id.record for r in results}) < len(results)


async def test_the_answer_leaves_before_the_entry_is_taken_in_and_nothing_comes_between(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = await world.open(1)
    await wal.append(entry(b"w"))  # with what goes before the first one
    order: list[str] = []
    observe, loop = wal.recovery.observe, asyncio.get_running_loop()

    def noted(item: LogEntry) -> None:
        order.append("taken in")
        observe(item)

    def answered(_append: object) -> None:
        order.append("answered")
        loop.call_soon(order.append, "next turn")

    monkeypatch.setattr(wal.recovery, "observe", noted)
    append = wal.start_append(append_op(entry(b"x")))
    append.listen(answered)
    await append
    await asyncio.sleep(0)
    assert order == ["answered", "taken in", "next turn"]


async def test_who_asked_is_answered_once_before_the_chain_lets_go(world: World) -> None:
    wal = await world.open(1)
    await wal.append(entry(b"w", number=0))
    order: list[tuple[object, ...]] = []

    def start(body: bytes, number: int, name: str) -> PromptTask[AppendResult]:
        op = append_op(entry(body, number=number))
        op.answer = lambda written: order.append((name, written.result()))
        append = wal.start_append(op)
        append.listen(lambda _: order.append((name, "over")))
        return append

    first = start(b"x", 1, "first")
    repeat = start(b"x", 1, "repeat")
    gap = start(b"y", 7, "gap")
    result = await first
    assert await repeat == result
    with pytest.raises(WalError) as refused:
        await gap
    assert refused.value.code is ErrorCode.INVALID_REQUEST_SEQ
    assert [item for item in order if item[0] == "gap"] == [("gap", "over")]
    assert [item for item in order if item[0] != "gap"] == [
        ("first", result),
        ("first", "over"),
        ("repeat", "over"),
    ]


async def test_an_answer_that_fails_keeps_nobody_behind_it_from_theirs(world: World) -> None:
    wal = await world.open(1)
    failures: list[str] = []
    handler = asyncio.get_running_loop().set_exception_handler
    handler(lambda _, context: failures.append(str(context["exception"])))

    def broken(_written: object) -> None:
        raise LookupError("no way to the client")

    ops = [append_op(entry(b"%d" % number, number=number)) for number in range(3)]
    ops[0].answer = broken
    async with asyncio.timeout(10):
        results = await asyncio.gather(*map(wal.start_append, ops))
    assert [result.first_tick for result in results] == sorted(r.first_tick for r in results)
    assert failures == ["no way to the client"]


async def test_a_repeated_batch_gets_the_first_result_also_under_a_new_owner(world: World) -> None:
    wal = await world.open(1)
    first = [await wal.append(entry(b"%d" % i, number=i)) for i in range(3)]
    assert await wal.append(entry(b"1", number=1)) == first[1]
    successor = await world.open(2)
    assert await successor.append(entry(b"2", number=2)) == first[2]
    assert payloads_of(await read_all(successor)) == [b"0", b"1", b"2"]


async def test_a_repeat_while_the_first_is_in_flight_waits_for_it(world: World) -> None:
    wal = await world.open(1)
    both = await asyncio.gather(*(wal.append(entry(b"a", number=0)) for _ in range(2)))
    assert both[0] == both[1]
    assert payloads_of(await read_all(wal)) == [b"a"]


@pytest.mark.parametrize(
    ("number", "code"), [(2, ErrorCode.INVALID_REQUEST_SEQ), (0, ErrorCode.INVALID_ARGUMENT)]
)
async def test_gaps_and_changed_payloads_are_refused(
    world: World, number: int, code: ErrorCode
) -> None:
    wal = await world.open(1)
    await wal.append(entry(b"a", number=0))
    with pytest.raises(WalError) as error:
        await wal.append(entry(b"other", number=number))
    assert error.value.code is code
    assert payloads_of(await read_all(wal)) == [b"a"]


@pytest.mark.parametrize("fault", [f for f in Fault if f is not Fault.NONE])
@pytest.mark.parametrize("number", [1, 2, 7])
async def test_an_unknown_outcome_is_settled_by_a_self_reopen(
    world: World, fault: Fault, number: int
) -> None:
    config = WALConfig(ack_timeout_s=0.2, frames_in_flight=4, frame_bytes=40, idle_tick_s=0.02)
    wal = await world.open(1, config)
    await wal.append(entry(b"before", number=0))
    world.backend.faults = nth(number, fault)
    async with asyncio.timeout(10):
        results = await asyncio.gather(
            *(wal.append(entry(b"%d" % i, number=i + 1)) for i in range(40))
        )
    assert wal.open_number >= 1
    items = await read_all(wal)
    assert payloads_of(items) == [b"before", *(b"%d" % i for i in range(40))]
    assert [item.message_id for item in items[1:]] == [r.message_id for r in results]
    assert [item.first_tick for item in items] == sorted({item.first_tick for item in items})


async def test_a_tailing_reader_sees_one_sequence_through_a_self_reopen(world: World) -> None:
    wal = await world.open(1, WALConfig(ack_timeout_s=0.2, idle_tick_s=0.02))
    seen: list[bytes] = []

    async def tail() -> None:
        async with wal.scan(ScanRequest(EARLIEST)) as scanner:
            while len(seen) < 30:
                seen.extend(payloads_of(list((await scanner.next()).entries)))

    async with asyncio.timeout(10):
        reader = asyncio.create_task(tail())
        for i in range(30):
            if i == 10:
                world.backend.faults = nth(1, Fault.LOSE_ACK)
            if i == 20:
                world.backend.faults = nth(1, Fault.FAIL_BEFORE)
            await wal.append(entry(b"%d" % i, number=i))
        await reader
    assert seen == [b"%d" % i for i in range(30)]
    assert wal.open_number >= 2


async def test_an_older_owner_is_fenced_and_says_so(world: World) -> None:
    old = await world.open(1)
    await old.append(entry(b"old"))
    new = await world.open(2)
    await new.append(entry(b"new"))
    with pytest.raises(WalError) as error:
        await old.append(entry(b"late"))
    assert error.value.code is ErrorCode.CHANNEL_FENCED
    async with asyncio.timeout(5):
        reason = await old.stopped
    assert isinstance(reason, StaleTerm)
    assert reason.term_floor == 2
    assert payloads_of(await read_all(new)) == [b"old", b"new"]


async def test_an_opener_with_a_stale_term_gives_up(world: World) -> None:
    new = await world.open(5)
    await new.append(entry(b"a"))
    await new.close()
    with pytest.raises(StaleTerm) as error:
        await world.open(4)
    assert error.value.term_floor == 5
    again = await world.open(6)
    assert payloads_of(await read_all(again)) == [b"a"]


async def test_another_opener_of_the_same_term_gives_up(world: World) -> None:
    owner = await world.open(3)
    await owner.append(entry(b"a"))
    with pytest.raises(StaleTerm):
        await world.open(3)


async def test_an_opener_whose_term_was_overtaken_meanwhile_gives_up(world: World) -> None:
    node = TestNode(world.backend, world.oracle, world.authority, Runtime.system())
    world.authority.terms[CH] = 9
    with pytest.raises(StaleTerm):
        await WAL.open(CH, 8, node.deps, WALConfig())
    await node.reserve.close()
    wal = await world.open(10)
    await wal.append(entry(b"fine"))


async def test_ticks_grow_across_terms_and_ids_too(world: World) -> None:
    results: list[AppendResult] = []
    for term in (1, 2, 3):
        wal = await world.open(term)
        results += [await wal.append(entry(b"a", b"b")) for _ in range(5)]
    assert [r.first_tick for r in results] == sorted(r.first_tick for r in results)
    assert [r.message_id for r in results] == sorted(r.message_id for r in results)
    assert len({r.first_tick for r in results}) == len(results)


async def test_serving_and_self_reopen_do_not_need_the_coordinator(world: World) -> None:
    wal = await world.open(1, WALConfig(ack_timeout_s=0.2))
    await wal.append(entry(b"0", number=0))
    world.oracle.away = True
    world.authority.terms[CH] = None
    world.backend.faults = nth(1, Fault.FAIL_AFTER)
    async with asyncio.timeout(5):
        for i in range(1, 5):
            await wal.append(entry(b"%d" % i, number=i))
    assert wal.open_number == 1
    assert payloads_of(await read_all(wal)) == [b"%d" % i for i in range(5)]


async def test_a_backend_outage_is_waited_out(world: World) -> None:
    wal = await world.open(1, WALConfig(ack_timeout_s=0.1))
    world.backend.faults = lambda topic: Fault.FAIL_BEFORE
    world.backend.refused = True
    appended = asyncio.create_task(wal.append(entry(b"patient", number=0)))
    await until(lambda: wal.status().attempts >= 3)
    assert not appended.done()
    world.backend.faults = no_faults
    world.backend.refused = False
    async with asyncio.timeout(10):
        await appended
    assert payloads_of(await read_all(wal)) == [b"patient"]


async def test_a_process_that_was_stopped_opens_again_before_it_trusts_anything(
    world: World,
) -> None:
    """Its clock jumps by more than half a lease between two steps."""
    now = [0.0]
    system = Runtime.system()
    runtime = Runtime(system.wall_ms, lambda: now[0], system.random)
    node = TestNode(world.backend, world.oracle, world.authority, runtime)
    wal = await node.open(CH, 1, WALConfig(idle_tick_s=0.02))
    world.opened.append((node, wal))
    await create(wal, V)
    await wal.append(entry(b"a"))
    now[0] += 60
    async with asyncio.timeout(5):
        await until(lambda: wal.open_number > 0 and wal.state == "serving")
        await wal.append(entry(b"b"))
    assert payloads_of(await read_all(wal)) == [b"a", b"b"]


async def test_reading_starts_where_it_is_told(world: World) -> None:
    wal = await world.open(1)
    results = [await wal.append(entry(b"%d" % i)) for i in range(10)]
    items = await read_all(wal)
    from_id = ScanStart(StartKind.FROM_ID, message_id=results[4].message_id)
    assert payloads_of(await read_all(wal, from_id))[0] == b"4"
    token = ScanStart(StartKind.TOKEN, token=items[6].token())
    assert payloads_of(await read_all(wal, token)) == [b"7", b"8", b"9"]
    latest = ScanStart(StartKind.LATEST)
    assert payloads_of(await read_all(wal, latest)) == []


async def test_every_resume_token_goes_on_exactly_behind_its_message(world: World) -> None:
    wal = await world.open(1, WALConfig(write_ahead_bytes=200, frames_in_flight=3))
    await asyncio.gather(*(wal.append(entry(b"%03d" % i * 10)) for i in range(60)))
    items = await read_all(wal)
    successor = await world.open(2)
    for position, item in enumerate(items):
        rest = await read_all(successor, ScanStart(StartKind.TOKEN, token=item.token()))
        assert [i.first_tick for i in rest] == [i.first_tick for i in items[position + 1 :]]


async def test_a_reader_filters_by_vchannel(world: World) -> None:
    wal = await world.open(1)
    for i in range(6):
        await wal.append(entry(b"%d" % i, vchannel=f"test_0_1v{i % 2}"))
    assert payloads_of(await read_all(wal, vchannel="test_0_1v1")) == [b"1", b"3", b"5"]


async def test_a_slow_reader_falls_behind_and_misses_nothing(world: World) -> None:
    wal = await world.open(1, WALConfig(write_ahead_bytes=2_000, idle_tick_s=0.02))
    await wal.append(entry(b"first"))
    async with asyncio.timeout(10), wal.scan(ScanRequest(EARLIEST)) as scanner:
        seen = payloads_of(list((await scanner.next()).entries))
        for i in range(200):
            await wal.append(entry(b"%d" % i * 20))
        while len(seen) < 201:
            seen += payloads_of(list((await scanner.next()).entries))
    assert seen == [b"first", *(b"%d" % i * 20 for i in range(200))]


async def test_a_start_that_the_backend_looks_for_holds_up_no_other_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Pulsar does for a second, for a record that its broker has not told of yet."""
    wal = await world.open(1, WALConfig(write_ahead_bytes=50))
    await wal.append(entry(b"first"))
    results = [await wal.append(entry(b"%d" % number)) for number in range(2)]
    looked, found = asyncio.Event(), asyncio.Event()
    original = ForwardingSession.open_scanner

    async def open_scanner(session: ForwardingSession, topic: str, start: Start) -> RecordScanner:
        if start.at is StartAt.FROM:
            looked.set()
            await found.wait()
        return await original(session, topic, start)

    monkeypatch.setattr(ForwardingSession, "open_scanner", open_scanner)
    there = ScanStart(StartKind.FROM_ID, message_id=results[0].message_id)
    waiting = asyncio.create_task(read_all(wal, there))
    await looked.wait()
    assert payloads_of(await read_all(wal)) == [b"first", b"0", b"1"]
    assert not waiting.done()
    found.set()
    assert payloads_of(await waiting) == [b"0", b"1"]


async def test_ticks_of_an_idle_channel_advance_for_tailing_readers(world: World) -> None:
    wal = await world.open(1, WALConfig(idle_tick_s=0.02))
    async with asyncio.timeout(5), wal.scan(ScanRequest(EARLIEST)) as scanner:
        watermarks = [(await scanner.next()).watermark for _ in range(4)]
    assert watermarks == sorted(set(watermarks))


async def test_a_silent_log_says_its_watermark_for_readers_of_the_bare_topic(world: World) -> None:
    wal = await world.open(1, WALConfig(silence_s=0.05, idle_tick_s=0.02))
    result = await wal.append(entry(b"a"))
    session = await world.backend.session()
    async with asyncio.timeout(5):
        watermark = 0
        scanner = await session.open_scanner(CH, Start(StartAt.EARLIEST))
        while watermark < result.first_tick:
            for record in await scanner.read():
                for item in codec.decode_frame(record.data, "record").entries:
                    watermark = item.envelope.watermark
        await scanner.close()
    await session.close()


async def test_an_open_replays_from_the_checkpoint_only(world: World) -> None:
    wal = await world.open(1)
    for i in range(50):
        await wal.append(entry(b"%d" % i, number=i))
    await wal.close()
    successor = await world.open(2)
    assert successor.recovery.checkpoint_tick > 0
    repeat = await successor.append(entry(b"49", number=49))
    assert repeat.term == 1, "the window came from the snapshot"
    replayed = successor.replayed
    assert replayed < 10
    assert payloads_of(await read_all(successor)) == [b"%d" % i for i in range(50)]


async def test_an_oversized_entry_is_refused_and_harms_nobody(world: World) -> None:
    wal = await world.open(1)
    with pytest.raises(WalError) as error:
        await wal.append(entry(b"x" * (wal.max_entry_bytes + 1), number=0))
    assert error.value.code is ErrorCode.INVALID_ARGUMENT
    await wal.append(entry(b"small", number=0))
    assert payloads_of(await read_all(wal)) == [b"small"]


async def test_a_cancelled_append_disturbs_nobody(world: World) -> None:
    wal = await world.open(1)
    tasks = [asyncio.create_task(wal.append(entry(b"%d" % i, number=i))) for i in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.wait(tasks)
    await wal.append(entry(b"20", number=20))
    assert payloads_of(await read_all(wal)) == [b"%d" % i for i in range(21)]


async def test_a_read_of_a_foreign_position_says_so(world: World) -> None:
    wal = await world.open(1)
    foreign = MessageID("pulsar", (1, 2))
    with pytest.raises(WalError) as error:
        await read_all(wal, ScanStart(StartKind.FROM_ID, message_id=foreign))
    assert error.value.code is ErrorCode.INVALID_ARGUMENT


async def test_a_closed_log_is_read_and_written_no_more(world: World) -> None:
    wal = await world.open(1)
    await wal.close()
    with pytest.raises(WalError):
        await wal.append(entry(b"a"))
    with pytest.raises(WalError):
        wal.scan(ScanRequest(ScanStart(StartKind.TOKEN, token=ResumeToken(None, 0, 0, 0))))


async def test_a_reader_overtaken_at_a_barrier_goes_on_though_the_log_was_cut(
    world: World,
) -> None:
    """A barrier names no LastConfirmed: the place behind it is that of the entry before."""
    config = WALConfig(idle_tick_s=0.02, write_ahead_bytes=20_000)
    old = await world.open(1, config)
    results = [await old.append(entry(b"%d" % number)) for number in range(20)]
    await old.checkpoint()
    await (await world.backend.session()).truncate(CH, results[5].message_id.record)
    wal = await world.open(2, config)
    async with wal.scan(ScanRequest(EARLIEST)) as reader, asyncio.timeout(20):
        read: list[bytes] = []
        while len(read) < 15:
            read += payloads_of(list((await reader.next()).entries))
        while not reader.tailing:
            await reader.next()
        late = [await wal.append(entry(bytes(500))) for _ in range(60)]
        while len(read) < 15 + len(late):
            read += payloads_of(list((await reader.next()).entries))
    assert read == [*(b"%d" % number for number in range(5, 20)), *[bytes(500)] * 60]
