"""kill -9 of a standalone cluster under four clients: nothing lost, nothing doubled, ticks grow.

`WALPLANE_KILLS` sets how often (3 by default); `python -m devservices.chaos --kills 20` is the same
with a report.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from walplane.testkit.chaos import ChaosPlan, run_chaos
from walplane.testkit.standalone import StandaloneProcess
from walplane.testkit.strokes import Kill, Stroke, at_failpoints

KILLS = int(os.environ.get("WALPLANE_KILLS", "3"))
ACKS = 10_000


async def survive(data: Path, backend: str, strokes: Sequence[Stroke], acks: int = ACKS) -> None:
    server = StandaloneProcess(data, pchannels=4, backend=backend)
    await server.start()
    try:
        report = await run_chaos(server, ChaosPlan(strokes, acks), print)
        assert report.violations == []
        assert report.not_acknowledged == 0, "clients ride through a kill"
        assert len(report.acked_between) == len(strokes)
        assert min(report.acked_between) >= acks
    finally:
        await server.kill()


@pytest.mark.slow
@pytest.mark.timeout(60 + 60 * KILLS)
async def test_kill_on_rocksdb(tmp_path: Path) -> None:
    await survive(tmp_path / "data", "rocksdb", [Kill()] * KILLS)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_kill_at_each_named_point_on_rocksdb(tmp_path: Path) -> None:
    await survive(tmp_path / "data", "rocksdb", at_failpoints(1, seed=1), acks=500)


@pytest.mark.slow
@pytest.mark.pulsar
@pytest.mark.timeout(120 + 60 * KILLS)
async def test_kill_on_pulsar(tmp_path: Path, pulsar_url: str) -> None:
    await survive(tmp_path / "data", pulsar_url, [Kill()] * KILLS)
