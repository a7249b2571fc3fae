"""`walplane append --producer`: the same input again goes on where it was refused."""

from __future__ import annotations

import asyncio
import tempfile

import pytest

from walplane.cli.append import LineAppender
from walplane.client import CollectionInfo, StreamingClient
from walplane.testkit.reading import payloads

GOOD = [b'{"k": "%d"}' % number for number in range(4)]


async def run(wal: StreamingClient, vchannel: str, lines: list[bytes]) -> LineAppender:
    """One run over a file of `lines`."""
    info = CollectionInfo("c", 1, (vchannel,), 0, 1, 0)
    with tempfile.TemporaryFile() as file:
        file.write(b"\n".join([*lines, b""]))
        file.seek(0)
        async with asyncio.timeout(30), wal.producer("file", vchannel) as producer:
            named = {vchannel: producer}
            appender = LineAppender(wal, info, "k", 20, None, named=named)
            await appender.run(file.fileno(), asyncio.Event())
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


async def test_a_long_input_stops_at_its_bad_line_and_says_so(
    wal: StreamingClient, vchannel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [b'{"k": "%d", "more": "%s"}' % (number, b"x" * 20) for number in range(1, 20_001)]
    appender = await run(wal, vchannel, [*lines[:9], b'{"more": ""}', *lines[10:]])
    appender.tell()
    assert capsys.readouterr().err.splitlines() == [
        "line 10: no key 'k': it has no such field",
        "walplane: 1 of 10 lines were not acknowledged, and no line after line 10: mend what "
        "failed, then run it again with the same input",
    ]
    assert await payloads(wal, vchannel) == lines[:9]
    appender = await run(wal, vchannel, lines)
    assert (appender.skipped, appender.acknowledged, appender.failed) == (9, 19_991, 0)
    assert await payloads(wal, vchannel) == lines
