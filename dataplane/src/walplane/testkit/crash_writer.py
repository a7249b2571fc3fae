"""A process that appends until it is killed, and what kills it. Layer: testkit.

    python -m walplane.testkit.crash_writer URL TOPIC TERM OPEN_NUMBER

prints one line for each acknowledged append: its payload in hex and its record id (`-` when it is
unknown). `acknowledged_until_killed` starts it, waits, and sends SIGKILL.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import sys

from walplane.backends.registry import open_backend
from walplane.message.ids import RecordID
from walplane.testkit.conformance.harness import PATIENCE, Acknowledged

WINDOW = 64
"""Appends in flight."""


async def acknowledged_until_killed(
    url: str, topic: str, term: int, open_number: int, count: int
) -> list[Acknowledged]:
    """What a writer process of the backend at `url` got acknowledged, at least `count`.

    The process ensures `topic`, opens its writer under (term, open_number), appends with 64
    records in flight, and is killed with SIGKILL.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "walplane.testkit.crash_writer"),
        *(url, topic, str(term), str(open_number)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None  # noqa: S101 - tells the type checker what PIPE means
    lines: list[bytes] = []
    try:
        async with asyncio.timeout(PATIENCE):
            while len(lines) < count:
                line = await process.stdout.readline()
                if not line:
                    raise AssertionError(f"the writer of {topic} ended by itself")
                lines.append(line)
    finally:
        if process.returncode is None:
            process.kill()
        rest = await process.stdout.read()
        await process.wait()
    lines += rest.splitlines(keepends=True)
    return [_parse(line) for line in lines if line.endswith(b"\n")]


def _parse(line: bytes) -> Acknowledged:
    data, record_id = line.decode().split()
    numbers = None if record_id == "-" else tuple(map(int, record_id.split(":")))
    return Acknowledged(bytes.fromhex(data), numbers)


def _report(data: bytes, append: asyncio.Future[RecordID | None]) -> None:
    record_id = append.result()
    text = "-" if record_id is None else ":".join(map(str, record_id))
    os.write(1, f"{data.hex()} {text}\n".encode())


async def _main(url: str, topic: str, term: str, open_number: str) -> None:
    """Appends for ever, telling each acknowledgement."""
    backend = await open_backend(url)
    session = await backend.session()
    await session.ensure_topic(topic)
    writer = await session.open_writer(topic, int(term), int(open_number))
    window = asyncio.Semaphore(WINDOW)
    for number in itertools.count():
        await window.acquire()
        data = f"crash/{term}/{number}/".encode().ljust(512, b".")
        append = writer.append(data)
        append.add_done_callback(functools.partial(_report, data))
        append.add_done_callback(lambda _: window.release())


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
