"""What a benchmark row is, and what one round of it gives. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VALUE = "value"
"""Name of a sample's main figure."""


class BenchmarkError(Exception):
    """A row cannot be measured; the text names why and the way out."""


@dataclass(frozen=True)
class Setting:
    """What every row is measured with.

    Attributes:
        seconds: how long one side of one round is under load.
        out: where results and logs go.
        data: directory on the disk that is measured.
    """

    seconds: float
    out: Path
    data: Path


@dataclass(frozen=True)
class Sample:
    """One side of one round.

    Attributes:
        figures: by name; `value` is the main one.
    """

    figures: Mapping[str, float]

    @property
    def value(self) -> float:
        """The main figure."""
        return self.figures[VALUE]


Measure = Callable[[float], Sample]
"""Puts one side under load for so many seconds."""


@dataclass(frozen=True)
class Target:
    """What a ratio has to reach: a minimum, or a maximum where lower is better.

    Attributes:
        first: what the first working version must show; None where nothing is asked of it.
        must: without it a release is no release; None where only the goal is set.
        goal: where it is to go.
        unit: of this figure; None: the row's.
        higher_is_better: for this figure; None: as the row says.
    """

    first: float | None
    must: float | None
    goal: float
    unit: str | None = None
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class Pair:
    """Both sides of a row, ready to be measured for so many seconds, any number of times.

    Attributes:
        ours: measures walplane.
        reference: measures what it is compared with; None where that is the row's constant.
        versions: of the servers that were started for it.
    """

    ours: Measure
    reference: Measure | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the table, or several when a sample has several figures with a target.

    Attributes:
        name: as on the command line.
        what: what is measured, in one sentence.
        reference: what it is measured against.
        unit: of the main figure, and of figures whose target names none.
        higher_is_better: False for latencies; targets may differ.
        targets: by name of the figure.
        start: brings up what is measured, and takes it down again.
        constant: what the figures are compared with when the requirement names a number, and so
            nothing is measured beside ours.
    """

    name: str
    what: str
    reference: str
    unit: str
    higher_is_better: bool
    targets: Mapping[str, Target]
    start: Callable[[Setting], AbstractContextManager[Pair]]
    constant: float | None = None

    def title(self, figure: str) -> str:
        """Name of one figure's line in table and chart."""
        return self.name if figure == VALUE else f"{self.name} {figure}"


@dataclass(frozen=True)
class Round:
    """One round of one row."""

    row: str
    number: int
    ours_first: bool
    ours: Sample
    reference: Sample
    load_before: float

    def ratio(self, figure: str = VALUE) -> float:
        """Ours over the reference."""
        return self.ours.figures[figure] / self.reference.figures[figure]

    def to_json(self, row: Row, seconds: float, versions: Mapping[str, str]) -> dict[str, Any]:
        """The round as it is kept in the JSON lines."""
        return {
            "row": self.row,
            "round": self.number,
            "ours": self.ours.value,
            "reference": self.reference.value,
            "reference_is_constant": row.constant is not None,
            "ratio": self.ratio(),
            "unit": row.unit,
            "better": "higher" if row.higher_is_better else "lower",
            "first": "ours" if self.ours_first else "reference",
            "seconds": seconds,
            "load_before": self.load_before,
            "ours_figures": dict(self.ours.figures),
            "reference_figures": dict(self.reference.figures),
            "versions": dict(versions),
        }


@dataclass(frozen=True)
class Summary:
    """All rounds of one figure of one row."""

    row: Row
    figure: str
    rounds: tuple[Round, ...]

    @property
    def target(self) -> Target:
        """What the ratio has to reach."""
        return self.row.targets[self.figure]

    @property
    def unit(self) -> str:
        """Of this figure."""
        return self.target.unit or self.row.unit

    @property
    def higher_is_better(self) -> bool:
        """For this figure."""
        own = self.target.higher_is_better
        return self.row.higher_is_better if own is None else own

    def meets(self, bound: float | None) -> bool:
        """Whether the ratio reaches `bound`; no bound is always reached."""
        if bound is None:
            return True
        return self.ratio >= bound if self.higher_is_better else self.ratio <= bound

    @property
    def ours(self) -> float:
        """Median of our figure."""
        return statistics.median(r.ours.figures[self.figure] for r in self.rounds)

    @property
    def reference(self) -> float:
        """Median of the reference's figure."""
        return statistics.median(r.reference.figures[self.figure] for r in self.rounds)

    @property
    def ratios(self) -> list[float]:
        """The ratio of each round; both sides of a ratio were measured within seconds."""
        return [r.ratio(self.figure) for r in self.rounds]

    @property
    def ratio(self) -> float:
        """Median of the rounds' ratios."""
        return statistics.median(self.ratios)


def summaries(row: Row, rounds: list[Round]) -> list[Summary]:
    """One summary per figure of `row` that has a target."""
    return [Summary(row, figure, tuple(rounds)) for figure in row.targets]
