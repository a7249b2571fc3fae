"""kill -9 of a standalone cluster under four clients: nothing lost, nothing doubled, ticks grow.

`WALPLANE_KILLS` sets how often (3 by default); `python -m devservices.chaos --kills 20` is the same
with a report.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from walplane.testkit.chaos import ChaosPlan, run_chaos
from walplane.testkit.standalone import StandaloneProcess

KILLS = int(os.environ.get("WALPLANE_KILLS", "3"))
ACKS = 10_000


async def survive(data: Path, backend: str) -> None:
    server = StandaloneProcess(data, pchannels=4, backend=backend)
    await server.start()
    try:
        report = await run_chaos(server, ChaosPlan(kills=KILLS, acks_between=ACKS), print)
        assert report.violations == []
        assert report.not_acknowledged == 0, "clients ride through a kill"
        assert len(report.acked_between) == KILLS
        assert min(report.acked_between) >= ACKS
    finally:
        await server.kill()


@pytest.mark.slow
@pytest.mark.timeout(60 + 60 * KILLS)
async def test_kill_on_rocksdb(tmp_path: Path) -> None:
    await survive(tmp_path / "data", "rocksdb")


@pytest.mark.slow
@pytest.mark.pulsar
@pytest.mark.timeout(120 + 60 * KILLS)
async def test_kill_on_pulsar(tmp_path: Path, pulsar_url: str) -> None:
    await survive(tmp_path / "data", pulsar_url)
