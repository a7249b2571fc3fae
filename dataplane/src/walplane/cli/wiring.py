"""A standalone cluster as the command runs it. Layer: cli.

Contract: `run_standalone` serves coordinator and node on one port until it is asked to stop, then
drains: appends in flight are answered, logs closed with a checkpoint, calls under way finished.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.registry import Collector

from walplane.backends.interface import Backend
from walplane.cli import failpoints
from walplane.cli.metrics import serving_metrics
from walplane.coord.metrics import CoordCollector
from walplane.embedded.cluster import Cluster, ClusterOptions, drained, start_cluster
from walplane.embedded.directory import only_process
from walplane.node.metrics import NodeCollector
from walplane.runtime import keep_what_is_there


@dataclass(frozen=True)
class StandaloneOptions:
    """What `walplane standalone` was told.

    Attributes:
        data: directory of everything local; made when missing.
        cluster: what is put together.
        metrics: host:port where metrics are served; None: nowhere.
    """

    data: Path
    cluster: ClusterOptions
    metrics: str | None = None


OnReady = Callable[[str, int], None]
"""Told the address for clients and the number of PChannels, once all are served."""


async def run_standalone(
    options: StandaloneOptions, stop: asyncio.Event, on_ready: OnReady
) -> None:
    """Runs a cluster until `stop` is set.

    Raises:
        WalError: it cannot start, can go on no more, or took too long to drain.
    """
    with only_process(options.data):
        async with drained() as taken:
            collectors: list[Collector] = []
            # its port is taken before a log is made: see `start_cluster`
            await taken.enter_async_context(serving_metrics(options.metrics, collectors))
            cluster = await start_cluster(options.cluster, taken, _with_failpoint)
            collectors.append(NodeCollector(cluster.node, cluster.runtime))
            collectors.append(CoordCollector(lambda: cluster.coord))
            taken.callback(collectors.clear)
            await _serve(cluster, stop, on_ready)


def _with_failpoint(backend: Backend) -> Backend:
    return failpoints.with_failpoint(backend, os.environ.get(failpoints.VARIABLE))


async def _serve(cluster: Cluster, stop: asyncio.Event, on_ready: OnReady) -> None:
    """Returns when it is asked to stop."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    ready = asyncio.create_task(cluster.served(), name="served")
    ended = cluster.coord.stopped
    first: set[asyncio.Future[Any]] = {stopping, ready}
    ends: set[asyncio.Future[Any]] = {stopping, ended}
    try:
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            return
        pchannels = ready.result()
        keep_what_is_there()
        on_ready(cluster.address, pchannels)
        await cluster.say_serving()
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise ended.result()
    finally:
        stopping.cancel()
        ready.cancel()
