"""`walplane append --producer`: the same input again goes on where it was refused."""

from __future__ import annotations

import asyncio
import os

import pytest

from walplane.cli.append import LineAppender
from walplane.client import CollectionInfo, StreamingClient
from walplane.testkit.reading import payloads

GOOD = [b'{"k": "%d"}' % number for number in range(4)]


async def run(wal: StreamingClient, vchannel: str, lines: list[bytes]) -> LineAppender:
    """One run over `lines`, that the program reads all at once."""
    reading, writing = os.pipe()
    os.write(writing, b"\n".join([*lines, b""]))
    os.close(writing)
    info = CollectionInfo("c", 1, (vchannel,), 0, 1, 0)
    try:
        async with asyncio.timeout(30), wal.producer("file", vchannel) as producer:
            named = {vchannel: producer}
            appender = LineAppender(wal, info, "k", 20, None, named=named)
            await appender.run(reading, asyncio.Event())
    finally:
        os.close(reading)
    return appender


async def test_a_line_that_cannot_be_a_message_keeps_its_place(
    wal: StreamingClient, vchannel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for skipped, acknowledged in ((0, 2), (2, 0)):
        appender = await run(wal, vchannel, [*GOOD[:2], b"no json", GOOD[3]])
        assert (appender.skipped, appender.acknowledged) == (skipped, acknowledged)
        assert (appender.failed, appender.taken) == (1, 3)
        [told] = capsys.readouterr().err.splitlines()
        assert told.startswith("line 3: no key 'k'")
    appender = await run(wal, vchannel, GOOD)
    assert (appender.skipped, appender.acknowledged, appender.failed) == (2, 2, 0)
    assert await payloads(wal, vchannel) == GOOD
