"""`walplane verify`: a cluster that was hurt is clean, a planted violation is named."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from walplane.backends.memory import MemoryBackend
from walplane.client import StreamingClient
from walplane.message import codec
from walplane.message.builder import insert
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.rpc.v1 import log_pb2
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.command import walplane
from walplane.testkit.standalone import StandaloneProcess, free_port
from walplane.testkit.wal_world import entry

P = "test_0"


async def fill(server: StandaloneProcess, kill: bool) -> None:
    """Appends, commits, rolls back and forgets, over a kill."""
    async with StreamingClient.connect(server.address) as wal:
        info = await wal.create_collection(f"c{int(kill)}", shards=3)
        for vchannel in info.vchannels:
            async with asyncio.TaskGroup() as tasks:
                for number in range(200):
                    tasks.create_task(wal.append(insert(vchannel, b"%d" % number)))
            async with wal.txn(vchannel) as txn:
                for number in range(3):
                    await txn.append(insert(vchannel, b"txn %d" % number))
            forgotten = wal.txn(vchannel)
            await forgotten.append(insert(vchannel, b"never committed"))
            await forgotten.flush()
            if kill:
                await server.kill()
                await server.start()


async def test_a_cluster_that_was_killed_is_clean(tmp_path: Path) -> None:
    server = StandaloneProcess(tmp_path / "data", pchannels=2)
    await server.start()
    try:
        await fill(server, kill=False)
        await fill(server, kill=True)
        await walplane("-a", server.address, "collection", "drop", "c0")
        ran = await walplane("-a", server.address, "verify", "-o", "json")
        assert ran.code == 0, ran.err
        assert {row["pchannel"] for row in ran.value} == {"wal_0", "wal_1"}
        assert sum(row["messages"] for row in ran.value) > 2 * 3 * 204
        assert all(row["violations"] == [] for row in ran.value)
        assert all(0 < row["first_tick"] < row["last_tick"] for row in ran.value)
        one = await walplane("-a", server.address, "verify", "--pchannel", "wal_1")
        assert one.code == 0, one.err
        assert one.out.splitlines()[0].split()[:2] == ["PCHANNEL", "ENTRIES"]
        assert [line.split()[0] for line in one.out.splitlines()[1:]] == ["wal_1"]
        both = await walplane("-a", server.address, "verify", "--collection", "c1", "-o", "json")
        assert len(both.value) == 2
    finally:
        assert await server.stop() == 0


async def plant(backend: MemoryBackend) -> None:
    """Writes what no owner ever wrote: two entries that share a tick."""
    session = await backend.session()
    await session.ensure_topic(P)
    writer = await session.open_writer(P, 1, 0)
    for number, tick in enumerate((100, 101, 101)):
        sealed = entry(b"planted")
        sealed.envelope.vchannel = ""
        sealed.envelope.type = MessageType.TIME_TICK
        sealed.envelope.term, sealed.envelope.first_tick = 1, tick
        sealed.envelope.watermark = 99
        content = log_pb2.FrameContent(term=1, open_number=0, number=number)
        await writer.append(codec.encode_frame(content.SerializeToString(), [sealed]))
    await session.close()


async def test_a_planted_violation_is_named() -> None:
    backend = MemoryBackend()
    await plant(backend)
    cluster = MiniCluster(backend)
    cluster.terms[P] = 1
    async with cluster:
        ran = await walplane("-a", cluster.address, "verify", "-o", "json")
        assert ran.code == 1
        (row,) = ran.value
        (violation,) = row["violations"]
        assert violation.startswith("I3 test_0: TIME_TICK memory:3:0:0 (ticks 101-101, term 1")
        assert f"walplane: {violation}" in ran.err
        table = await walplane("-a", cluster.address, "verify")
        assert (table.code, table.out.splitlines()[1].split()[-1]) == (1, "1")


@pytest.mark.parametrize("options", [(), ("--pchannel", "wal_0")])
async def test_who_cannot_be_reached_is_not_verified(options: tuple[str, ...]) -> None:
    ran = await walplane("-a", f"127.0.0.1:{free_port()}", "verify", *options)
    assert ran.code == 2
    assert ran.err.startswith("walplane: not verified: ")
    assert len(ran.err.splitlines()) == 1


async def test_an_unknown_pchannel_is_not_verified() -> None:
    async with MiniCluster(MemoryBackend()) as cluster:
        ran = await walplane("-a", cluster.address, "verify", "--pchannel", "nobody_9")
    assert ran.code == 2
    assert "no PChannel nobody_9" in ran.err


async def test_a_raw_read_goes_on_with_the_next_owner() -> None:
    async with (
        MiniCluster(MemoryBackend(), nodes=("n1", "n2")) as cluster,
        StreamingClient.connect(cluster.address) as wal,
    ):
        vchannel = await cluster.create_vchannel(P)
        for number in range(2000):
            await cluster.owner(P).wal(P).append(entry(b"%d" % number, vchannel=vchannel))
        seen: list[MessageID] = []
        async for piece in wal.entries(P):
            if not seen:
                await cluster.move(P, "n2")
            seen += [item.message_id for item in piece]
    assert seen == sorted(set(seen))
    assert len(seen) >= 2003  # the collection, two barriers and what was appended
