"""Some seeds of the simulation at every run of the suite; `make sim` runs thousands."""

from __future__ import annotations

import pytest

from walplane.testkit.sim.judge import simulate, undisturbed
from walplane.testkit.sim.scenario import OPERATIONS

CHUNKS = [range(first, first + 10) for first in range(0, 50, 10)]


@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_no_invariant_is_violated_whatever_happens(seeds: range) -> None:
    happened: dict[str, int] = {}
    with undisturbed():
        for seed in seeds:
            verdict = simulate(seed)
            assert verdict.violations == [], f"python -m devservices.sim --seed {seed} --trace"
            assert verdict.operations >= OPERATIONS
            for what, count in verdict.counts.items():
                happened[what] = happened.get(what, 0) + count
    for what in ("kill", "pause", "move", "outage", "cut", "flaky", "log cut off"):
        assert happened[what] > 0


def test_a_seed_replays_exactly() -> None:
    with undisturbed():
        first, other, again = simulate(7), simulate(8), simulate(7)
    assert first == again
    assert first.digest != other.digest
