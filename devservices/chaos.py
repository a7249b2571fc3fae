"""kill -9 under load: `python -m devservices.chaos --kills 20 --backend rocksdb|pulsar`.

Contract: exit code 0 only if nothing acknowledged was lost, nothing was doubled, ticks strictly
grew and every append was carried through by its client.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path

from devservices.pulsar import PrerequisiteMissingError, PulsarError, for_tests, stop_after_tests
from walplane.cli.logs import LogFormat, LogLevel, configure_logging
from walplane.testkit.chaos import ChaosPlan, ChaosReport, run_chaos
from walplane.testkit.standalone import StandaloneProcess


def main(arguments: list[str] | None = None) -> int:
    """Runs it and prints the verdict."""
    parser = argparse.ArgumentParser(
        prog="python -m devservices.chaos", description="kill -9 of a standalone cluster under load"
    )
    parser.add_argument("--backend", choices=("rocksdb", "pulsar"), default="rocksdb")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--acks", type=int, default=10_000, help="between two kills, at least")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pchannels", type=int, default=4)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args(arguments)
    configure_logging(LogLevel.ERROR, LogFormat.TEXT)
    plan = ChaosPlan(options.kills, options.acks, options.clients, seed=options.seed)
    print(f"seed {options.seed}", flush=True)
    try:
        backend = _pulsar() if options.backend == "pulsar" else "rocksdb"
        report = asyncio.run(_run(backend, options.pchannels, plan))
    except (PrerequisiteMissingError, PulsarError, RuntimeError) as error:
        print(f"chaos failed: {error}")
        return 1
    finally:
        if options.backend == "pulsar":
            stop_after_tests()
    return _verdict(report)


def _pulsar() -> str:
    """URL of a broker, with a namespace of this run's own."""
    url = for_tests()
    return f"{url}{'&' if '?' in url else '?'}namespace=public/chaos-{secrets.token_hex(4)}"


async def _run(backend: str, pchannels: int, plan: ChaosPlan) -> ChaosReport:
    with tempfile.TemporaryDirectory(prefix="walplane-chaos-") as folder:
        server = StandaloneProcess(Path(folder) / "data", pchannels=pchannels, backend=backend)
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
    recovery = report.recovery_s or [0.0]
    print(
        f"{len(report.recovery_s)} kills, {report.history.acknowledged:,} acknowledged, "
        f"{report.not_acknowledged:,} not; recovery median {statistics.median(recovery):.2f} s, "
        f"worst {max(recovery):.2f} s; {len(report.violations)} violations"
    )
    return 1 if report.violations or report.not_acknowledged else 0


if __name__ == "__main__":
    sys.exit(main())
