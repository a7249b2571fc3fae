"""Ctrl-C in the middle: what is in flight is settled, and one line says where to go on."""

from __future__ import annotations

import array
import asyncio
import base64
import fcntl
import json
import os
import re
import signal
import sys
import termios
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pyarrow as pa
import pytest

from walplane.testkit.command import Ran, start, walplane
from walplane.testkit.standalone import StandaloneProcess
from walplane.testkit.waiting import until

DEADLINE_S = 60.0
SHARDS = 3


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[StandaloneProcess]:
    server = StandaloneProcess(tmp_path / "data", pchannels=2)
    await server.start()
    ran = await walplane("-a", server.address, "collection", "create", "c", "--shards", str(SHARDS))
    assert ran.code == 0, ran.err
    yield server
    await server.stop()


async def at(cluster: StandaloneProcess, *arguments: str) -> Ran:
    return await walplane("-a", cluster.address, *arguments)


async def stored(cluster: StandaloneProcess) -> list[str]:
    """The payloads of the collection."""
    ran = await at(cluster, "tail", "c", "-o", "json")
    return [each["payload"] for each in ran.objects if each["type"] == "INSERT"]


async def numbers(cluster: StandaloneProcess) -> list[int]:
    """Column `n` of the ingested rows, sorted."""
    tables = [
        pa.ipc.open_stream(base64.b64decode(payload)).read_all()
        for payload in await stored(cluster)
    ]
    return sorted(n for table in tables for n in table["n"].to_pylist())


async def ended(process: asyncio.subprocess.Process) -> Ran:
    """How a process with pipes ended; what was written to it stays as it is."""
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            out, err = await asyncio.gather(process.stdout.read(), process.stderr.read())
            return Ran(await process.wait(), out.decode(), err.decode())
    finally:
        if process.returncode is None:
            process.kill()


async def feed(process: asyncio.subprocess.Process, text: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(text)
    await process.stdin.drain()


def unread(process: asyncio.subprocess.Process) -> int:
    """Bytes in the pipe to a process."""
    assert process.stdin is not None
    size = array.array("i", [0])
    fcntl.ioctl(process.stdin.get_extra_info("pipe").fileno(), termios.FIONREAD, size)
    return size[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_every_line_taken_by_an_interrupted_append_is_acknowledged(
    cluster: StandaloneProcess, number: signal.Signals
) -> None:
    process = await start("-a", cluster.address, "append", "--collection", "c", "-o", "json")
    assert process.stdout is not None
    await feed(process, b"".join(b"%d\n" % n for n in range(1, 2001)))
    async with asyncio.timeout(DEADLINE_S):
        first = await process.stdout.readline()
    process.send_signal(number)
    ran = await ended(process)
    assert ran.code == 130
    [line] = ran.told
    told = re.fullmatch(r"walplane: interrupted after line (\d+): continue with line (\d+)", line)
    assert told is not None, ran.err
    taken = int(told[1])
    assert int(told[2]) == taken + 1
    acknowledged = [json.loads(first), *ran.objects]
    assert sorted(each["line"] for each in acknowledged) == list(range(1, taken + 1))
    assert sorted(map(int, await stored(cluster))) == list(range(1, taken + 1))


def without_a_reader() -> int:
    """A pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def on_a_full_disk() -> int:
    """A file that takes nothing."""
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize(
    ("output", "code", "why"),
    [
        (without_a_reader, 141, []),
        (on_a_full_disk, 1, ["walplane: standard output: No space left on device"]),
    ],
)
async def test_an_append_whose_output_breaks_says_how_far_it_came(
    cluster: StandaloneProcess, output: Callable[[], int], code: int, why: list[str]
) -> None:
    """And nobody ends its input."""
    words = ("-m", "walplane", "-a", cluster.address, "append", "--collection", "c", "-o", "json")
    descriptor = output()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=descriptor,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(descriptor)
    await feed(process, b"1\n2\n3\n")
    assert process.stderr is not None
    async with asyncio.timeout(DEADLINE_S):
        ran = Ran(await process.wait(), "", (await process.stderr.read()).decode())
    assert ran.code == code
    *before, line = ran.told
    told = re.fullmatch(r"walplane: interrupted after line (\d+): continue with line (\d+)", line)
    assert told is not None, ran.err
    taken = int(told[1])
    assert (before, int(told[2])) == (why, taken + 1)
    assert sorted(map(int, await stored(cluster))) == list(range(1, taken + 1))


async def test_an_interrupted_ingest_goes_on_where_it_says(
    cluster: StandaloneProcess, tmp_path: Path
) -> None:
    rows = [f"{n},{'x' * 100}\n" for n in range(30_000)]
    whole = "".join(["n,text\n", *rows]).encode()
    command = ("ingest", "--collection", "c", "--key", "text", "--batch-rows", "500")
    process = await start("-a", cluster.address, *command, "/dev/stdin", "--format", "csv")
    await feed(process, whole[: len(whole) // 2])
    async with asyncio.timeout(DEADLINE_S):
        while not await stored(cluster):
            pass
    process.send_signal(signal.SIGINT)
    ran = await ended(process)
    assert ran.code == 130
    line = ran.err.splitlines()[-1]
    told = re.fullmatch(
        r"walplane: interrupted; the first ([\d,]+) rows are acknowledged: go on with "
        r"--skip-rows (\d+)",
        line,
    )
    assert told is not None, ran.err
    done = int(told[2])
    assert await numbers(cluster) == list(range(done))
    (tmp_path / "rows.csv").write_bytes(whole)
    ran = await at(cluster, *command, str(tmp_path / "rows.csv"), "--skip-rows", str(done))
    assert ran.code == 0, ran.err
    assert await numbers(cluster) == list(range(30_000))


@pytest.mark.parametrize("command", ["append", "ingest"])
async def test_who_is_asked_twice_does_not_wait_for_a_server_that_is_stuck(
    cluster: StandaloneProcess, command: str
) -> None:
    options = ["/dev/stdin", "--format", "jsonl"] if command == "ingest" else []
    process = await start("-a", cluster.address, command, "--collection", "c", *options)
    assert process.stderr is not None
    rows = b'{"n":1,"t":"%s"}\n' % (b"x" * 100) * 12_000
    await feed(process, rows)
    async with asyncio.timeout(DEADLINE_S):
        while not await stored(cluster):
            pass
    os.kill(cluster.pid, signal.SIGSTOP)
    try:
        await feed(process, rows)
        async with asyncio.timeout(DEADLINE_S):
            await until(lambda: not unread(process), DEADLINE_S)
            process.send_signal(signal.SIGINT)
            lines = [await process.stderr.readline()]
            while b"again to give it up" not in lines[-1]:
                assert lines[-1], lines
                lines.append(await process.stderr.readline())
        process.send_signal(signal.SIGINT)
        ran = await ended(process)
    finally:
        os.kill(cluster.pid, signal.SIGCONT)
    assert ran.code == 130
    assert [("may or may not be written" in line) for line in ran.told] == [True]


async def test_a_follower_of_what_is_dropped_ends(cluster: StandaloneProcess) -> None:
    process = await start("-a", cluster.address, "tail", "c", "--follow", "-o", "json")
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        created = [json.loads(await process.stdout.readline()) for _ in range(SHARDS)]
    assert {each["type"] for each in created} == {"CREATE_COLLECTION"}
    assert (await at(cluster, "collection", "drop", "c")).code == 0
    ran = await ended(process)
    assert ran.code == 0
    assert [each["type"] for each in ran.objects] == ["DROP_COLLECTION"] * SHARDS
    assert ran.err == "walplane: c was dropped: nothing more comes\n"
