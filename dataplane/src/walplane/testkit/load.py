"""A load in a pod of its own: `python -m walplane.testkit.load HOST:PORT COLLECTION DIRECTORY`.

Contract: appends to a new collection until the file `stop` lies in the directory; then reads
everything back and judges it. `state.json` there is replaced five times a second, so that a test
can look without a connection that must last; with `done` in it, it is the last one. A file `mark`
there is taken away, and gaps are counted from then on. Layer: testkit; for tests only.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from walplane.testkit.pod_load import Gap, PodLoad
from walplane.testkit.state_file import write_state

_STEP_S = 0.2
_ERRORS_TOLD = 10
_GAPS_TOLD = 3


async def run(address: str, collection: str, shards: int, directory: Path) -> int:
    """Appends until told to stop; returns 0 when nothing was lost, doubled or out of order."""
    stop, mark, since = directory / "stop", directory / "mark", 0.0
    async with PodLoad.running(address, shards, collection) as load:
        while not await asyncio.to_thread(stop.exists):
            if await asyncio.to_thread(mark.exists):
                since = time.monotonic()
                await asyncio.to_thread(mark.unlink)
            await asyncio.to_thread(write_state, directory, _state(load, since))
            await asyncio.sleep(_STEP_S)
    violations = await load.verdict()
    last = {**_state(load, since), "done": True, "violations": violations}
    await asyncio.to_thread(write_state, directory, last)
    return 1 if violations else 0


def _state(load: PodLoad, since: float) -> dict[str, Any]:
    return {
        "done": False,
        "acknowledged": load.acknowledged,
        "least": min(map(len, load.acknowledged_at.values()), default=0),
        "longest_gap": round(load.longest_gap(since), 3),
        "gaps": [_told(gap) for gap in load.gaps(since)[:_GAPS_TOLD]],
        "errors": [str(error) for error in load.errors[:_ERRORS_TOLD]],
    }


def _told(gap: Gap) -> str:
    """A gap with the time of day at which it ended, to be looked up in the logs of the pods."""
    ended = datetime.now(UTC) - timedelta(seconds=time.monotonic() - gap.ended)
    return f"{gap.vchannel} {gap.seconds:.2f} s until {ended:%H:%M:%S.%f}"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m walplane.testkit.load")
    parser.add_argument("address", help="host:port of the cluster")
    parser.add_argument("collection", help="made by the load")
    parser.add_argument("directory", type=Path, help="of state.json and stop")
    parser.add_argument("--shards", type=int, default=8, help="default: %(default)s")
    given = parser.parse_args(arguments)
    given.directory.mkdir(parents=True, exist_ok=True)
    return asyncio.run(run(given.address, given.collection, given.shards, given.directory))


if __name__ == "__main__":
    sys.exit(main())
