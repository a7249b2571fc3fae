"""Serves metrics over HTTP, for Prometheus. Layer: cli.

Contract: the library's server answers on a thread of its own; what it shows is collected on the
event loop, which alone may look at the parts of a cluster. A loop that does not answer in time is
shown as no metrics, not as an error.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from walplane.rpc.errors import ErrorCode, WalError

_log = structlog.get_logger(__name__)

_TIMEOUT_S = 5.0


@asynccontextmanager
async def serving_metrics(
    listen: str | None, collectors: Sequence[Collector]
) -> AsyncIterator[int | None]:
    """Serves `collectors` and what the process itself uses; yields the port, None for no `listen`.

    Args:
        listen: host:port; None: nowhere.
        collectors: looked at anew by every scrape, so more may come and go.

    Raises:
        WalError: INVALID_ARGUMENT when it cannot listen there.
    """
    if listen is None:
        yield None
        return
    registry = CollectorRegistry()
    registry.register(_OnLoop(collectors))
    for kind in (ProcessCollector, PlatformCollector, GCCollector):
        kind(registry=registry)
    host, _, port = listen.rpartition(":")
    try:
        server, thread = start_http_server(int(port), _addresses(host), registry)
    except OSError as error:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"cannot serve metrics on {listen}: {error.strerror}; choose another address",
        ) from error
    _log.info("metrics", address=f"http://{host}:{server.server_port}/metrics")
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join(0)


def _addresses(host: str) -> str:
    """0.0.0.0 as gRPC means it, of both families, where one socket can have both."""
    if host != "0.0.0.0":  # noqa: S104 - compared, not listened on
        return host.strip("[]")
    try:
        with socket.socket(socket.AF_INET6) as probe:
            only = probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        return host  # a kernel without IPv6
    return host if only else "::"


class _OnLoop(Collector):
    def __init__(self, collectors: Sequence[Collector]) -> None:
        self._collectors = collectors
        self._loop = asyncio.get_running_loop()

    def collect(self) -> list[Metric]:
        try:
            return asyncio.run_coroutine_threadsafe(self._all(), self._loop).result(_TIMEOUT_S)
        except TimeoutError:
            _log.warning("no metrics: the event loop is busy", seconds=_TIMEOUT_S)
            return []

    def describe(self) -> list[Metric]:
        """Nothing: names are known when it is asked."""
        return []

    async def _all(self) -> list[Metric]:
        return [metric for each in self._collectors for metric in each.collect()]
