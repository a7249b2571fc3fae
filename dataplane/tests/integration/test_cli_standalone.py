"""`walplane standalone`: draining, who may run on a data directory, a disk that is full."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from walplane.cli.wiring import StandaloneOptions, run_standalone
from walplane.client import StreamingClient
from walplane.embedded import ClusterOptions
from walplane.message.builder import insert
from walplane.testkit.command import start, walplane
from walplane.testkit.standalone import StandaloneProcess


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[StandaloneProcess]:
    process = StandaloneProcess(tmp_path / "data", pchannels=2)
    yield process
    await process.kill()


async def create(server: StandaloneProcess, name: str) -> None:
    ran = await walplane("-a", server.address, "collection", "create", name, "--shards", "2")
    assert ran.code == 0, ran.err


async def stored(server: StandaloneProcess, name: str) -> dict[str, dict[str, Any]]:
    """Every inserted message by its payload; none may be there twice."""
    ran = await walplane("-a", server.address, "tail", name, "-o", "json")
    assert ran.code == 0, ran.err
    rows = [each for each in ran.objects if each["type"] == "INSERT"]
    by_payload = {each["payload"]: each for each in rows}
    assert len(by_payload) == len(rows)
    return by_payload


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_drain_answers_what_is_in_flight(
    server: StandaloneProcess, number: signal.Signals
) -> None:
    await server.start()
    await create(server, "drained")
    options = ("--collection", "drained", "-o", "json", "--timeout", "30")
    process = await start("-a", server.address, "append", *options)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"".join(b"%d\n" % line for line in range(1, 50_001)))
    process.stdin.close()
    told = [json.loads(await process.stdout.readline())]
    assert await server.stop(number) == 0
    log = server.log_tail()
    assert "drained" in log
    assert "Traceback" not in log
    await server.start()
    told += [json.loads(line) async for line in process.stdout]
    assert await process.wait() == 0, "the client carries its lines over to the next server"
    rows = await stored(server, "drained")
    assert sorted(each["line"] for each in told) == list(range(1, 50_001))
    for each in told:
        assert rows[str(each["line"])]["message_id"] == each["message_id"]


async def test_health_says_serving_only_when_ready(server: StandaloneProcess) -> None:
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "walplane.v1.StreamingNode", "walplane.v1.StreamingCoord"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_second_server_on_the_same_data(server: StandaloneProcess, stopped: bool) -> None:
    await server.start()
    await create(server, "safe")
    if stopped:
        os.kill(server.pid, signal.SIGSTOP)
    ran = await walplane("standalone", "--data", str(server.data), "--listen", "127.0.0.1:0")
    if stopped:
        os.kill(server.pid, signal.SIGCONT)
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert f"{server.data} is in use by process {server.pid}" in ran.err
    appended = await walplane("-a", server.address, "append", "--collection", "safe", stdin=b"x")
    assert appended.code == 0, "the first one goes on"
    assert set(await stored(server, "safe")) == {"x"}


async def test_a_second_server_on_the_same_port(server: StandaloneProcess, tmp_path: Path) -> None:
    await server.start()
    command = ["standalone", "--data", str(tmp_path / "other"), "--listen", server.address]
    ran = await walplane(*command, "--log-level", "error")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert f"cannot listen on {server.address}" in ran.err


@pytest.fixture
def in_use() -> Iterator[str]:
    """An address that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield "127.0.0.1:{1}".format(*listening.getsockname())


@pytest.mark.parametrize(
    ("option", "value", "code", "reason"),
    [
        ("--listen", None, 1, "cannot listen on"),
        ("--metrics", None, 1, "cannot serve metrics on"),
        ("--segment-store", "nope://x", 2, "nope://x is no segment store"),
    ],
)
async def test_a_start_that_fails_makes_no_log(
    tmp_path: Path, in_use: str, option: str, value: str | None, code: int, reason: str
) -> None:
    data = tmp_path / "data"
    command = ["standalone", "--data", str(data), "--listen", "127.0.0.1:0", "--pchannels", "64"]
    ran = await walplane(*command, option, value or in_use, "--log-level", "error")
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
    assert reason in ran.err
    assert not (data / "log").exists(), "a new cluster could have any number of PChannels still"


