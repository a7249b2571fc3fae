"""The verdict on one seed. Layer: testkit.

Contract: the verdict, and a digest of all that was seen, are functions of the seed and the code.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import structlog

from walplane.backends.interface import Record
from walplane.channel import carrier_of, is_pchannel, meta_topic, pchannel_of
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit import log_checks
from walplane.testkit.broadcast_checks import check_broadcasts, check_told
from walplane.testkit.history import Delivered, History, Outcome, Reading
from walplane.testkit.history import check as check_history
from walplane.testkit.log_view import LogView
from walplane.testkit.replay_checks import check_replay
from walplane.testkit.sim.cuts import records_of
from walplane.testkit.sim.disk import Topic
from walplane.testkit.sim.loop import SimLoop, SimulationError
from walplane.testkit.sim.process import PROCESS
from walplane.testkit.sim.run import Run
from walplane.testkit.sim.scenario import Plan, plan_of
from walplane.testkit.store_checks import Expected, check_store
from walplane.ticks import TICKS_PER_S
from walplane.wal.recovery.segments.table import SegmentTable

_MOST_TOLD = 12


@dataclass
class Verdict:
    """What came of one seed.

    Attributes:
        seed: which.
        violations: of invariants; empty is good.
        operations: how many there were.
        digest: of everything that was seen.
        virtual_s: how long it took in its own time.
        steps: callbacks that ran.
        counts: how often what happened.
    """

    seed: int
    violations: list[str] = field(default_factory=list)
    operations: int = 0
    digest: str = ""
    virtual_s: float = 0.0
    steps: int = 0
    counts: dict[str, int] = field(default_factory=dict)


def simulate(seed: int) -> Verdict:
    """Runs a seed and judges it; inside of `undisturbed`."""
    return simulate_plan(plan_of(seed))


def simulate_plan(plan: Plan, tell: Callable[[str], None] | None = None) -> Verdict:
    """Runs a plan and judges it, inside of `undisturbed`; `tell` hears of every step."""
    verdict = Verdict(plan.seed)
    loop = SimLoop(plan.seed)
    run: list[Run] = []

    async def main() -> None:
        run.append(Run(plan, loop, tell))
        await run[0].play()

    try:
        loop.run(main())
    except SimulationError as error:
        verdict.violations.append(f"I15 the simulation stopped: {error}")
    except Exception as error:
        verdict.violations.append(f"crash: {error!r}")
    verdict.virtual_s, verdict.steps = loop.time(), loop.steps
    verdict.violations += [f"crash: {what}: {error!r}" for what, error in loop.failures]
    if run:
        _judge(run[0], verdict)
    loop.close()
    return verdict


def _judge(run: Run, verdict: Verdict) -> None:
    found = [*run.late, *run.work.unexpected]
    found += damage_without_cause(run)
    found += run.cluster.broker.trespasses
    found += run.cluster.cuts.violations
    found += run.flushes.failures()
    found += run.budgets.violations
    found += stale_grants_served(run)
    logs = [_log(run, pchannel) for pchannel in run.cluster.pchannels]
    for log in logs:
        found += _judge_log(run, log)
    leader = run.cluster.leader()
    if leader is not None and not leader.catalog.tasks and not run.late:
        there = [each.collection_id for each in leader.catalog.collections()]
        found += check_broadcasts(logs, there)
    found += check_told(logs, run.changes.told)
    found += check_history(_of_vchannels(run, logs))
    verdict.violations += found[:_MOST_TOLD]
    verdict.operations = run.work.operations
    verdict.counts = dict(run.cluster.trace.counts)
    if run.cluster.store is not None:
        verdict.counts["log cut off"] = len(run.cluster.cuts.made)
        verdict.counts["object stored"] = len(run.cluster.store.data)
        verdict.counts["object deleted"] = len(run.cluster.cuts.deleted)
    verdict.digest = _digest(run, verdict)


def damage_without_cause(run: Run) -> list[str]:
    """What nodes reported of their logs: bad storage makes them unreadable, and never shorter."""
    excused = {ErrorCode.UNRECOVERABLE} if run.cluster.broker.damaged else set()
    return [f"damage: {what}" for code, what in run.cluster.leases.damage if code not in excused]


def _log(run: Run, pchannel: str) -> LogView:
    topic = run.cluster.disk.topics.get(pchannel) or Topic(pchannel)
    return LogView.of(pchannel, "sim", records_of(topic))


def _judge_log(run: Run, log: LogView) -> list[str]:
    history, pchannel = run.history, log.pchannel
    mine = [each for each in history.attempts if carrier_of(each.vchannel) == pchannel]
    found = log_checks.check_log(log) + log_checks.check_by_audit(log)
    found += log_checks.check_attempts(log, mine)
    found += log_checks.check_read_ticks(history, pchannel)
    acknowledged = {
        attempt.payload for attempt in history.attempts if attempt.outcome is Outcome.ACKNOWLEDGED
    }
    for reading in history.readings:
        if reading.vchannel == pchannel:
            found += log_checks.check_reading(reading, log, "", acknowledged)
        elif not is_pchannel(reading.vchannel) and pchannel_of(reading.vchannel) == pchannel:
            found += log_checks.check_reading(reading, log, reading.vchannel, acknowledged)
    meta = meta_topic(pchannel)
    if meta in run.cluster.disk.topics:
        records = records_of(run.cluster.disk.topics[meta])
        found += log_checks.check_checkpoints(log, meta, records)
        found += check_replay(log, meta, records, run.plan.shape.wal)
        found += _judge_store(run, log, records)
    return found


def _judge_store(run: Run, log: LogView, meta: Sequence[Record]) -> Iterator[str]:
    """What was stored of one log, and what was cut off."""
    cluster, store = run.cluster, run.cluster.store
    if store is None:
        return
    cuts = [
        (cut.sequence, cut.objects) for cut in cluster.cuts.made if cut.pchannel == log.pchannel
    ]
    saved = list(log_checks.snapshots(meta_topic(log.pchannel), meta))[-1:]
    parts = saved[0][SegmentTable.component] if saved else []
    flushed = {} if cluster.broker.damaged or run.late else run.flushes.ticks
    wait = int(run.plan.shape.wal.retention_s * TICKS_PER_S)
    deleted = [
        (each.path, min(each.checkpoint - wait, each.position))
        for each in cluster.cuts.deleted
        if each.path.startswith(f"{log.pchannel}/")
    ]
    yield from check_store(log, store.data, Expected(cuts, parts, flushed, deleted))


def stale_grants_served(run: Run) -> Iterator[str]:
    """Rules §1: a term that was stale before its open began must never come to serve."""
    for opened in run.cluster.trace.opens:
        for grant in run.cluster.leases.grants:
            newer = grant.pchannel == opened.pchannel and grant.term > opened.term
            if newer and grant.at < opened.began:
                yield (
                    f"§1 {opened.node} serves {opened.pchannel} under term {opened.term} since an "
                    f"open begun at {opened.began:.3f}; term {grant.term} was granted at "
                    f"{grant.at:.3f}"
                )
                break


def _of_vchannels(run: Run, logs: Sequence[LogView]) -> History:
    """Readings of whole PChannels, and of what a cut left, are judged against the log only.

    The others must fit into one, which is the log itself where it was cut off.
    """
    history, cut = run.history, {each.pchannel for each in run.cluster.cuts.made}
    readings = [
        each for each in history.readings if not is_pchannel(each.vchannel) and not each.floor
    ]
    for log in logs if cut else ():
        for vchannel in sorted({each.vchannel for each in log.messages()}):
            messages = [Delivered(*each) for each in log.messages(vchannel)]
            readings.append(Reading(f"log {log.pchannel}", vchannel, True, messages))
    return History(history.attempts, readings, history.placed, txns=history.txns)


def _digest(run: Run, verdict: Verdict) -> str:
    told = [
        (
            each.client,
            each.payload,
            each.outcome.value,
            tuple(each.message_id or ()),
            each.time_tick,
        )
        for each in run.history.attempts
    ]
    read = [
        (
            each.reader,
            each.marks,
            [(*message.message_id, message.time_tick) for message in each.messages],
        )
        for each in [*run.history.readings, *run.history.placed]
    ]
    seen = hashlib.sha256(repr((told, read)).encode())
    for name in sorted(run.cluster.disk.topics):
        topic = run.cluster.disk.topics[name]
        for data in [*topic.gone, *topic.records]:
            seen.update(data)
    if run.cluster.store is not None:
        seen.update(repr([*run.cluster.store.data]).encode())
    seen.update(repr((verdict.virtual_s, verdict.steps, verdict.counts)).encode())
    return seen.hexdigest()


def _free() -> None:
    for _ in range(2):  # what a finalizer wakes is garbage a second time
        gc.collect()


def _note_crash(
    _logger: object, _level: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """What the product survives and only logs is a mistake in it all the same."""
    error = event.get("exc_info")
    error = sys.exc_info()[1] if error is True else error
    loop = asyncio.get_running_loop()
    if error is not None and not isinstance(error, WalError) and isinstance(loop, SimLoop):
        loop.failures.append((str(event["event"]), error))
    return event


def _line(
    tell: Callable[[str], None], _logger: object, level: str, event: MutableMapping[str, Any]
) -> NoReturn:
    what = event.pop("event")
    rest = " ".join(f"{key}={value}" for key, value in event.items())
    tell(f"{stamp()}  {level} {what} {rest}")
    raise structlog.DropEvent


def stamp() -> str:
    """Virtual time and process, for a line of the log."""
    process = PROCESS.get()
    now = asyncio.get_running_loop().time()
    return f"{now:9.4f} {process.name if process else 'world':8}"


@contextmanager
def undisturbed(tell: Callable[[str], None] | None = None) -> Iterator[Callable[[], None]]:
    """Around any number of runs: no log lines unless somebody listens, no garbage collection.

    Finalizers of what a kill left in the middle must not run during a run. Yields what frees it
    between two runs; what it says while it goes means nothing.
    """
    config, hook, collecting = structlog.get_config(), sys.unraisablehook, gc.isenabled()
    level = logging.ERROR if tell is None else logging.DEBUG
    structlog.configure(
        processors=[_note_crash, partial(_line, tell or (lambda _: None))],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    gc.disable()
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            yield _free
            _free()
    finally:
        sys.unraisablehook = hook
        if collecting:
            gc.enable()
        structlog.configure(**config)
