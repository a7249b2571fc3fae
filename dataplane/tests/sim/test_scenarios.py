"""Scenario files: what happens to a log, and what its readers see of it.

`WALPLANE_REWRITE=1` writes into the files what came of them; the difference is then for a reviewer.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from walplane.testkit.scenarios.play import play
from walplane.testkit.scenarios.text import parse, render
from walplane.testkit.sim.mutations import MUTATIONS

FILES = sorted((Path(__file__).parents[1] / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_readers_see_what_the_scenario_says(path: Path) -> None:
    before = path.read_text()
    after = render(play(parse(before)))
    if os.environ.get("WALPLANE_REWRITE"):
        path.write_text(after)
    else:
        assert after == before, f"WALPLANE_REWRITE=1 writes {path.name} anew"


@pytest.mark.parametrize(
    ("scenario", "safeguard"),
    [
        ("last_confirmed", "LastConfirmed's condition (a)"),
        ("reordering", "watermark below the unsettled"),
        ("reopen", "self-reopen after an unknown outcome"),
        ("ticks", "barrier replay"),
    ],
)
def test_scenarios_show_a_safeguard_that_is_off(scenario: str, safeguard: str) -> None:
    [mutation] = [each for each in MUTATIONS if each.name == safeguard]
    [path] = [each for each in FILES if each.stem == scenario]
    with mutation.off():
        assert render(play(parse(path.read_text()))) != path.read_text()


def test_a_scenario_that_comes_out_differently_is_noticed() -> None:
    [opened, *_] = played = play(parse("open n1 term=1\n----\nn1: something else\n"))
    assert opened.came != ["n1: something else"]
    assert parse(render(played)) == played


def test_a_command_without_a_rule_is_no_scenario() -> None:
    with pytest.raises(ValueError, match="has no ----"):
        parse("open n1 term=1\n")


def test_an_unknown_word_is_no_scenario() -> None:
    with pytest.raises(ValueError, match="nobody knows how to 'sing'"):
        play(parse("sing\n----\n"))
