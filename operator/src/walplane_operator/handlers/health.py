"""Health and metrics over HTTP. Layer: handlers.

Contract: `/healthz` answers 503 when a watch or the leader's loop has died, so that the kubelet
starts the process anew; an API server that is away is no such reason. `/readyz` answers once the
process leads or waits to lead. `/metrics` is Prometheus text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import generate_latest

from walplane_operator.handlers.metrics import Metrics


@asynccontextmanager
async def serve(listen: str, sick: Callable[[], str], metrics: Metrics) -> AsyncIterator[int]:
    """Serves on `listen` (host:port); gives the port.

    Args:
        listen: where; port 0 takes a free one, no host every address of both families.
        sick: what has died; empty when all is well.
        metrics: to be told.
    """

    async def health(_request: web.Request) -> web.Response:
        what = sick()
        return web.Response(status=503 if what else 200, text=f"{what or 'ok'}\n")

    async def told(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), content_type="text/plain")

    application = web.Application()
    application.router.add_get("/healthz", health)
    application.router.add_get("/readyz", health)
    application.router.add_get("/metrics", told)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        host, _, port = listen.rpartition(":")
        site = web.TCPSite(runner, host or None, int(port))
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
