"""A standalone cluster under load, hurt: `python -m devservices.chaos --backend rocksdb|pulsar`.

    --kills 20          kill -9, again and again
    --failpoints 3      so often at each named point: idle, mid-append, written-not-acked, mid-open,
                        mid-checkpoint, mid-truncate
    --sigstop 100       SIGSTOP for so many seconds, then SIGCONT
    --restart-backend   the broker is killed and started again (pulsar)

Contract: exit code 0 only if nothing acknowledged was lost, nothing was doubled, ticks strictly
grew and every append was carried through by its client. One run may do several of these, in this
order.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from devservices.pulsar import (
    PrerequisiteMissingError,
    PulsarError,
    PulsarProcess,
    for_tests,
    stop_after_tests,
)
from walplane.cli.logs import LogFormat, LogLevel, configure_logging
from walplane.testkit.chaos import ChaosPlan, ChaosReport, run_chaos
from walplane.testkit.chaos_load import LoadPlan
from walplane.testkit.standalone import StandaloneProcess
from walplane.testkit.strokes import Kill, Restart, Stop, Stroke, at_failpoints


def main(arguments: list[str] | None = None) -> int:
    """Runs it and prints the verdict."""
    parser = argparse.ArgumentParser(prog="python -m devservices.chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--backend", choices=("rocksdb", "pulsar"), default="rocksdb")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--failpoints", type=int, default=0, metavar="TIMES")
    parser.add_argument("--sigstop", type=float, metavar="SECONDS")
    parser.add_argument("--restart-backend", action="store_true")
    parser.add_argument("--acks", type=int, default=10_000, help="between two, at least")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pchannels", type=int, default=4)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args(arguments)
    if options.restart_backend and options.backend != "pulsar":
        parser.error("--restart-backend needs --backend pulsar: the other one is embedded")
    configure_logging(LogLevel.ERROR, LogFormat.TEXT)
    print(f"seed {options.seed}", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="walplane-chaos-") as folder:
            return _verdict(_run(options, Path(folder)))
    except (PrerequisiteMissingError, PulsarError, RuntimeError) as error:
        print(f"chaos failed: {error}")
        return 1


def _run(options: argparse.Namespace, folder: Path) -> ChaosReport:
    strokes: list[Stroke] = [Kill()] * options.kills
    strokes += at_failpoints(options.failpoints, options.seed)
    if options.sigstop is not None:
        strokes.append(Stop(options.sigstop))
    with _backend(options, folder, strokes) as backend:
        plan = ChaosPlan(
            strokes or [Kill()] * 20,
            options.acks,
            load=LoadPlan(options.clients, seed=options.seed),
        )
        return asyncio.run(_play(backend, folder / "data", options.pchannels, plan))


@contextmanager
def _backend(options: argparse.Namespace, folder: Path, strokes: list[Stroke]) -> Iterator[str]:
    """URL of the backend; a broker that is to be hurt is this run's own, else a namespace is."""
    if options.backend == "rocksdb":
        yield "rocksdb"
    elif options.restart_backend:
        broker = PulsarProcess(folder / "pulsar")

        async def restart() -> None:
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)

        strokes.append(Restart("the broker", restart))
        try:
            yield broker.start()
        finally:
            broker.wipe()
    else:
        try:
            url = for_tests()
            mark = "&" if "?" in url else "?"
            yield f"{url}{mark}namespace=public/chaos-{secrets.token_hex(4)}"
        finally:
            stop_after_tests()


async def _play(backend: str, data: Path, pchannels: int, plan: ChaosPlan) -> ChaosReport:
    server = StandaloneProcess(data, pchannels=pchannels, backend=backend)
    try:
        await server.start()
        return await run_chaos(server, plan, lambda line: print(line, flush=True))
    except BaseException:
        print(server.log_tail(), file=sys.stderr)
        raise
    finally:
        await server.kill()


def _verdict(report: ChaosReport) -> int:
    for violation in report.violations[:20]:
        print(f"VIOLATION: {violation}")
    print(
        f"{len(report.recovery_s)} strokes, {report.history.acknowledged:,} acknowledged, "
        f"{report.not_acknowledged:,} not; {len(report.violations)} violations\n"
        f"recovery {_quantiles(report.recovery_s)}\n"
        f"longest gap of a VChannel {_quantiles(report.unavailable_s)}"
    )
    return 1 if report.violations or report.not_acknowledged else 0


def _quantiles(seconds: Sequence[float]) -> str:
    """Nearest rank; of fewer than a hundred, p99 is the worst."""
    ranked = sorted(seconds)
    middle, late = (ranked[math.ceil(len(ranked) * share) - 1] for share in (0.5, 0.99))
    return f"p50 {middle:.2f} s, p99 {late:.2f} s, worst {ranked[-1]:.2f} s"


if __name__ == "__main__":
    sys.exit(main())
