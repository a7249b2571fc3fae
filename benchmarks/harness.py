"""Interleaved rounds: ours, reference, then reference, ours, and so on, after a warm-up of both.

Contract: each round is handed on as soon as it is measured, so that an interrupted run keeps what
it has. A row that cannot be measured does not keep the others from being measured.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TextIO

from benchmarks.model import (
    VALUE,
    BenchmarkError,
    Measure,
    Round,
    Row,
    Sample,
    Setting,
    Summary,
    summaries,
)

WARM_UP_SHARE = 0.5
"""The unrecorded round before the first lasts this share of a recorded one."""

Say = Callable[[str], None]


@dataclass
class Results:
    """What a run gave.

    Attributes:
        summaries: of the rows that were measured, in order.
        failures: why the other rows were not, by name.
        versions: of everything that took part.
    """

    summaries: list[Summary] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def run(
    rows: Iterable[Row],
    rounds: int,
    setting: Setting,
    versions: Mapping[str, str],
    lines: TextIO,
    say: Say,
) -> Results:
    """Measures `rows` one after the other.

    Args:
        rows: what to measure.
        rounds: recorded rounds of each row.
        setting: how.
        versions: of machine and client libraries; rows add those of their servers.
        lines: takes one JSON object a round.
        say: takes progress, a line at a time.
    """
    results = Results(versions=dict(versions))
    for row in rows:
        try:
            measured = _run_row(row, rounds, setting, results.versions, lines, say)
        except BenchmarkError as error:
            results.failures[row.name] = str(error)
            say(f"{row.name}: not measured: {error}")
        else:
            results.summaries += summaries(row, measured)
    return results


def _run_row(
    row: Row, rounds: int, setting: Setting, versions: dict[str, str], lines: TextIO, say: Say
) -> list[Round]:
    measured = []
    with row.start(setting) as pair:
        versions.update(pair.versions)
        say(f"{row.name}: warming up")
        reference = pair.reference or _constant(row)
        pair.ours(setting.seconds * WARM_UP_SHARE)
        reference(setting.seconds * WARM_UP_SHARE)
        for number in range(1, rounds + 1):
            one = _run_round(row.name, number, pair.ours, reference, setting.seconds)
            measured.append(one)
            print(json.dumps(one.to_json(row, setting.seconds, versions)), file=lines, flush=True)
            say(_progress(row, one, rounds))
    return measured


def _constant(row: Row) -> Measure:
    """The row's constant as a reference: nothing runs."""
    if row.constant is None:
        raise ValueError(f"row {row.name} has neither a measured reference nor a constant")
    sample = Sample(dict.fromkeys((VALUE, *row.targets), row.constant))
    return lambda _seconds: sample


def _run_round(
    name: str, number: int, measure_ours: Measure, measure_reference: Measure, seconds: float
) -> Round:
    load = os.getloadavg()[0]
    ours_first = number % 2 == 1
    if ours_first:
        ours, reference = measure_ours(seconds), measure_reference(seconds)
    else:
        reference, ours = measure_reference(seconds), measure_ours(seconds)
    return Round(name, number, ours_first, ours, reference, load)


def _progress(row: Row, one: Round, rounds: int) -> str:
    ratios = ", ".join(
        f"{row.title(figure).removeprefix(row.name).strip() or 'ratio'} {one.ratio(figure):.2f}"
        for figure in row.targets
    )
    return (
        f"{row.name}: round {one.number} of {rounds}: ours {one.ours.value:,.4g}, "
        f"reference {one.reference.value:,.4g} {row.unit}; {ratios}"
    )
