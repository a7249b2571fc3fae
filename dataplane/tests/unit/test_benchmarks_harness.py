"""The benchmark harness: order of the rounds, medians, files. Figures are never tested."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.model import VALUE, BenchmarkError, Pair, Row, Sample, Setting, Target
from benchmarks.rows import ROWS

ROOT = Path(__file__).resolve().parents[3]


class FakeSides:
    """Figures from a script; remembers who was asked, and for how long."""

    def __init__(self, ours: list[float], reference: list[float]) -> None:
        self.calls: list[tuple[str, float]] = []
        self.up = False
        self._figures = {"ours": iter(ours), "reference": iter(reference)}

    @contextmanager
    def start(self, setting: Setting) -> Iterator[Pair]:
        self.up = True
        try:
            yield Pair(
                lambda seconds: self._measure("ours", seconds),
                lambda seconds: self._measure("reference", seconds),
                {"fake server": "7.1"},
            )
        finally:
            self.up = False

    def _measure(self, side: str, seconds: float) -> Sample:
        assert self.up
        self.calls.append((side, seconds))
        value = next(self._figures[side])
        return Sample({VALUE: value, "p99": value * 3 if side == "ours" else value})


def fake_row(sides: FakeSides, *, higher: bool = True, name: str = "fake") -> Row:
    return Row(
        name=name,
        what="a fake.",
        reference="another fake.",
        unit="msg/s" if higher else "ms",
        higher_is_better=higher,
        targets={VALUE: Target(2, 5, 20), "p99": Target(None, 1, 2)},
        start=sides.start,
    )


def constant_row(sides: FakeSides) -> Row:
    @contextmanager
    def start(setting: Setting) -> Iterator[Pair]:
        with sides.start(setting) as pair:
            yield Pair(pair.ours)

    return Row(
        name="fake",
        what="a fake.",
        reference="a number.",
        unit="ms",
        higher_is_better=False,
        targets={"p99": Target(None, 0.1, 0.025)},
        start=start,
        constant=200,
    )


def measure(row: Row, out: Path, *more: str) -> tuple[int, list[dict[str, object]]]:
    code = main(["--rounds", "3", "--seconds", "2", "--out", str(out), *more], [row])
    lines = (out / "rounds.jsonl").read_text().splitlines()
    return code, [json.loads(line) for line in lines]


def test_sides_take_turns_and_the_warm_up_is_not_recorded(tmp_path: Path) -> None:
    sides = FakeSides([1, 10, 20, 60], [1, 2, 2, 2])
    code, rounds = measure(fake_row(sides), tmp_path)
    assert code == 0
    assert [side for side, _ in sides.calls] == [
        *("ours", "reference"),  # warm-up
        *("ours", "reference"),
        *("reference", "ours"),
        *("ours", "reference"),
    ]
    assert [seconds for _, seconds in sides.calls] == [1, 1, 2, 2, 2, 2, 2, 2]
    assert [r["ours"] for r in rounds] == [10, 20, 60]
    assert not sides.up


def test_each_round_is_one_json_object(tmp_path: Path) -> None:
    _, rounds = measure(fake_row(FakeSides([1, 10, 20, 60], [1, 2, 4, 2])), tmp_path)
    assert [(r["row"], r["round"], r["ratio"], r["unit"]) for r in rounds] == [
        ("fake", 1, 5, "msg/s"),
        ("fake", 2, 5, "msg/s"),
        ("fake", 3, 30, "msg/s"),
    ]
    assert [r["first"] for r in rounds] == ["ours", "reference", "ours"]
    versions = rounds[0]["versions"]
    assert isinstance(versions, dict)
    assert {"walplane", "pulsar-client", "python", "cpu count", "fake server"} <= set(versions)
    assert rounds[1]["ours_figures"] == {"value": 20, "p99": 60}


def test_the_table_shows_medians_and_what_is_met(tmp_path: Path) -> None:
    # ratios 5, 10, 30: the median is 10, and no ratio of medians (20 / 2) decides by chance
    measure(fake_row(FakeSides([1, 10, 30, 60], [1, 2, 3, 2])), tmp_path)
    table = (tmp_path / "table.md").read_text().splitlines()
    (line,) = [line for line in table if line.startswith("| fake |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:] == [
        *("30 msg/s", "2 msg/s", "**10.00**", "3 (5.00 to 30.00)"),
        *("≥ 2 met", "≥ 5 met", "≥ 20 **not met**"),
    ]
    (p99,) = [line for line in table if line.startswith("| fake p99 |")]
    assert "**30.00**" in p99
    assert "| - |" in p99


def test_a_latency_is_better_when_lower(tmp_path: Path) -> None:
    measure(fake_row(FakeSides([1, 3, 3, 3], [1, 1, 1, 1]), higher=False), tmp_path)
    (line,) = [
        line
        for line in (tmp_path / "table.md").read_text().splitlines()
        if line.startswith("| fake |")
    ]
    assert "≤ 2 **not met** | ≤ 5 met | ≤ 20 met" in line


def test_a_figure_may_have_its_own_unit_and_direction(tmp_path: Path) -> None:
    row = replace(
        fake_row(FakeSides([1, 10, 10, 10], [1, 10, 10, 10])),
        targets={VALUE: Target(None, 1, 2), "p99": Target(None, None, 1, "ms", False)},
    )
    measure(row, tmp_path)
    lines = (tmp_path / "table.md").read_text().splitlines()
    (value,) = [line for line in lines if line.startswith("| fake |")]
    (p99,) = [line for line in lines if line.startswith("| fake p99 |")]
    assert value.endswith("| ≥ 1 met | ≥ 2 **not met** |")
    assert "| 30 ms | 10 ms | **3.00** |" in p99
    assert p99.endswith("| - | - | ≤ 1 **not met** |")


def test_a_constant_is_a_reference_that_nothing_runs_for(tmp_path: Path) -> None:
    sides = FakeSides([100, 4, 2, 3], [])
    _, rounds = measure(constant_row(sides), tmp_path)
    assert [side for side, _ in sides.calls] == ["ours"] * 4
    assert [(r["ours"], r["reference"], r["ratio"]) for r in rounds] == [
        *((4, 200, 0.02), (2, 200, 0.01), (3, 200, 0.015))
    ]
    assert {r["reference_is_constant"] for r in rounds} == {True}
    (line,) = [
        line
        for line in (tmp_path / "table.md").read_text().splitlines()
        if line.startswith("| fake p99 |")
    ]
    assert "| 9 ms | 200 ms (constant) | **0.045** | 3 (0.030 to 0.060) |" in line
    assert "≤ 0.1 met | ≤ 0.025 **not met**" in line


def test_a_ratio_of_nothing_is_drawn_too(tmp_path: Path) -> None:
    measure(constant_row(FakeSides([0, 0, 0, 0], [])), tmp_path)
    assert "</svg>" in (tmp_path / "chart.svg").read_text()


def test_a_row_without_reference_and_constant_is_a_mistake(tmp_path: Path) -> None:
    row = replace(constant_row(FakeSides([1, 1], [])), constant=None)
    with pytest.raises(ValueError, match="row fake has neither"):
        measure(row, tmp_path)


def test_a_chart_is_drawn(tmp_path: Path) -> None:
    measure(fake_row(FakeSides([1, 10, 20, 60], [1, 2, 2, 2])), tmp_path)
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (tmp_path / "chart.svg").read_text()


def test_a_row_that_fails_leaves_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def broken(setting: Setting) -> Iterator[Pair]:
        raise BenchmarkError("no broker here: install one")
        yield

    good = FakeSides([1, 10, 20, 60], [1, 2, 2, 2])
    bad = Row("bad", "a.", "b.", "ms", False, {VALUE: Target(None, 1, 1)}, broken)
    code = main(["--rounds", "3", "--out", str(tmp_path)], [bad, fake_row(good)])
    assert code == 1
    table = (tmp_path / "table.md").read_text()
    assert "| bad | not measured: no broker here: install one |" in table
    assert "| fake | 20 msg/s |" in table
    assert "no broker here" in capsys.readouterr().err


def test_rounds_are_kept_when_a_later_one_fails(tmp_path: Path) -> None:
    class Dying(FakeSides):
        def _measure(self, side: str, seconds: float) -> Sample:
            if len(self.calls) == 5:
                raise BenchmarkError("the node is gone")
            return super()._measure(side, seconds)

    sides = Dying([1, 10, 20, 60], [1, 2, 2, 2])
    code, rounds = measure(fake_row(sides), tmp_path)
    assert (code, [r["round"] for r in rounds]) == (1, [1])
    assert not sides.up


def test_rows_are_chosen_by_pattern(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (FakeSides([1, 2], [1, 1]) for _ in range(2))
    rows = [fake_row(one, name="append-x"), fake_row(two, name="sync-x")]
    main(["sync-*", "--rounds", "1", "--out", str(tmp_path)], rows)
    assert (len(one.calls), len(two.calls)) == (0, 4)
    with pytest.raises(SystemExit) as wrong:
        main(["nothing-like-this"], rows)
    assert wrong.value.code == 2
    assert "one of append-x, sync-x" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--seconds", "-1"], ["--rounds", "x"]])
def test_wrong_use_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as wrong:
        main(arguments)
    assert wrong.value.code == 2


def test_every_row_is_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == [row.name for row in ROWS]
    assert len(set(listed)) == len(listed)
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert [name for name in listed if f"`{name}`" not in page] == []
