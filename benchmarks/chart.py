"""The results as a chart: each row's ratios beside what it has to reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.model import Summary
from benchmarks.report import quotient

_MET, _MISSED = "#2b7a4b", "#b3402a"
_BOUNDS: tuple[tuple[str, Literal[":", "-", "--"], str], ...] = (
    ("first", ":", "first step"),
    ("must", "-", "must"),
    ("goal", "--", "goal"),
)
_HEIGHT_OF_A_ROW = 0.62
_TICKS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
_LEAST = 0.001
"""A ratio of 0 has no place on a logarithmic axis."""


def draw(summaries: Sequence[Summary], paths: Sequence[Path]) -> None:
    """Writes the chart to each of `paths`; the suffix chooses the format.

    A dot is a round, the bar ends at the median, the ticks are what is to be reached.
    """
    figure = Figure(figsize=(9, 1.6 + _HEIGHT_OF_A_ROW * len(summaries)), layout="constrained")
    axes = figure.subplots()
    for place, summary in enumerate(summaries):
        _draw_row(axes, place, summary)
    axes.set_yticks(range(len(summaries)), [_label(summary) for summary in summaries])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axes.minorticks_off()
    axes.set_xlim(*_limits(summaries))
    axes.axvline(1, color="#888888", linewidth=0.8, zorder=0)
    axes.set_xlabel("ours ÷ reference (logarithmic)")
    axes.spines[["top", "right"]].set_visible(False)
    handles = [
        Line2D([], [], color="black", linestyle=style, label=label) for _, style, label in _BOUNDS
    ]
    handles.append(Line2D([], [], color="black", marker="o", linestyle="", label="one round"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    for path in paths:
        figure.savefig(path, dpi=150)


def _draw_row(axes: Axes, place: int, summary: Summary) -> None:
    color = _MET if summary.meets(summary.target.must) else _MISSED
    left = min(1.0, max(_LEAST, summary.ratio))
    right = max(1.0, summary.ratio)
    axes.barh(place, right - left, left=left, height=0.5, color=color, alpha=0.75)
    axes.plot(summary.ratios, [place] * len(summary.ratios), "o", color="black", markersize=3)
    for name, style, _ in _BOUNDS:
        bound = getattr(summary.target, name)
        if bound is not None:
            axes.plot([bound, bound], [place - 0.4, place + 0.4], style, color="black", linewidth=1)


def _label(summary: Summary) -> str:
    better = "higher" if summary.higher_is_better else "lower"
    return f"{summary.row.title(summary.figure)}\n{quotient(summary.ratio)} ({better} is better)"


def _limits(summaries: Sequence[Summary]) -> tuple[float, float]:
    values = [1.0]
    for summary in summaries:
        bounds = (summary.target.must, summary.target.goal)
        values += [*summary.ratios, *(bound for bound in bounds if bound is not None)]
    return max(_LEAST, min(values)) / 1.4, max(values) * 1.4
