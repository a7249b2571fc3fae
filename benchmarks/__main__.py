"""`python -m benchmarks [ROW...] [--rounds N] [--out DIR]`: see docs/benchmarks.md."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.chart import draw
from benchmarks.harness import Results, run
from benchmarks.model import Row, Setting
from benchmarks.report import render
from benchmarks.rows import ROWS
from benchmarks.versions import versions

ROUNDS_FILE = "rounds.jsonl"
TABLE_FILE = "table.md"
CHART_FILES = ("chart.png", "chart.svg")


def main(arguments: list[str] | None = None, rows: Sequence[Row] = ROWS) -> int:
    """Measures, writes the files, prints the table.

    Returns:
        0 when every row was measured, 1 when one could not be, 2 for wrong use.
    """
    parser = _parser(rows)
    options = parser.parse_args(arguments)
    if options.list:
        for row in rows:
            print(f"{row.name}\t{row.what}")
        return 0
    chosen = _choose(parser, options.rows, rows)
    options.out.mkdir(parents=True, exist_ok=True)
    data = options.data or options.out / "data"
    setting = Setting(options.seconds, options.out.resolve(), data.resolve())
    with (options.out / ROUNDS_FILE).open("w") as lines:
        results = run(chosen, options.rounds, setting, versions(), lines, _say)
    _write(results, setting)
    return 1 if results.failures else 0


def _parser(rows: Sequence[Row]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures walplane beside references, in interleaved rounds of one run.",
        epilog="Example: python -m benchmarks 'append-pulsar-*' --rounds 3 --out bench-out",
    )
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"names or patterns of: {_names(rows)}; default all"
    )
    parser.add_argument("--rounds", type=_positive(int), default=5, help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path("bench-out"), help="directory of results; %(default)s"
    )
    parser.add_argument(
        "--seconds", type=_positive(float), default=5.0, help="of load per side; %(default)s"
    )
    parser.add_argument(
        "--data", type=Path, help="directory on the disk to measure; default: OUT/data"
    )
    parser.add_argument("--list", action="store_true", help="list the rows and end")
    return parser


def _positive(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    def parse(text: str) -> int | float:
        value = kind(text)
        if not value > 0:
            raise ValueError(text)
        return value

    parse.__name__ = "number above 0"  # argparse shows it in its error
    return parse


def _choose(
    parser: argparse.ArgumentParser, patterns: Sequence[str], rows: Sequence[Row]
) -> list[Row]:
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(row.name, pattern) for row in rows):
            parser.error(f"no row {pattern!r}: one of {_names(rows)}")
    wanted = patterns or ["*"]
    return [row for row in rows if any(fnmatch.fnmatchcase(row.name, w) for w in wanted)]


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(row.name for row in rows)


def _write(results: Results, setting: Setting) -> None:
    table = render(results, setting.seconds)
    (setting.out / TABLE_FILE).write_text(table)
    if results.summaries:
        draw(results.summaries, [setting.out / name for name in CHART_FILES])
    print(table)
    _say(f"written: {', '.join((ROUNDS_FILE, TABLE_FILE, *CHART_FILES))} in {setting.out}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
