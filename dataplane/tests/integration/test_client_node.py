"""StreamingClient and StreamingNode over real gRPC, on the memory backend, with real faults."""

from __future__ import annotations

import asyncio
import time

import pytest

from walplane.backends.interface import Backend
from walplane.client import (
    AppendResult,
    ClientConfig,
    PartialAppendError,
    StreamingClient,
)
from walplane.message.builder import MutableMessage, insert
from walplane.message.ids import MessageID
from walplane.node.config import NodeConfig
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.link import FaultyLink
from walplane.testkit.reading import payloads, tailing
from walplane.testkit.standalone import free_port
from walplane.testkit.waiting import until
from walplane.wal.config import WALConfig

P0, P1 = "test_0", "test_1"


# --- appending and reading ---------------------------------------------------------------------


async def test_what_is_appended_is_read_back(wal: StreamingClient, vchannel: str) -> None:
    result = await wal.append(insert(vchannel, b"hello"))
    messages = [m async for m in wal.read(vchannel, follow=False)]
    assert messages[-1].payload == b"hello"
    assert messages[-1].message_id == result.message_id
    assert messages[-1].time_tick == result.time_tick


async def test_every_result_of_many_names_its_message(wal: StreamingClient, vchannel: str) -> None:
    second = vchannel.replace("v0", "v1")
    messages = [insert((vchannel, vchannel)[i % 2], b"%d" % i) for i in range(500)]
    results = await wal.append_many(messages)
    found = {m.message_id: m async for m in wal.read(vchannel, follow=False)}
    assert len(results) == 500
    for index, result in enumerate(results):
        message = found[result.message_id]
        assert (message.payload, message.time_tick) == (b"%d" % index, result.time_tick)
    assert second not in {m.vchannel for m in found.values()}


async def test_appends_made_at_the_same_time_share_entries(
    wal: StreamingClient, vchannel: str
) -> None:
    results = await asyncio.gather(*(wal.append(insert(vchannel, b"%d" % i)) for i in range(300)))
    assert await payloads(wal, vchannel) == [b"%d" % i for i in range(300)]
    entries = {result.message_id[:3] for result in results}
    assert len(entries) < 30


async def test_a_message_of_many_payloads_is_one_entry(wal: StreamingClient, vchannel: str) -> None:
    result = await wal.append(insert(vchannel, *(b"%d" % i for i in range(10))))
    assert result.message_count == 10
    assert await payloads(wal, vchannel) == [b"%d" % i for i in range(10)]


