"""Results on standard output as JSON, YAML or a table. Layer: cli.

Contract: a listing is one document; a stream is one document a message, written whole and flushed
before anything later is waited for. Writing never blocks the event loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from walplane.cli.options import OutputFormat

Row = Mapping[str, Any]
STANDARD_OUTPUT = "standard output"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")  # what a terminal would obey
_LINE = json.JSONEncoder(ensure_ascii=False)


def open_standard_streams() -> None:
    """Puts nothing in place of standard streams that are closed: another file would get theirs."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            # the lowest free number, which is this one; what was no input is no empty one either
            os.open(os.devnull, os.O_RDWR if number else os.O_WRONLY)
            setattr(sys, name, os.fdopen(number, mode))


def show_rows(rows: Sequence[Row], columns: Sequence[str], output: OutputFormat) -> None:
    """Prints a listing; `columns` are those of the table, in order."""
    if output is OutputFormat.TABLE:
        _write(_table(rows, columns))
    else:
        _write(_document([dict(row) for row in rows], output))


def show_object(value: Row, output: OutputFormat) -> None:
    """Prints one object; as a table, one field a line."""
    if output is OutputFormat.TABLE:
        width = max(map(len, value), default=0)
        _write("".join(f"{key.ljust(width)}  {_cell(field)}\n" for key, field in value.items()))
    else:
        _write(_document(dict(value), output))


class StreamPrinter:
    """Prints objects one after the other while a command runs.

    JSON: one object a line. YAML: one document each. Table: fixed columns, header first.

    Attributes:
        output: the form.
    """

    def __init__(self, output: OutputFormat, widths: Mapping[str, int]) -> None:
        """Takes the table's columns with their least widths, in order."""
        self.output = output
        self._widths = widths
        self._header_due = output is OutputFormat.TABLE
        self._writing = asyncio.Lock()

    async def write(self, values: Sequence[Row]) -> None:
        """Prints `values` and flushes; waits while the reader of the output is slow.

        Calls do not mix their output, and keep their order.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        text = "".join(map(self._render, values))
        if self._header_due:
            text = self._line([name.upper().replace("_", " ") for name in self._widths]) + text
            self._header_due = False
        async with self._writing:
            await asyncio.to_thread(_write, text)

    def _render(self, value: Row) -> str:
        if self.output is OutputFormat.JSON:
            return _LINE.encode(value) + "\n"
        if self.output is OutputFormat.YAML:
            return "---\n" + _document(dict(value), self.output)
        return self._line([_cell(value.get(name)) for name in self._widths])

    def _line(self, cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) for cell, width in zip(cells, self._widths.values(), strict=True)
        )
        return "  ".join(padded).rstrip() + "\n"


def _document(value: object, output: OutputFormat) -> str:
    if output is OutputFormat.JSON:
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def _table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    header = [name.upper().replace("_", " ") for name in columns]
    lines = [header, *([_cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return _CONTROL.sub(_escaped, " ".join(str(value).split())) or "-"


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _write(text: str) -> None:
    try:
        sys.stdout.buffer.write(text.encode())  # UTF-8 whatever the locale says
        sys.stdout.buffer.flush()
    except OSError as error:
        error.filename = STANDARD_OUTPUT
        raise
