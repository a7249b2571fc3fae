"""What the load programs share: payloads, warm-up, figures."""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

WARM_UP_S = 0.7
"""Each load runs this long unmeasured first: connections, caches, code paths."""
_DISTINCT = 1024
_SEED = 20_011


def payloads(size: int) -> list[bytes]:
    """Distinct payloads of `size` bytes that do not compress, the same in every process."""
    source = random.Random(_SEED)  # noqa: S311 - data, not secrets
    return [source.randbytes(size) for _ in range(_DISTINCT)]


def peer_options() -> argparse.Namespace:
    """What the load programs of other systems are told: port, size, seconds, concurrency."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    return parser.parse_args()


def rate(count: int, elapsed: float, size: int) -> dict[str, float]:
    """Figures of a throughput load; the main one is messages a second."""
    return {"value": count / elapsed, "MB_per_s": count * size / elapsed / 1e6, "messages": count}


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """Figures of single operations, in milliseconds; the main one is p50."""
    ordered = sorted(seconds)
    p50, p99 = (ordered[int(share * len(ordered))] * 1e3 for share in (0.50, 0.99))
    return {"value": p50, "p50": p50, "p99": p99, "max": ordered[-1] * 1e3, "count": len(ordered)}


def appends(seconds: Sequence[float], elapsed: float, size: int) -> dict[str, float]:
    """Figures of single appends, one or several at a time; the main one is messages a second."""
    return {**latency(seconds), **rate(len(seconds), elapsed, size)}


def cpu_s(pid: int) -> float:
    """Processor seconds that a process has used; 0 where /proc does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(figures: dict[str, float]) -> None:
    """Prints the figures, with the processor time of this program and its ended children."""
    spent = os.times()
    client_cpu_s = sum((spent.user, spent.system, spent.children_user, spent.children_system))
    print(json.dumps({**figures, "client_cpu_s": client_cpu_s}), flush=True)