async def test_a_pchannel_is_read_with_all_its_vchannels(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    other = await cluster.create_vchannel(P0, collection_id=2)
    await wal.append_many([insert(vchannel, b"a"), insert(other, b"b"), insert(vchannel, b"c")])
    assert sorted(await payloads(wal, P0)) == [b"a", b"b", b"c"]
    assert await payloads(wal, other) == [b"b"]


async def test_a_tailing_reader_gets_what_comes(wal: StreamingClient, vchannel: str) -> None:
    await wal.append(insert(vchannel, b"before"))
    async with tailing(wal, vchannel, start="latest") as got:
        await asyncio.sleep(0.1)
        for number in range(5):
            await wal.append(insert(vchannel, b"%d" % number))
        await until(lambda: len(got) == 5)
    assert got == [b"0", b"1", b"2", b"3", b"4"]


async def test_the_watermark_of_an_idle_channel_reaches_its_reader(
    wal: StreamingClient, vchannel: str
) -> None:
    result = await wal.append(insert(vchannel, b"last"))
    reader = wal.reader(vchannel)

    async def follow() -> None:
        async for _ in reader.batches():
            pass

    following = asyncio.create_task(follow())
    await until(lambda: reader.watermark > result.time_tick)
    assert reader.token is not None
    assert reader.token.time_tick > result.time_tick
    following.cancel()


async def test_a_program_goes_on_from_its_token_in_the_middle_of_an_entry(
    wal: StreamingClient, vchannel: str
) -> None:
    await wal.append(insert(vchannel, *(b"%d" % i for i in range(10))))
    await wal.append(insert(vchannel, b"10"))
    messages = [m async for m in wal.read(vchannel, follow=False)]
    for message in messages[1:]:
        token = str(message.resume_token)
        rest = [m.payload async for m in wal.read(vchannel, start=token, follow=False)]
        expected = [m.payload for m in messages if m.time_tick > message.time_tick]
        assert rest == expected


async def test_reads_begin_with_or_behind_a_message(wal: StreamingClient, vchannel: str) -> None:
    results = await wal.append_many([insert(vchannel, b"%d" % i) for i in range(10)])
    start = results[4].message_id
    read = [m.payload async for m in wal.read(vchannel, start=start, follow=False)]
    assert read == [b"%d" % i for i in range(4, 10)]
    after = [m.payload async for m in wal.read(vchannel, start=start, after=True, follow=False)]
    assert after == read[1:]


# --- wrong use ---------------------------------------------------------------------------------


async def test_wrong_port_is_one_clear_line_in_time() -> None:
    address = f"127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(WalError, match=f"no walplane at {address}"):
        async with StreamingClient.connect(address, timeout=1):
            pass
    assert time.monotonic() - began < 4


async def test_an_unknown_vchannel_is_refused_and_harms_nobody(
    wal: StreamingClient, vchannel: str
) -> None:
    for call in (wal.append(insert("test_0_9v0", b"x")), anext(wal.read("test_0_9v0"))):
        with pytest.raises(WalError, match="there is no VChannel test_0_9v0") as caught:
            await call
        assert caught.value.code is ErrorCode.CHANNEL_NOT_EXIST
    with pytest.raises(WalError, match="there is no PChannel test_9"):
        await wal.append(insert("test_9_1v0", b"x"))
    with pytest.raises(WalError, match="is no VChannel"):
        await wal.append(insert("nonsense", b"x"))
    await wal.append(insert(vchannel, b"fine"))


async def test_a_dropped_vchannel_takes_nothing_more(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    await wal.append(insert(vchannel, b"in time"))
    await cluster.drop_vchannel(vchannel)
    with pytest.raises(WalError) as caught:
        await wal.append(insert(vchannel, b"too late"))
    assert caught.value.code is ErrorCode.CHANNEL_NOT_EXIST
    assert [m.payload async for m in wal.read(P0, follow=False) if m.payload] == [b"in time"]


async def test_an_oversized_message_fails_alone(wal: StreamingClient, vchannel: str) -> None:
    messages = [insert(vchannel, b"a"), insert(vchannel, b"x" * 300_000), insert(vchannel, b"b")]
    with pytest.raises(PartialAppendError) as caught:
        await wal.append_many(messages)
    first, large, last = caught.value.outcomes
    assert isinstance(first, AppendResult)
    assert isinstance(last, AppendResult)
    assert isinstance(large, WalError)
    assert large.code is ErrorCode.INVALID_ARGUMENT
    assert "300" in large.message
    assert await payloads(wal, vchannel) == [b"a", b"b"]


async def test_a_start_of_another_backend_or_place_is_refused(
    wal: StreamingClient, vchannel: str
) -> None:
    with pytest.raises(WalError) as caught:
        await anext(wal.read(vchannel, start=MessageID("pulsar", (1, 2))))
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    with pytest.raises(WalError, match="'yesterday' is no start"):
        await anext(wal.read(vchannel, start="yesterday"))


async def test_a_closed_client_says_so(cluster: MiniCluster, vchannel: str) -> None:
    async with StreamingClient.connect(cluster.address) as wal:
        pass
    with pytest.raises(WalError, match="is closed"):
        await wal.append(insert(vchannel, b"x"))


# --- faults ------------------------------------------------------------------------------------


async def test_a_lost_reply_is_asked_for_again_and_nothing_is_doubled(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    async with FaultyLink(cluster.members["n1"].server.address) as link:
        await cluster.move(P0, "n1", address=link.address)
        await wal.append(insert(vchannel, b"first"))
        link.hold_replies(True)
        appends = [asyncio.create_task(wal.append(insert(vchannel, b"%d" % i))) for i in range(20)]
        log = cluster.owner(P0).wal(P0)
        before = log.last_appended()
        await until(lambda: log.last_appended() > before and log.appender.idle)
        assert not any(append.done() for append in appends)
        await link.cut()
        link.hold_replies(False)
        results = await asyncio.gather(*appends)
        assert await payloads(wal, vchannel) == [b"first", *(b"%d" % i for i in range(20))]
    ticks = [result.time_tick for result in results]
    assert ticks == sorted(set(ticks))


async def test_moves_under_load_lose_double_and_reorder_nothing(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    done: list[int] = []

    async def load() -> None:
        for number in range(0, 3000, 10):
            await wal.append_many([insert(vchannel, b"%d" % i) for i in range(number, number + 10)])
            done.append(number)

    expected = [b"%d" % i for i in range(3000)]
    async with tailing(wal, vchannel) as got:
        loading = asyncio.create_task(load())
        for round_, node_id in enumerate(("n2", "n1", "n2", "n1")):
            await until(lambda enough=30 * (round_ + 1): len(done) > enough, 30)  # type: ignore[misc]
            await cluster.move(P0, node_id)
        await loading
        await until(lambda: len(got) >= 3000)
    assert got == expected
    assert await payloads(wal, vchannel) == expected


async def test_connections_cut_under_load_lose_double_and_reorder_nothing(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    async with FaultyLink(cluster.members["n1"].server.address) as link:
        await cluster.move(P0, "n1", address=link.address)
        expected = [b"%d" % i for i in range(2000)]
        async with tailing(wal, vchannel) as got:
            loading = asyncio.create_task(_append_in_turn(wal, vchannel, 2000))
            while not loading.done():
                await asyncio.sleep(0.05)
                await link.cut()
            await loading
            await until(lambda: len(got) >= 2000)
        assert got == expected
        assert await payloads(wal, vchannel) == expected


async def _append_in_turn(wal: StreamingClient, vchannel: str, count: int) -> None:
    """Appends one by one, with many under way: their order is that of the calls."""
    under_way: set[asyncio.Task[AppendResult]] = set()
    for number in range(count):
        under_way.add(asyncio.create_task(wal.append(insert(vchannel, b"%d" % number))))
        if len(under_way) > 50:
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            for append in done:
                append.result()
    await asyncio.gather(*under_way)


async def test_an_append_waits_for_an_owner(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    cluster.publish(P0, term=cluster.terms[P0] + 1, state="ASSIGNING")
    cluster.terms[P0] += 1
    await until(lambda: not wal.topology().assignments[P0].served)
    append = asyncio.create_task(wal.append(insert(vchannel, b"patient")))
    await asyncio.sleep(0.1)
    assert not append.done()
    await cluster.move(P0, "n2")
    await append
    assert await payloads(wal, vchannel) == [b"patient"]


async def test_time_that_runs_out_before_there_is_an_owner_says_why_and_writes_nothing(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    cluster.publish(P0, term=9, state="UNAVAILABLE")
    await until(lambda: wal.topology().assignments[P0].term == 9)
    with pytest.raises(WalError) as caught:
        await wal.append(insert(vchannel, b"lost"), timeout=0.2)
    assert caught.value.code is ErrorCode.RESOURCE_ACQUIRED
    assert vchannel in caught.value.message
    assert "0.2 s" in caught.value.message
    assert "UNAVAILABLE" in caught.value.message
    cluster.terms[P0] = 9
    await cluster.move(P0, "n1")
    await wal.append(insert(vchannel, b"next"))
    assert await payloads(wal, vchannel) == [b"next"]  # what was given up unsent stays unsent


async def test_a_cancelled_append_disturbs_no_other(wal: StreamingClient, vchannel: str) -> None:
    appends = [asyncio.create_task(wal.append(insert(vchannel, b"%d" % i))) for i in range(50)]
    await asyncio.sleep(0)
    for append in appends[::2]:
        append.cancel()
    results = await asyncio.gather(*appends[1::2])
    assert len(results) == 25
    read = await payloads(wal, vchannel)
    assert [item for item in read if int(item) % 2] == [b"%d" % i for i in range(1, 50, 2)]
    assert read == sorted(read, key=int)


async def test_a_stale_owner_is_reported_and_a_lower_term_not_believed(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    await wal.append(insert(vchannel, b"one"))
    await cluster.move(P0, "n2")
    await until(lambda: wal.topology().assignments[P0].node_id == "n2")
    cluster.publish(P0, term=1, node_id="n1", address=cluster.members["n1"].server.address)
    cluster.publish(P1, term=5, node_id="n1", address=cluster.members["n1"].server.address)
    await until(lambda: wal.topology().assignments[P1].term == 5)
    assert wal.topology().assignments[P0].node_id == "n2"
    await wal.append(insert(vchannel, b"two"))
    cluster.publish(P0, term=50, node_id="n1", address=cluster.members["n1"].server.address)
    await until(lambda: wal.topology().assignments[P0].term == 50)  # else n2 would take it
    append = asyncio.create_task(wal.append(insert(vchannel, b"three"), timeout=20))
    await until(lambda: any(report.term == 50 for report in cluster.coord.reports))
    cluster.terms[P0] = 50
    await cluster.move(P0, "n1")
    await append


async def test_too_much_unanswered_makes_appends_wait(cluster: MiniCluster, vchannel: str) -> None:
    config = ClientConfig(pending_bytes=100_000)
    async with (
        StreamingClient.connect(cluster.address, config=config) as wal,
        FaultyLink(cluster.members["n1"].server.address) as link,
    ):
        await cluster.move(P0, "n1", address=link.address)
        await wal.append(insert(vchannel, b"open"))
        link.hold_replies(True)
        first = asyncio.create_task(wal.append(insert(vchannel, b"a" * 90_000)))
        await asyncio.sleep(0.05)
        with pytest.raises(WalError) as caught:
            await wal.append(insert(vchannel, b"b" * 50_000), timeout=0.2)
        assert caught.value.code is ErrorCode.RESOURCE_ACQUIRED
        assert "nothing of it is written" in caught.value.message
        await link.cut()
        link.hold_replies(False)
        await first
        await wal.append(insert(vchannel, b"c" * 50_000))
        assert [item[:1] for item in await payloads(wal, vchannel)] == [b"o", b"a", b"c"]


# --- idempotency keys --------------------------------------------------------------------------


async def test_a_key_is_appended_once_by_whom_and_to_whomever(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    first = await wal.append(insert(vchannel, b"a", b"b"), idempotency_key="k")
    assert first.message_count == 2
    async with StreamingClient.connect(cluster.address) as other:
        assert await other.append(insert(vchannel, b"a", b"b").with_key("k")) == first
        await cluster.move(P0, "n2")
        again = await other.append(insert(vchannel, b"a", b"b"), idempotency_key="k")
        assert again == first
        with pytest.raises(WalError, match="another message") as error:
            await other.append(insert(vchannel, b"c"), idempotency_key="k")
        assert error.value.code is ErrorCode.INVALID_ARGUMENT
    assert await payloads(wal, vchannel) == [b"a", b"b"]


async def test_keyed_and_plain_messages_keep_their_order_while_the_owner_moves(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    def message(number: int) -> MutableMessage:
        plain = insert(vchannel, b"%d" % number)
        return plain.with_key(str(number)) if number // 3 % 2 else plain

    async def append() -> None:
        for begin in range(0, 600, 60):
            part = [message(number) for number in range(begin, begin + 60)]
            results = await wal.append_many(part)
            repeats = [number for number in range(begin, begin + 60) if number // 3 % 2]
            again = await wal.append_many([message(number) for number in repeats])
            assert list(again) == [results[number - begin] for number in repeats]

    appending = asyncio.create_task(append())
    for node_id in ("n2", "n1", "n2"):
        await cluster.move(P0, node_id)
    await appending
    assert await payloads(wal, vchannel) == [b"%d" % i for i in range(600)]


async def test_a_key_has_no_place_in_a_transaction(wal: StreamingClient, vchannel: str) -> None:
    async with wal.txn(vchannel) as txn:
        await txn.append(insert(vchannel, b"a"))
        with pytest.raises(WalError, match="idempotency key in a transaction"):
            await txn.append(insert(vchannel, b"b").with_key("k"))
    assert await payloads(wal, vchannel) == [b"a"]


async def test_a_client_that_the_node_forgot_while_it_was_idle_goes_on(backend: Backend) -> None:
    few = NodeConfig(wal=WALConfig(producers=1))
    async with MiniCluster(backend, config=few) as cluster:
        vchannel = await cluster.create_vchannel(P0)
        async with (
            StreamingClient.connect(cluster.address) as idle,
            StreamingClient.connect(cluster.address) as busy,
        ):
            for number in range(3):
                await idle.append(insert(vchannel, b"%d" % number))
                await busy.append(insert(vchannel, b"busy"))
            messages = [insert(vchannel, b"many %d" % number) for number in range(3)]
            await idle.append_many(messages)
            got = [payload for payload in await payloads(idle, vchannel) if payload != b"busy"]
    assert got == [b"0", b"1", b"2", b"many 0", b"many 1", b"many 2"]
