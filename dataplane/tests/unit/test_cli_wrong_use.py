"""The command line itself: wrong use, help, what needs no cluster."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest
import typer

from walplane.cli.errors import INTERRUPTED
from walplane.cli.main import app, main
from walplane.client import StreamingClient
from walplane.embedded import open_embedded
from walplane.message.ids import ResumeToken
from walplane.testkit.command import start, walplane
from walplane.testkit.standalone import free_port


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["append"], "--collection"),
        (["nonsense"], "'nonsense'"),
        (["topology", "-o", "xml"], "'xml'"),
        (["collection", "create", "x", "--shards", "0"], "--shards"),
        (["collection", "create", "x", "--shards", "100000"], "--shards"),
        (["collection", "create", "x", "--shards", "many"], "--shards"),
        (["collection", "create", ""], "'' is no collection name"),
        (["collection", "create", "a b"], "'a b' is no collection name"),
        (["coord", "--pchannels", "100000"], "equal to 1024"),
        (["collection", "create"], "NAME"),
        (["--address", "nowhere", "topology"], "'nowhere' is not of the form host:port"),
        (["topology", "--address", "host:99999"], "'host:99999' is not of the form host:port"),
        (["ingest", "file.txt", "--collection", "x"], "file.txt: which format?"),
        (["standalone"], "--data"),
        (["standalone", "--data", "x", "--pchannels", "0"], "--pchannels"),
        (["standalone", "--data", "x", "--pchannels", "100000"], "equal to 1024"),
        (["standalone", "--data", "x", "--prefix", "a b"], "'a b' is no channel prefix"),
        (["standalone", "--data", "x", "--backend", "tape:"], "unknown backend 'tape'"),
        (["standalone", "--data", "x", "--retention-seconds", "nan"], "equal to 0"),
        (["tail", "x", "--from", "bogus"], "--from 'bogus' is no start"),
        (["tail", "x", "--type", "FOO"], "no message type 'FOO': TIME_TICK, INSERT, "),
        (["append", "--collection", "x", "--producer", ""], "--producer"),
        (["standalone", "--data", "", "--backend", "tape:"], "no directory"),
    ],
)
def test_wrong_use_is_exit_code_2_and_one_line(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("walplane")
    assert captured.err.count("\n") == 1
    assert reason in captured.err


@pytest.mark.parametrize(
    "command",
    [
        *([], ["append"], ["ingest"], ["standalone"], ["status"], ["tail"], ["topology"]),
        *(["node"], ["coord"], ["verify"], ["version"]),
        *(["collection"], ["collection", "create"], ["collection", "list"]),
        *(["collection", "describe"], ["collection", "flush"], ["collection", "drop"]),
    ],
)
def test_help_has_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert re.search(r"Examples:\n +(echo|walplane) ", capsys.readouterr().out)


@pytest.mark.parametrize("command", ["node", "coord"])
def test_every_option_of_a_pod_may_come_from_the_environment(command: str) -> None:
    found = typer.main.get_group(app).commands[command].params
    assert {each.name for each in found} >= {"pod", "log_level", "log_format", "debug"}
    assert [each.name for each in found if each.envvar is None and each.name != "help"] == []


def test_the_example_of_a_resume_token_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail", "--help"]) == 0
    (token,) = re.findall(r"--from (\S+@\S+)", capsys.readouterr().out)
    assert ResumeToken.parse(token).pchannel == "wal_3"


def test_help_of_flush_says_what_it_does_without_a_store(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["collection", "flush", "--help"]) == 0
    assert "store nothing" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", [[], ["collection"]])
def test_no_command_shows_the_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 0
    assert "Examples:" in capsys.readouterr().out


def test_version_needs_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["walplane"]


def test_a_data_directory_that_cannot_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["standalone", "--data", str(tmp_path / "file" / "data")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"data directory {tmp_path}/file/data cannot be used: Not a directory" in error


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "walplane.cli.tables", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["ingest", "file.csv", "--collection", "x"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "this command needs pyarrow: pip install 'walplane[standalone]'" in error


@pytest.mark.parametrize("arguments", [["--help"], ["version"], ["collection"]])
async def test_output_that_cannot_be_written_is_one_line(arguments: list[str]) -> None:
    err, code = await _in_a_shell(*arguments, redirections="> /dev/full")
    assert (err, code) == ("walplane: standard output: No space left on device\n", 1)


@pytest.mark.parametrize("command", [[], ["topology"], ["collection", "list"]])
def test_h_is_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "-h"]) == 0
    assert "Examples:" in capsys.readouterr().out


def test_nobody_there_says_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-a", f"127.0.0.1:{free_port()}", "topology"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "; start one with `walplane standalone`, or give the address of one" in error


@pytest.mark.parametrize("redirections", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
async def test_standard_streams_may_be_closed(redirections: str) -> None:
    arguments = ("-a", f"127.0.0.1:{free_port()}", "topology")
    err, code = await _in_a_shell(*arguments, redirections=redirections)
    assert code == 1
    assert err.count("\n") == (0 if "2>" in redirections else 1)


async def test_an_input_that_is_closed_is_not_an_empty_one(tmp_path: Path) -> None:
    async with open_embedded(tmp_path, pchannels=1, backend="memory:") as wal:
        await wal.create_collection("c")
        arguments = ("-a", wal.address, "append", "--collection", "c")
        assert await _in_a_shell(*arguments, redirections="< /dev/null") == ("", 0)
        said = "walplane: standard input: Bad file descriptor\n"
        assert await _in_a_shell(*arguments, redirections="<&-") == (said, 1)


async def test_an_argument_that_is_no_utf_8_is_wrong_use(wal: StreamingClient) -> None:
    err, code = await _in_a_shell("-a", wal.address, "tail", redirections="$(printf 'x\\377')")
    assert (err, code) == ("walplane: 'x\\udcff' is not UTF-8\n", 2)


async def test_ctrl_c_while_modules_are_loaded_leaves_no_stack_trace(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import time\nprint(flush=True)\ntime.sleep(60)\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = await start("version", environment={"PYTHONPATH": path})
    assert process.stdout is not None
    async with asyncio.timeout(60):
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err) == (-signal.SIGINT, b"")


_INTERRUPTS = """
import os, signal, sys

class Interrupts:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == os.environ["INTERRUPTED_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts)
"""


@pytest.mark.parametrize("module", ["structlog", "walplane.cli", "grpc"])
async def test_ctrl_c_where_a_module_is_loaded_leaves_no_stack_trace(
    module: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_INTERRUPTS)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ran = await walplane("version", environment={"PYTHONPATH": path, "INTERRUPTED_AT": module})
    assert ran.code in (-signal.SIGINT, INTERRUPTED)
    assert ran.err == ""


@pytest.mark.parametrize("step", ["open_standard_streams", "keep_large_buffers"])
def test_ctrl_c_before_the_command_begins(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"walplane.cli.main.{step}", interrupted)
    assert main(["version"]) == INTERRUPTED


async def test_a_job_in_the_background_does_not_hear_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import time\nprint(flush=True)\ntime.sleep(60)\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = await asyncio.create_subprocess_shell(
        f"trap '' INT; exec {shlex.quote(sys.executable)} -m walplane version",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == -signal.SIGTERM


async def _in_a_shell(*arguments: str, redirections: str) -> tuple[str, int]:
    """Standard error and exit code."""
    command = shlex.join([sys.executable, "-m", "walplane", *arguments])
    process = await asyncio.create_subprocess_shell(
        f"{command} {redirections}", stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    return err.decode(), process.returncode or 0
