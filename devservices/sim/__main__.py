"""`python -m devservices.sim`: many seeds, one seed with its log, or the mutations.

    --seeds N [--from K] [--jobs J]   N seeds from K on; progress, then a line a failure
    --seed S [--trace]                one seed: its plan, its verdict, its log
    --mutations                       a table of what was switched off and which seed caught it

Contract: what fails is printed with the command that repeats it, and the exit code is 1. A seed
gives the same run on every machine: hashes of strings are fixed before anything starts.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import NoReturn

from walplane.testkit.sim.judge import Verdict, simulate, simulate_plan, undisturbed
from walplane.testkit.sim.mutations import MUTATIONS, hunt
from walplane.testkit.sim.scenario import plan_of
from walplane.testkit.sim.store_mutations import STORE_MUTATIONS
from walplane.testkit.sim.user_mutations import USER_MUTATIONS

_CHUNK = 20
_FORK = get_context("fork")
_PROGRESS_S = 10.0


def main(arguments: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m devservices.sim", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seeds", type=int, help="how many")
    what.add_argument("--seed", type=int, help="this one alone")
    what.add_argument("--mutations", action="store_true", help="switch safeguards off")
    parser.add_argument("--from", type=int, default=0, dest="first", help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="default: all cores")
    parser.add_argument("--trace", action="store_true", help="with --seed: the log of the run")
    given = parser.parse_args(arguments)
    if given.mutations:
        return run_mutations()
    if given.seed is not None:
        return run_one(given.seed, trace=given.trace)
    return run_many(range(given.first, given.first + given.seeds), given.jobs)


def run_one(seed: int, *, trace: bool) -> int:
    """One seed in detail."""
    plan = plan_of(seed)
    print(plan)
    with undisturbed(print if trace else None):
        verdict = simulate_plan(plan, print if trace else None)
    print(
        f"{verdict.operations} operations in {verdict.virtual_s:.1f} virtual seconds, "
        f"{verdict.steps} steps, digest {verdict.digest}"
    )
    _tell(verdict)
    print("no violation" if not verdict.violations else "VIOLATED")
    return 1 if verdict.violations else 0


def run_many(seeds: range, jobs: int) -> int:
    """Many seeds over `jobs` processes."""
    began = told = time.monotonic()
    counts: Counter[str] = Counter()
    operations: list[int] = []
    failed: list[int] = []
    for verdict in _verdicts(seeds, jobs):
        operations.append(verdict.operations)
        counts.update(verdict.counts)
        if verdict.violations:
            failed.append(verdict.seed)
            _tell(verdict)
        now = time.monotonic()
        if now - told > _PROGRESS_S:
            told = now
            rate = len(operations) / (now - began)
            print(f"{len(operations)}/{len(seeds)} seeds, {rate:.1f}/s", flush=True)
    seconds = time.monotonic() - began
    happened = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    print(f"happened: {happened}")
    print(
        f"{len(operations)} seeds in {seconds:.0f} s ({len(operations) / seconds:.1f}/s), "
        f"{min(operations)} to {max(operations)} operations a seed, "
        f"{sum(operations)} in all; {len(failed)} with a violation {failed or ''}"
    )
    return 1 if failed else 0


def run_mutations() -> int:
    """Every mutation; the exit code tells whether one got away."""
    print(f"{'switched off':38} {'seeds':>7} {'within':>7}  first violation")
    missed = 0
    with undisturbed() as free:
        for mutation in (*MUTATIONS, *STORE_MUTATIONS, *USER_MUTATIONS):
            caught = hunt(mutation, free)
            free()
            missed += caught.verdict is None
            what = "NOT CAUGHT" if caught.verdict is None else caught.verdict.violations[0]
            print(
                f"{mutation.name:38} {caught.seeds:7} {mutation.within:7}  {what[:150]}", flush=True
            )
    return 1 if missed else 0


def _verdicts(seeds: range, jobs: int) -> Iterator[Verdict]:
    chunks = [seeds[at : at + _CHUNK] for at in range(0, len(seeds), _CHUNK)]
    if jobs == 1:
        for chunk in chunks:
            yield from _run_chunk(chunk)
        return
    with ProcessPoolExecutor(jobs, _FORK) as pool:
        for verdicts in pool.map(_run_chunk, chunks):
            yield from verdicts


def _run_chunk(seeds: range) -> list[Verdict]:
    """Some seeds in a process of their own: to collect their garbage would cost a tenth more.

    Raises:
        EOFError: that process died.
    """
    verdicts, there = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_run_apart, args=(seeds, there))
    process.start()
    there.close()
    try:
        found: list[Verdict] = verdicts.recv()
    finally:
        process.join()
    return found


def _run_apart(seeds: range, verdicts: Connection) -> NoReturn:
    with undisturbed():
        verdicts.send([simulate(seed) for seed in seeds])
        os._exit(0)  # before anything is collected


def _tell(verdict: Verdict) -> None:
    for violation in verdict.violations:
        print(f"seed {verdict.seed}: {violation}")
    if verdict.violations:
        print(f"repeat: python -m devservices.sim --seed {verdict.seed} --trace", flush=True)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(  # noqa: S606 - this very program
            sys.executable, [sys.executable, "-m", "devservices.sim", *sys.argv[1:]]
        )
    sys.exit(main(sys.argv[1:]))
