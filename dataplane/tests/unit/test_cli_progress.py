"""Progress of long commands: nothing for two seconds, then a line every two seconds."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile

import pytest

from walplane.cli.append import LineAppender
from walplane.cli.options import OutputFormat
from walplane.cli.output import StreamPrinter
from walplane.cli.progress import LineProgress, RowProgress
from walplane.client import CollectionInfo, StreamingClient


class Clock:
    """Goes on by `step_s` seconds whenever it is looked at."""

    def __init__(self, step_s: float) -> None:
        self.seconds = 0.0
        self.step_s = step_s

    def __call__(self) -> float:
        self.seconds += self.step_s
        return self.seconds


async def append(
    wal: StreamingClient,
    vchannel: str,
    lines: list[bytes],
    step_s: float,
    printer: StreamPrinter | None = None,
) -> None:
    info = CollectionInfo("c", 1, (vchannel,), 0, 1, 0)
    progress = LineProgress(Clock(step_s))
    with tempfile.TemporaryFile() as file:
        file.write(b"\n".join([*lines, b""]))
        file.seek(0)
        appender = LineAppender(wal, info, "k", 20, printer, progress=progress)
        async with asyncio.timeout(60):
            await appender.run(file.fileno(), asyncio.Event())


async def test_an_append_tells_what_is_acknowledged_and_what_failed(
    wal: StreamingClient, vchannel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await append(wal, vchannel, [b'{"k": 1}', b"nothing", b'{"k": 2}'], 2.0)
    assert capsys.readouterr().err.splitlines()[1:] == ["2 lines acknowledged, 1 failed"]


@pytest.mark.parametrize("terminal", [True, False])
async def test_an_append_whose_results_run_over_a_terminal_tells_nothing_else(
    wal: StreamingClient,
    vchannel: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    printer = StreamPrinter(OutputFormat.JSON, {"line": 8})
    await append(wal, vchannel, [b'{"k": 1}'], 2.0, printer)
    out, err = capsys.readouterr()
    assert json.loads(out)["line"] == 1
    assert err == ("" if terminal else "1 lines acknowledged, 0 failed\n")


async def test_what_ends_within_two_seconds_tells_nothing(
    wal: StreamingClient, vchannel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await append(wal, vchannel, [b'{"k": 1}'], 1.9)
    assert capsys.readouterr().err == ""


def test_a_line_comes_every_two_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(0.0)
    with RowProgress("flights.csv", 200, clock) as progress:
        for tenths in range(1, 51):
            clock.seconds = tenths / 10
            progress.update(1000 * tenths, tenths)
    assert capsys.readouterr().err.splitlines() == [
        "20,000 rows acknowledged, 10% of the file read",
        "40,000 rows acknowledged, 20% of the file read",
    ]
    assert progress.seconds == 5.0
