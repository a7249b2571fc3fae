"""A cluster inside a program: no server beside it, no gRPC on the way."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from walplane.client import StreamingClient
from walplane.embedded import open_embedded, open_embedded_sync
from walplane.message.builder import insert
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.command import walplane
from walplane.testkit.standalone import free_port


async def payloads(wal: StreamingClient, vchannel: str) -> list[bytes]:
    read = wal.read(vchannel, start="earliest", follow=False)
    return [message.payload async for message in read if message.type.name == "INSERT"]


async def test_what_was_appended_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    async with open_embedded(tmp_path, pchannels=2) as wal:
        collection = await wal.create_collection("c", shards=2)
        for vchannel in collection.vchannels:
            await wal.append(insert(vchannel, vchannel.encode()))
    async with open_embedded(tmp_path) as wal:
        assert len(wal.topology().assignments) == 2
        for vchannel in (await wal.describe_collection("c")).vchannels:
            await wal.append(insert(vchannel, b"again"))
            assert await payloads(wal, vchannel) == [vchannel.encode(), b"again"]


async def test_appends_and_reads_go_straight_to_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_embedded(tmp_path, pchannels=1) as wal:
        vchannel = (await wal.create_collection("c")).vchannels[0]

        def none(*_: object) -> None:
            raise AssertionError("it went over gRPC")

        for name in ("open_produce", "open_consume"):
            monkeypatch.setattr(f"walplane.client.grpc_transport.GrpcTransport.{name}", none)
        await wal.append(insert(vchannel, b"a"))
        assert await payloads(wal, vchannel) == [b"a"]


async def test_a_read_that_never_waits_lets_others_run(tmp_path: Path) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with open_embedded(tmp_path, pchannels=1) as wal:
        vchannel = (await wal.create_collection("c")).vchannels[0]
        read = wal.read(vchannel, start="earliest", follow=False)
        (token,) = [message.resume_token async for message in read]
        for _ in range(8):
            await wal.append(insert(vchannel, b"x" * 1_000_000))  # two to a slice of memory
        async with wal.reader(vchannel, start=token) as reader, asyncio.timeout(20):
            batches = reader.batches()
            await anext(batches)
            counting = asyncio.create_task(count())
            for _ in range(7):
                await anext(batches)
        counting.cancel()
    assert turns, "it kept the loop for itself"


@pytest.mark.parametrize(
    "wrong", [{"segment_store": "nope://x"}, {"listen": "nowhere"}, {"listen": "192.0.2.1:7650"}]
)
async def test_what_cannot_be_makes_no_log(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(WalError, match=next(iter(wrong.values()))) as refused:
        async with open_embedded(tmp_path, pchannels=64, **wrong):  # type: ignore[arg-type]
            pass
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT
    assert not (tmp_path / "log").exists()


async def test_a_start_that_fails_later_gives_its_port_back(tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    for backend in ("tape:", "memory:"):
        opening = open_embedded(tmp_path, pchannels=1, listen=listen, backend=backend)
        if backend == "memory:":
            async with opening as wal:
                assert wal.address == listen
        else:
            with pytest.raises(WalError, match="unknown backend 'tape'"):
                await opening.__aenter__()


def test_a_blocking_program_opens_it_too(tmp_path: Path) -> None:
    for times in (1, 2):
        with open_embedded_sync(tmp_path, pchannels=1) as wal:
            if times == 1:
                wal.create_collection("c")
            vchannel = wal.describe_collection("c").vchannels[0]
            wal.append(insert(vchannel, b"%d" % times))
            rows = [each.payload for each in wal.read(vchannel) if each.type.name == "INSERT"]
            assert rows == [b"1", b"2"][:times]
            with pytest.raises(WalError, match="in use"), open_embedded_sync(tmp_path):
                pass


async def test_others_can_come_too_and_the_directory_has_one_owner(tmp_path: Path) -> None:
    async with open_embedded(tmp_path, pchannels=1) as wal:
        await wal.create_collection("c")
        ran = await walplane("-a", wal.address, "append", "--collection", "c", stdin=b"theirs\n")
        assert ran.code == 0, ran.err
        assert await payloads(wal, (await wal.describe_collection("c")).vchannels[0]) == [b"theirs"]
        with pytest.raises(WalError) as held:
            async with open_embedded(tmp_path):
                pass
        assert held.value.code is ErrorCode.RESOURCE_ACQUIRED
        assert f"in use by process {os.getpid()}" in held.value.message
        ran = await walplane("standalone", "--data", str(tmp_path), "--listen", "127.0.0.1:0")
        assert (ran.code, ran.err.count("\n")) == (1, 1)


async def test_a_body_that_raises_or_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(LookupError):
        async with open_embedded(tmp_path, pchannels=1) as wal:
            await wal.create_collection("c")
            raise LookupError

    opened = asyncio.Event()

    async def stay() -> None:
        async with open_embedded(tmp_path):
            opened.set()
            await asyncio.Event().wait()

    staying = asyncio.create_task(stay())
    async with asyncio.timeout(30):
        await opened.wait()
        staying.cancel()
        await asyncio.wait([staying])
    assert staying.cancelled()
    async with open_embedded(tmp_path) as wal:
        assert [each.name for each in await wal.list_collections()] == ["c"]


@pytest.mark.pulsar
async def test_the_block_ends_with_the_reason_when_another_takes_the_backend_over(
    tmp_path: Path, pulsar_url: str
) -> None:
    prefix = f"taken-{secrets.token_hex(4)}"
    opening = partial(open_embedded, pchannels=1, backend=pulsar_url, prefix=prefix)
    with pytest.raises(WalError) as ended:
        async with asyncio.timeout(60), opening(tmp_path / "one") as first:
            await first.create_collection("c")
            async with opening(tmp_path / "two") as second:
                assert [each.name for each in await second.list_collections()] == ["c"]
                with suppress(WalError):
                    await first.create_collection("d")
                await asyncio.Event().wait()
    assert ended.value.code is ErrorCode.UNMATCHED_CHANNEL_TERM


@pytest.mark.pulsar
async def test_a_read_in_the_program_connects_anew_when_no_connection_is_left(
    tmp_path: Path, pulsar_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = httpx.Limits(keepalive_expiry=0)  # as after a while in which nothing was asked
    monkeypatch.setattr("walplane.backends.pulsar.admin.httpx.Limits", lambda **_: limits)
    prefix = f"anew-{secrets.token_hex(4)}"
    async with open_embedded(tmp_path, pchannels=1, backend=pulsar_url, prefix=prefix) as wal:
        vchannel = (await wal.create_collection("c")).vchannels[0]
        await wal.append(insert(vchannel, b"a"))
        async with asyncio.timeout(60):
            for _ in range(2):
                assert await payloads(wal, vchannel) == [b"a"]


@pytest.mark.pulsar
def test_a_blocking_program_hears_why_at_its_next_call_and_at_every_end(
    tmp_path: Path, pulsar_url: str
) -> None:
    prefix = f"taken-{secrets.token_hex(4)}"
    opening = partial(open_embedded_sync, pchannels=1, backend=pulsar_url, prefix=prefix)
    told: set[ErrorCode] = set()
    with pytest.raises(WalError) as ended, opening(tmp_path / "one") as first:
        vchannel = first.create_collection("c").vchannels[0]
        first.append(insert(vchannel, b"a"))
        rows = first.read(vchannel, follow=True)
        while next(rows).payload != b"a":
            pass
        with opening(tmp_path / "two") as second:
            deadline = time.monotonic() + 60
            while ErrorCode.UNMATCHED_CHANNEL_TERM not in told and time.monotonic() < deadline:
                try:
                    first.create_collection(f"c{secrets.token_hex(4)}")
                except WalError as error:
                    told.add(error.code)
            second.create_collection("theirs")
            with pytest.raises(WalError, match="under term 2 by another owner"):
                next(rows)
    assert ErrorCode.UNMATCHED_CHANNEL_TERM in told
    assert ended.value.code is ErrorCode.UNMATCHED_CHANNEL_TERM


PROGRAM = """
import asyncio, json, sys
from walplane.embedded import open_embedded
from walplane.message.builder import insert

async def main():
    async with open_embedded(sys.argv[1], pchannels=1) as wal:
        vchannel = (await wal.create_collection("c")).vchannels[0]
        print(json.dumps(vchannel), flush=True)
        for number in range(1_000_000):
            await wal.append(insert(vchannel, b"%d" % number))
            print(number, flush=True)

asyncio.run(main())
"""


async def test_a_program_that_is_killed_loses_nothing_acknowledged(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        vchannel = json.loads(await process.stdout.readline())
        for number in range(500):
            assert int(await process.stdout.readline()) == number
        process.send_signal(signal.SIGKILL)
        told = 499 + len((await process.stdout.read()).splitlines())
        await process.wait()
    async with open_embedded(tmp_path) as wal:
        there = [int(payload) for payload in await payloads(wal, vchannel)]
    assert there == list(range(len(there)))
    assert told < len(there) <= told + 2


async def test_a_program_may_go_to_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_embedded("data", pchannels=1) as wal:
        vchannel = (await wal.create_collection("c")).vchannels[0]
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        await wal.append(insert(vchannel, b"x" * 1_000_000))
        assert len((await payloads(wal, vchannel))[0]) == 1_000_000
    assert not os.listdir()
