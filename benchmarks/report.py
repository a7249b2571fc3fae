"""The results as a Markdown table. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.harness import Results
from benchmarks.model import Row, Summary

_HEAD = (
    "| row | ours | reference | ours ÷ reference | rounds (lowest to highest) "
    "| first step | must | goal |",
    "|---|---|---|---|---|---|---|---|",
)
_WAITING = "not measured"


def render(results: Results, seconds: float) -> str:
    """The whole page: the table, what each row is, versions."""
    lines = ["# Benchmarks", "", *_HEAD]
    lines += [_line(summary) for summary in results.summaries]
    lines += [f"| {name} | {_WAITING}: {why} |||||||" for name, why in results.failures.items()]
    lines += ["", _explanation(results, seconds), ""]
    lines += _rows({summary.row.name: summary.row for summary in results.summaries})
    lines += ["", "| part | version |", "|---|---|"]
    lines += [f"| {part} | {version} |" for part, version in results.versions.items()]
    return "\n".join(lines) + "\n"


def amount(value: float, unit: str) -> str:
    """A figure for people: three digits, or whole numbers with separators."""
    text = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{text} {unit}"


def quotient(ratio: float) -> str:
    """A ratio for people: two decimals, three where two would show nothing."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.3f}"


def verdict(summary: Summary, bound: float | None) -> str:
    """A bound and whether the median ratio reaches it."""
    if bound is None:
        return "-"
    sign = "≥" if summary.higher_is_better else "≤"
    met = "met" if summary.meets(bound) else "**not met**"
    return f"{sign} {bound:g} {met}"


def _line(summary: Summary) -> str:
    row, target = summary.row, summary.target
    constant = "" if row.constant is None else " (constant)"
    cells = [
        row.title(summary.figure),
        amount(summary.ours, summary.unit),
        amount(summary.reference, summary.unit) + constant,
        f"**{quotient(summary.ratio)}**",
        f"{len(summary.rounds)} ({quotient(min(summary.ratios))} to "
        f"{quotient(max(summary.ratios))})",
        *(verdict(summary, bound) for bound in (target.first, target.must, target.goal)),
    ]
    return f"| {' | '.join(cells)} |"


def _explanation(results: Results, seconds: float) -> str:
    rounds = {len(summary.rounds) for summary in results.summaries}
    count = " or ".join(str(number) for number in sorted(rounds)) or "no"
    return (
        f"Medians of {count} rounds of {seconds:g} s a side, the sides in turn; a ratio is taken "
        "within one round. A constant is the number that the requirement names; nothing runs for "
        "it. Every round is kept in `rounds.jsonl`."
    )


def _rows(rows: Mapping[str, Row]) -> list[str]:
    return [f"- `{name}`: {row.what} Reference: {row.reference}" for name, row in rows.items()]
