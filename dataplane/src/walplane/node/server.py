"""One gRPC port for any set of services, with health and reflection. Layer: node.

Contract: services are passed in, so that a standalone process serves node and coordinator on one
port. Health says SERVING only after `set_serving`, and of itself from the start. A stop lets
calls under way finish for a grace period, then cancels them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from walplane.rpc.channel import SERVER_OPTIONS
from walplane.rpc.errors import ErrorCode, WalError

AddToServer = Callable[[grpc.aio.Server], None]


class RpcPort:
    """A port that is taken, and served later or never; use `take_port`.

    Who connects meanwhile waits.

    Attributes:
        host: as given.
        port: the port it is, also when 0 was asked for.
    """

    def __init__(self, server: grpc.aio.Server, host: str, port: int) -> None:
        """Wraps a server that has this port and is not started."""
        self._server = server
        self._served = False
        self._starting: asyncio.Task[None] | None = None
        self.host = host
        self.port = port

    async def serve(self, services: Mapping[str, AddToServer]) -> RpcServer:
        """Serves {full name: add to server} from now on; the server gives the port back.

        When this is cancelled, or fails, `close` gives it back.
        """
        checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, self._server)
        for add in services.values():
            add(self._server)
        names = [*services, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server)
        await self._start()
        started = RpcServer(self._server, checks, self.host, self.port)
        await asyncio.gather(*(started.set_serving(name, False) for name in ["", *services]))
        await started.set_serving(health.SERVICE_NAME, True)  # to answer is to be alive
        self._served = True
        return started

    async def close(self) -> None:
        """Gives the port back, unless it was ever served. Idempotent."""
        if not self._served:
            self._served = True
            await self._start()  # one that never started keeps its port when it stops
            await self._server.stop(None)

    async def _start(self) -> None:
        """Starts the server, once; cancelling it does not take it back: grpc's would never end."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._server.start(), name=f"serve-{self.port}")
        await asyncio.shield(self._starting)


class RpcServer:
    """A listening server; use `start_server`.

    Attributes:
        host: as given.
        port: the port it listens on, also when 0 was asked for.
    """

    def __init__(
        self, server: grpc.aio.Server, checks: health.aio.HealthServicer, host: str, port: int
    ) -> None:
        """Wraps a started server."""
        self._server = server
        self._checks = checks
        self.host = host
        self.port = port

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    async def set_serving(self, service: str, serving: bool) -> None:
        """Sets what health says of `service`; the empty name stands for the whole server."""
        status = health_pb2.HealthCheckResponse
        await self._checks.set(service, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, lets those under way finish for `grace_s` seconds. Idempotent."""
        await self._checks.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    async def wait(self) -> None:
        """Returns once the server has stopped."""
        await self._server.wait_for_termination()


async def start_server(
    listen: str, services: Mapping[str, AddToServer], options: Sequence[tuple[str, int]] = ()
) -> RpcServer:
    """Listens on `listen` (host:port; port 0 = any free one) with {full name: add to server}.

    Args:
        listen: where.
        services: what, by full name.
        options: of gRPC, beside those that all servers have.

    Raises:
        WalError: INVALID_ARGUMENT when it cannot listen there.
    """
    port = take_port(listen, options)
    try:
        return await port.serve(services)
    except BaseException:
        await port.close()
        raise


def take_port(listen: str, options: Sequence[tuple[str, int]] = ()) -> RpcPort:
    """Takes `listen` (host:port; port 0 = any free one), for services that are not there yet.

    Args:
        listen: where.
        options: of gRPC, beside those that all servers have.

    Raises:
        WalError: INVALID_ARGUMENT when it cannot listen there.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise WalError(ErrorCode.INVALID_ARGUMENT, f"{listen!r} is no address: expected HOST:PORT")
    server = grpc.aio.server(options=[*SERVER_OPTIONS, *options])
    try:
        bound = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise _cannot_listen(listen) from error
    if bound == 0:
        raise _cannot_listen(listen)
    return RpcPort(server, host, bound)


def _cannot_listen(listen: str) -> WalError:
    return WalError(
        ErrorCode.INVALID_ARGUMENT,
        f"cannot listen on {listen}: another process has that port, or the host is not this "
        "machine's; choose another address",
    )
