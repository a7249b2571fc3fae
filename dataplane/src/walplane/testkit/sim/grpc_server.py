"""The server's half of gRPC over the simulated network: runs the product's own handlers.

Contract: a handler sees requests in order, and is cancelled when its client cancels or is gone. A
handler that raises anything but an abort has crashed: that is a finding, noted with the loop.
Layer: testkit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import grpc

from walplane.testkit.sim.network import Network, Pipe
from walplane.testkit.sim.process import Process


class Ended(NamedTuple):
    """The status that ends a call."""

    code: grpc.StatusCode
    details: str = ""
    trailing: Sequence[tuple[str, Any]] = ()


_OK = Ended(grpc.StatusCode.OK)
_UNIMPLEMENTED = Ended(grpc.StatusCode.UNIMPLEMENTED, "no such method")


class AbortedError(Exception):
    """A handler ended its call with a status."""

    def __init__(self, status: Ended) -> None:
        """Carries the status."""
        super().__init__(status.details)
        self.status = status


class SimServer:
    """Takes handlers as `grpc.aio.Server` does."""

    def __init__(self, network: Network) -> None:
        """Serves nothing yet."""
        self.network = network
        self._handlers: dict[str, Any] = {}

    def add_registered_method_handlers(self, service: str, methods: Mapping[str, Any]) -> None:
        """Takes the methods of one service."""
        for name, handler in methods.items():
            self._handlers[f"/{service}/{name}"] = handler

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Generated code gives the same methods twice; the registered ones count."""

    def handler(self, method: str) -> Any:  # noqa: ANN401 - grpcio types it no better
        """The handler of `/service/method`; None when there is none."""
        return self._handlers.get(method)

    async def answer(self, method: str, data: bytes) -> bytes | Ended:
        """Runs a unary method."""
        handler = self.handler(method)
        if handler is None:
            return _UNIMPLEMENTED
        context = _Context(None)
        try:
            response = await handler.unary_unary(handler.request_deserializer(data), context)
        except AbortedError as aborted:
            return aborted.status
        except Exception as error:
            return _crashed(self.network, method, error)
        return bytes(handler.response_serializer(response))


class Read:
    """The client has taken one response."""


READ = Read()


class Accepted:
    """The serving end of one stream.

    Attributes:
        back: the way to the client; set before anything arrives.
    """

    back: Pipe

    def __init__(
        self,
        network: Network,
        process: Process,
        server: SimServer,
        method: str,
    ) -> None:
        """Waits for the connection to arrive."""
        self._network = network
        self._process = process
        self._server = server
        self._method = method
        self._inbox: deque[bytes] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._unread = 0
        self._room: asyncio.Future[None] | None = None

    def take(self, item: bytes | Ended | Read | None) -> None:
        """What arrives: None is the connection, a status says that the client is gone."""
        if isinstance(item, Read):
            self._unread -= 1
            if self._room is not None and not self._room.done():
                self._room.set_result(None)
        elif item is None:
            self._task = self._process.start(self._run(), f"serve {self._method}")
        elif isinstance(item, Ended):
            if self._task is not None:
                self._task.cancel()
        else:
            self._inbox.append(item)
            if self._wake is not None and not self._wake.done():
                self._wake.set_result(None)

    async def _run(self) -> None:
        try:
            self.back.send(await self._serve())
        except asyncio.CancelledError:
            self.back.close()
            raise

    async def _serve(self) -> Ended:
        handler = self._server.handler(self._method)
        if handler is None:
            return _UNIMPLEMENTED
        serialise = handler.response_serializer
        context = _Context(
            lambda m: self.back.send(serialise(m) if serialise else m), self._has_room
        )
        try:
            served = handler.stream_stream(self._requests(handler.request_deserializer), context)
            if hasattr(served, "__aiter__"):
                async for response in served:
                    await context.write(response)
            else:
                await served
        except AbortedError as aborted:
            return aborted.status
        except Exception as error:
            return _crashed(self._network, self._method, error)
        return _OK

    async def _has_room(self) -> None:
        """Waits while the client has enough to read; then it is about to have one more."""
        window = self._network.window
        while window and self._unread >= window:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        self._unread += 1

    async def _requests(self, deserialise: Callable[[bytes], Any]) -> AsyncIterator[Any]:
        while True:
            while self._inbox:
                yield deserialise(self._inbox.popleft())
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake


class _Context:
    """The part of `grpc.aio.ServicerContext` that handlers use."""

    def __init__(
        self,
        send: Callable[[Any], None] | None,
        has_room: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._send = send
        self._has_room = has_room

    async def send_initial_metadata(self, metadata: tuple[()]) -> None:
        """Sends nothing: these calls have no headers."""

    async def write(self, message: Any) -> None:  # noqa: ANN401 - any message
        """Sends one response."""
        if self._send is None:
            raise AssertionError("a unary method writes nothing")
        if self._has_room is not None:
            await self._has_room()
        self._send(message)

    async def abort_with_status(self, status: Any) -> NoReturn:  # noqa: ANN401 - grpc's own
        """Ends the call."""
        raise AbortedError(Ended(status.code, status.details, status.trailing_metadata or ()))


def _crashed(network: Network, method: str, error: Exception) -> Ended:
    network.loop.failures.append((f"{method} crashed", error))
    return Ended(grpc.StatusCode.UNKNOWN, f"Unexpected {error!r}")
