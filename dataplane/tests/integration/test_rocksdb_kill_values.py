"""Kill -9 of a process that writes large and small records to the embedded backend."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from walplane.backends.rocksdb import RocksBackend, values
from walplane.testkit.conformance.harness import read_to_end

WRITES = """
import asyncio, random, sys
from walplane.backends.rocksdb import RocksBackend, values
values.FILE_BYTES = 4 << 20

async def main(path: str, term: int) -> None:
    backend = await RocksBackend.open(path)
    session = await backend.session()
    await session.ensure_topic("t")
    writer = await session.open_writer("t", term, 0)
    sizes = random.Random(term)
    while True:
        size = [8, 1000, 300_000, 1_000_000]
        data = [bytes([term]) * sizes.choice(size) for _ in range(sizes.randint(1, 12))]
        futures = [writer.append(one) for one in data]
        for one, future in zip(data, futures):
            (sequence,) = await future
            print(sequence, len(one), flush=True)
        if sequence > 400:
            await session.truncate("t", (sequence - 200,))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def until_killed(path: Path, term: int, count: int) -> dict[int, bytes]:
    """Has a process append, kills it after `count` acknowledgements; all that it was told."""
    program = [sys.executable, "-c", WRITES, str(path), str(term)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(count)]
        process.kill()
        lines += process.stdout.readlines()
    told = [map(int, line.split()) for line in lines if line.endswith("\n")]  # the last may be cut
    return {sequence: bytes([term]) * size for sequence, size in told}


async def log_of(path: Path) -> dict[int, bytes]:
    """All records of the topic, by their numbers."""
    backend = await RocksBackend.open(str(path))
    records = await read_to_end(await backend.session(), "t")
    await backend.close()
    return {number: data for (number,), data in records}


@pytest.mark.slow
def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    acknowledged: dict[int, bytes] = {}
    kills = random.Random(5)  # noqa: S311 - the same in every run
    for term in range(1, 9):
        acknowledged |= until_killed(tmp_path, term, kills.randint(1, 300))
        found = asyncio.run(log_of(tmp_path))
        first = min(found)
        assert sorted(found) == list(range(first, first + len(found)))
        wanted = {number: data for number, data in acknowledged.items() if number >= first}
        assert {number: found.get(number) for number in wanted} == wanted
    assert first > 1
    held = sum(file.stat().st_size for file in (tmp_path / values.DIRECTORY).iterdir())
    assert held < sum(map(len, found.values())) + (32 << 20)
