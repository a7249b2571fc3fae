"""The command line itself: wrong use, help, what needs no cluster."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from walplane.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["append"], "--collection"),
        (["nonsense"], "'nonsense'"),
        (["topology", "-o", "xml"], "'xml'"),
        (["collection", "create", "x", "--shards", "0"], "--shards"),
        (["collection", "create", "x", "--shards", "many"], "--shards"),
        (["collection", "create"], "NAME"),
        (["--address", "nowhere", "topology"], "'nowhere' is not of the form host:port"),
        (["topology", "--address", "host:99999"], "'host:99999' is not of the form host:port"),
        (["ingest", "file.txt", "--collection", "x"], "file.txt: which format?"),
        (["standalone"], "--data"),
        (["standalone", "--data", "x", "--pchannels", "0"], "--pchannels"),
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
        *(["collection"], ["collection", "create"], ["collection", "list"]),
    ],
)
def test_help_has_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert re.search(r"Examples:\n +(echo|walplane) ", capsys.readouterr().out)


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
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


def test_an_unknown_backend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["standalone", "--data", str(tmp_path / "data"), "--backend", "tape:"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "unknown backend 'tape'" in error


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "walplane.cli.tables", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["ingest", "file.csv", "--collection", "x"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "this command needs pyarrow: pip install 'walplane[standalone]'" in error
