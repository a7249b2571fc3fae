"""What is left when clients, readers and nodes go, and the other ways to be a client."""

from __future__ import annotations

import asyncio

import pytest

from walplane.backends.interface import Backend
from walplane.client import (
    StreamingClient,
    SyncStreamingClient,
)
from walplane.message.builder import insert
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.cluster import HandCoord, MiniCluster
from walplane.testkit.reading import payloads, tailing
from walplane.testkit.standalone import free_port
from walplane.testkit.waiting import unanswered, until

P0, P1 = "test_0", "test_1"


def _own_tasks() -> set[asyncio.Task[object]]:
    """Tasks that are not gRPC's own."""
    return {task for task in asyncio.all_tasks() if "AioServer" not in repr(task)}


async def test_nothing_is_left_when_a_client_closes(cluster: MiniCluster, vchannel: str) -> None:
    before = _own_tasks()
    async with StreamingClient.connect(cluster.address) as wal:
        await wal.append(insert(vchannel, b"x"))
        reading = asyncio.create_task(anext(wal.read(vchannel, start="latest"), None))
        await asyncio.sleep(0.1)
        assert cluster.coord.streams == 1
    assert await reading is None
    await until(lambda: cluster.coord.streams == 0)
    await until(lambda: not _own_tasks() - before, 5)


async def test_a_closed_reader_leaves_nothing_at_the_node(
    wal: StreamingClient, vchannel: str
) -> None:
    def serving() -> int:
        return sum(task.get_name() == "consume-sender" for task in asyncio.all_tasks())

    async with wal.reader(vchannel) as reader:
        await anext(reader.batches())
        assert serving() == 1
    await until(lambda: serving() == 0)


async def test_an_append_without_an_answer_is_told_when_the_client_closes(
    cluster: MiniCluster, vchannel: str
) -> None:
    cluster.publish(P0, term=9, state="UNAVAILABLE")
    async with StreamingClient.connect(cluster.address) as wal:
        append = asyncio.create_task(wal.append(insert(vchannel, b"x")))
        await asyncio.sleep(0.05)
    with pytest.raises(WalError, match="closed before the append was answered") as caught:
        await append
    assert caught.value.code is ErrorCode.OUTCOME_UNKNOWN


async def test_a_node_that_closes_answers_what_is_in_flight(
    cluster: MiniCluster, wal: StreamingClient, vchannel: str
) -> None:
    appends = [asyncio.create_task(wal.append(insert(vchannel, b"%d" % i))) for i in range(100)]
    await asyncio.sleep(0.01)
    await cluster.members["n1"].node.release(P0, cluster.terms[P0])
    await cluster.move(P0, "n2")
    await asyncio.gather(*appends)
    assert await payloads(wal, vchannel) == [b"%d" % i for i in range(100)]


async def test_a_node_in_this_process_is_used_directly(cluster: MiniCluster, vchannel: str) -> None:
    nodes = {name: member.node for name, member in cluster.members.items()}
    cluster.publish(P0, term=cluster.terms[P0], node_id="n1", address="127.0.0.1:1")
    async with StreamingClient.connect(cluster.address, local_nodes=nodes) as wal:
        expected = [b"%d" % i for i in range(101)]
        async with tailing(wal, vchannel, start="latest") as got:
            await asyncio.sleep(0.1)
            await wal.append_many([insert(vchannel, item) for item in expected[:100]])
            with pytest.raises(WalError, match="there is no VChannel"):
                await wal.append(insert("test_0_9v0", b"x"))
            await cluster.move(P0, "n2", address="127.0.0.1:1")
            await wal.append(insert(vchannel, expected[100]))
            assert await payloads(wal, vchannel) == expected
            await until(lambda: len(got) >= 101)
        assert got == expected


async def test_collections_and_their_errors(wal: StreamingClient) -> None:
    created = await wal.create_collection("events", shards=2)
    assert len(created.vchannels) == 2
    assert await wal.describe_collection("events") == created
    with pytest.raises(WalError, match="exists already") as caught:
        await wal.create_collection("events")
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert await wal.drop_collection("events") == created.collection_id
    assert await wal.list_collections() == []
    with pytest.raises(WalError, match="there is no collection 'events'"):
        await wal.describe_collection("events")


async def test_a_closed_client_says_so_of_the_catalog_too(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, never = unanswered()
    monkeypatch.setattr(HandCoord, "DropCollection", never)
    async with MiniCluster(backend) as cluster:
        async with StreamingClient.connect(cluster.address) as wal:
            dropping = asyncio.create_task(wal.drop_collection("events"))
            await asked.wait()
        with pytest.raises(WalError, match=r"closed before walplane at .* answered") as caught:
            await dropping
        assert caught.value.code is ErrorCode.OUTCOME_UNKNOWN
        with pytest.raises(WalError, match="is closed") as caught:
            await wal.list_collections()
        assert caught.value.code is ErrorCode.ON_SHUTDOWN


async def test_status_of_every_node(cluster: MiniCluster, wal: StreamingClient) -> None:
    address = cluster.members["n1"].server.address
    cluster.publish(P1, term=9, node_id="n9", address=f"127.0.0.1:{free_port()}")
    await until(lambda: wal.topology().assignments[P1].term == 9)
    status = dict(await wal.node_status())
    served = status.pop(address)
    [silent] = status.values()
    assert not isinstance(served, WalError)
    assert served.node_id == "n1"
    assert [channel.state for channel in served.channels] == ["serving", "serving"]
    assert isinstance(silent, WalError)


async def test_the_blocking_client_does_the_same(cluster: MiniCluster, vchannel: str) -> None:
    def program() -> list[bytes]:
        with SyncStreamingClient.connect(cluster.address) as wal:
            wal.append(insert(vchannel, b"a"))
            wal.append_many([insert(vchannel, b"b"), insert(vchannel, b"c")])
            with pytest.raises(WalError, match="there is no VChannel"):
                wal.append(insert("test_0_9v0", b"x"))
            assert wal.topology().assignments[P0].node_id == "n1"
            for message in wal.read(vchannel, follow=True):
                if message.payload == b"b":
                    break
            return [m.payload for m in wal.read(vchannel) if m.payload]

    assert await asyncio.to_thread(program) == [b"a", b"b", b"c"]
