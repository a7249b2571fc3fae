"""Some seeds of the simulation at every run of the suite; `make sim` runs thousands."""

from __future__ import annotations

import pytest

from walplane.testkit.history import Attempt, Delivered, Reading
from walplane.testkit.sim.judge import simulate, undisturbed
from walplane.testkit.sim.process import Process
from walplane.testkit.sim.reads import Reads
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


def test_what_is_read_from_an_id_is_judged_and_in_the_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lie(self: Reads, _process: Process, asked: Attempt, *, after: bool) -> None:
        assert asked.message_id is not None
        told = Delivered(asked.vchannel, b"from nobody", asked.message_id, asked.time_tick)
        reading = Reading(f"from {after}", asked.vchannel, complete=False, messages=[told])
        self._work.history.placed.append(reading)

    async def say_nothing(_self: Reads, _process: Process, _asked: Attempt, *, after: bool) -> None:
        pass

    with undisturbed():
        monkeypatch.setattr(Reads, "_from_id", say_nothing)
        silent = simulate(1)
        monkeypatch.setattr(Reads, "_from_id", lie)
        lied = simulate(1)
    assert silent.violations == []
    assert "which nobody appended" in lied.violations[0]
    assert silent.digest != lied.digest


def test_a_seed_replays_exactly() -> None:
    with undisturbed():
        first, other, again = simulate(7), simulate(8), simulate(7)
    assert first == again
    assert first.digest != other.digest
