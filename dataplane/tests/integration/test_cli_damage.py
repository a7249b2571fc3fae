"""One flipped bit below the last acknowledged record: refused, or everything is readable.

`WALPLANE_FLIPS` sets how many offsets of each kind of file are tried (3 by default).
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from walplane.testkit.command import Ran, start, walplane
from walplane.testkit.standalone import StandaloneProcess

FLIPS = int(os.environ.get("WALPLANE_FLIPS", "3"))
LINES = 1500


def lines(part: str) -> list[str]:
    return [f"{part}/{number}/".ljust(300, ".") for number in range(LINES)]


async def append(server: StandaloneProcess, part: str) -> None:
    text = "\n".join(lines(part)).encode()
    ran = await walplane("-a", server.address, "append", "--collection", "c", stdin=text)
    assert ran.code == 0, ran.err


async def outcome(server: StandaloneProcess, data: Path) -> set[str] | str:
    """What can be read of the cluster on `data`, or the one line that refuses it."""
    command = ["standalone", "--data", str(data), "--listen", server.address]
    process = await start(*command, "--log-level", "error")
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            ready = await process.stdout.readline()
        if not ready:
            _, err = await process.communicate()
            return one_line(Ran(process.returncode or 0, "", err.decode()))
        ran = await walplane("-a", server.address, "tail", "c", "-o", "json")
        if ran.code:
            return one_line(ran)
        return {each["payload"] for each in ran.objects if each["type"] == "INSERT"}
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def one_line(ran: Ran) -> str:
    assert ran.code == 1, ran.err
    assert ran.err.count("\n") == 1, ran.err
    return ran.err


def flip(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.slow
@pytest.mark.timeout(90 + 60 * FLIPS)
async def test_a_flipped_bit_is_never_silent(tmp_path: Path) -> None:
    server = StandaloneProcess(tmp_path / "data", pchannels=1)
    try:
        await server.start()
        await walplane("-a", server.address, "collection", "create", "c")
        await append(server, "in a table file")
        assert await server.stop() == 0
        await server.start()
        await append(server, "in the log")
    finally:
        await server.kill()
    written = {*lines("in a table file"), *lines("in the log")}
    whole = await outcome(server, shutil.copytree(server.data, tmp_path / "whole"))
    assert whole == written
    refused: Counter[str] = Counter()
    random_source = random.Random(7)  # noqa: S311 - to be repeated
    for pattern in ("*.log", "*.sst", "*.blob"):
        path = max((server.data / "log").glob(pattern), key=lambda each: each.stat().st_size)
        for number in range(FLIPS):
            copy = shutil.copytree(server.data, tmp_path / f"{path.name}-{number}")
            offset = random_source.randrange(path.stat().st_size)
            flip(copy / "log" / path.name, offset, random_source.randrange(8))
            found = await outcome(server, copy)
            where = f"{path.name} at {offset}"
            assert isinstance(found, str) or found == written, f"silently fewer: {where}"
            refused[pattern] += isinstance(found, str)
            shutil.rmtree(copy)
    assert refused["*.log"] + refused["*.sst"], "not one of the flips hit anything"
    assert refused["*.blob"], "not one of the flips hit a record: large ones lie in blob files"