async def test_fewer_pchannels_than_there_are(server: StandaloneProcess) -> None:
    await server.start()
    assert await server.stop() == 0
    command = ["standalone", "--data", str(server.data), "--listen", server.address]
    ran = await walplane(*command, "--pchannels", "1", "--log-level", "error")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "may only grow" in ran.err


async def test_a_pulsar_that_is_not_there(tmp_path: Path) -> None:
    command = ["standalone", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
    ran = await walplane(*command, "--backend", "pulsar://127.0.0.1:1", "--log-level", "error")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "pulsar://127.0.0.1:1" in ran.err


@pytest.fixture
def options(tmp_path: Path) -> Iterator[StandaloneOptions]:
    """Of a cluster in this process, whose collector sees everything again afterwards."""
    cluster = ClusterOptions(
        listen="127.0.0.1:0",
        advertise="127.0.0.1:0",
        pchannels=1,
        prefix="wal",
        backend=f"rocksdb:{tmp_path / 'log'}",
    )
    yield StandaloneOptions(tmp_path, cluster)
    gc.unfreeze()


async def test_the_collector_passes_over_what_was_loaded_once_it_is_ready(
    options: StandaloneOptions,
) -> None:
    stop, passed_over = asyncio.Event(), [gc.get_freeze_count()]

    def on_ready(_address: str, _pchannels: int) -> None:
        passed_over.append(gc.get_freeze_count())
        stop.set()

    async with asyncio.timeout(60):
        await run_standalone(options, stop, on_ready)
    assert passed_over[0] == 0
    assert passed_over[1] > 10_000


async def test_any_free_port_is_told_to_clients(options: StandaloneOptions) -> None:
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    running = asyncio.create_task(
        run_standalone(options, stop, lambda address, _: ready.set_result(address))
    )
    async with asyncio.timeout(60):
        async with StreamingClient.connect(await ready) as wal:
            collection = await wal.create_collection("c")
            await wal.append(insert(collection.vchannels[0], b"a"))
        stop.set()
        await running


# --- a full disk -------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=256m", str(folder)], check=True)


async def test_a_full_disk_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    server = StandaloneProcess(small_disk / "data", pchannels=2)
    server.log = tmp_path / "log"
    await server.start()
    try:
        await create(server, "full")
        lines = [f"{number}/".ljust(1000, ".") for number in range(60_000)]
        options = ("--collection", "full", "-o", "json", "--timeout", "5")
        ran = await walplane(
            "-a", server.address, "append", *options, stdin="\n".join(lines).encode()
        )
        assert ran.code == 1
        told = ran.objects
        failed = ran.told
        assert 0 < len(told) < len(lines)
        assert len(told) + len(failed) - 1 == len(lines), "each line is acknowledged or named"
        again = await restart_code(server)
        assert again == (1, True), "a full disk is one clear line"
        await asyncio.to_thread(enlarge, small_disk)
        await server.start()
        rows = await stored(server, "full")
        for each in told:
            row = rows[lines[each["line"] - 1]]
            assert (row["message_id"], row["time_tick"]) == (each["message_id"], each["time_tick"])
    finally:
        await server.kill()
        shutil.rmtree(small_disk / "data", ignore_errors=True)


async def restart_code(server: StandaloneProcess) -> tuple[int, bool]:
    """Exit code of a server started where there is no room, and whether it said so in one line."""
    await server.stop()
    async with asyncio.timeout(30):
        ran = await walplane(
            *("standalone", "--data", str(server.data), "--listen", server.address),
            *("--log-level", "error"),
        )
    return ran.code, ran.err.count("\n") == 1 and "full" in ran.err
