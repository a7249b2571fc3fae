"""What is printed: a table shows its cells and has the terminal do nothing."""

from __future__ import annotations

import json

import pytest

from walplane.cli.options import OutputFormat
from walplane.cli.output import StreamPrinter, show_object, show_rows

WILD = "a\x1b[31mb\x07\tc\x9bd\x7fü\x00"
TAME = r"a\x1b[31mb\x07 c\x9bd\x7fü\x00"


async def test_control_characters_in_tables_are_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    await StreamPrinter(OutputFormat.TABLE, {"x": 1}).write([{"x": WILD}])
    show_object({"x": WILD}, OutputFormat.TABLE)
    show_rows([{"x": [WILD, "e"]}], ("x",), OutputFormat.TABLE)
    printed = capsys.readouterr().out
    assert printed == f"X\n{TAME}\nx  {TAME}\nX\n{TAME}, e\n"


async def test_json_says_them_in_its_own_way(capsys: pytest.CaptureFixture[str]) -> None:
    await StreamPrinter(OutputFormat.JSON, {"x": 1}).write([{"x": WILD[:-1]}])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert json.loads(printed) == {"x": WILD[:-1]}
