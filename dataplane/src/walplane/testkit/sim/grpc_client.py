"""The client's half of gRPC over the simulated network. Layer: testkit.

Contract: what the product does with `grpc.aio.Channel` works as over a socket: streams keep their
order, end with a status, and break as UNAVAILABLE when their other end dies or is cut off for
long; unary calls are lost, doubled and late.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NoReturn

import grpc

from walplane.testkit.sim.grpc_server import READ, Accepted, Ended, SimServer
from walplane.testkit.sim.network import Network, Pipe
from walplane.testkit.sim.process import Process

_Serialise = Callable[[Any], bytes] | None
_Deserialise = Callable[[bytes], Any] | None

_RECONNECT_S = 0.1

_REFUSED = Ended(
    grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; last error: refused"
)
_BROKEN = Ended(grpc.StatusCode.UNAVAILABLE, "connection reset")
_CANCELLED = Ended(grpc.StatusCode.CANCELLED, "cancelled here")
_LATE = Ended(grpc.StatusCode.DEADLINE_EXCEEDED, "deadline exceeded")


class SimChannel(grpc.aio.Channel):
    """A channel of one process to one address."""

    def __init__(self, network: Network, client: Process, address: str) -> None:
        """Connects anew for every call."""
        self._network = network
        self._client = client
        self._address = address

    async def __aenter__(self) -> SimChannel:
        """The channel itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes it."""
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Its calls are cancelled by whoever made them."""

    def get_state(self, try_to_connect: bool = False) -> NoReturn:
        """Nobody asks."""
        raise NotImplementedError

    async def wait_for_state_change(self, last_observed_state: Any) -> NoReturn:  # noqa: ANN401
        """Nobody asks."""
        raise NotImplementedError

    async def channel_ready(self) -> NoReturn:
        """Nobody asks."""
        raise NotImplementedError

    def unary_stream(self, *_: Any, **__: Any) -> NoReturn:  # noqa: ANN401
        """There is no such method."""
        raise NotImplementedError

    def stream_unary(self, *_: Any, **__: Any) -> NoReturn:  # noqa: ANN401
        """There is no such method."""
        raise NotImplementedError

    def unary_unary(  # type: ignore[override]
        self,
        method: str,
        request_serializer: _Serialise = None,
        response_deserializer: _Deserialise = None,
        _registered_method: bool | None = False,
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        """A method of one request and one answer."""

        async def call(
            request: Any,  # noqa: ANN401 - any message
            *,
            timeout: float | None = None,  # noqa: ASYNC109 - as grpc has it
            wait_for_ready: bool = False,
        ) -> Any:  # noqa: ANN401 - any message
            data = request_serializer(request) if request_serializer else request
            try:
                async with asyncio.timeout(timeout):
                    if wait_for_ready:
                        await self._somebody_listens()
                    call = _UnaryCall(self._network, self._client, self._address, method, data)
                    answer = await call.answer()
            except TimeoutError:
                answer = _LATE
            if isinstance(answer, Ended):
                raise _error(answer)
            return response_deserializer(answer) if response_deserializer else answer

        return call

    def stream_stream(  # type: ignore[override]
        self,
        method: str,
        request_serializer: _Serialise = None,
        response_deserializer: _Deserialise = None,
        _registered_method: bool | None = False,
    ) -> Callable[[], StreamCall]:
        """A method of two streams."""

        def call() -> StreamCall:
            return StreamCall(
                self._network,
                self._client,
                self._address,
                method,
                request_serializer,
                response_deserializer,
            )

        return call

    async def _somebody_listens(self) -> None:
        while self._address not in self._network.listeners:  # noqa: ASYNC110 - costs no time
            await asyncio.sleep(_RECONNECT_S)


class StreamCall:
    """The calling end of a bidirectional stream; as `grpc.aio.StreamStreamCall`."""

    def __init__(
        self,
        network: Network,
        client: Process,
        address: str,
        method: str,
        serialise: _Serialise,
        deserialise: _Deserialise,
    ) -> None:
        """Connects; requests may be written at once."""
        self.client = client
        self._network = network
        self._serialise = serialise
        self._deserialise = deserialise
        self._inbox: deque[bytes] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._ending: Ended | None = None  # the status, once it came
        self._out: Pipe | None = None
        found = network.listeners.get(address)
        if found is None:
            network.loop.call_later(network.delay(), self._end, _REFUSED, context=client.context)
            self.server = client
            return
        self.server, server = found
        accepted = Accepted(network, self.server, server, method)
        self._out = Pipe(network, client, self.server, accepted.take)
        accepted.back = Pipe(network, self.server, client, self._arrived)
        self._accepted = accepted
        self._out.send(None)
        network.remember(self)

    # --- what the product calls --------------------------------------------------------------

    async def write(self, request: Any) -> None:  # noqa: ANN401 - any message
        """Sends one request.

        Raises:
            InvalidStateError: the call is over.
        """
        if self._ending is not None:
            raise asyncio.InvalidStateError("RPC already finished.")
        if self._out is not None:
            self._out.send(self._serialise(request) if self._serialise else request)

    async def read(self) -> Any:  # noqa: ANN401 - any message
        """The next response; `grpc.aio.EOF` when there are no more.

        Raises:
            AioRpcError: the call failed.
        """
        while not self._inbox:
            if self._ending is not None:
                self._raise_for_status(self._ending)
                return grpc.aio.EOF
            if self._wake is None or self._wake.done():
                self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        data = self._inbox.popleft()
        if self._network.window and self._out is not None and self._ending is None:
            self._out.send(READ)
        return self._deserialise(data) if self._deserialise else data

    async def __aiter__(self) -> AsyncIterator[Any]:
        """All responses."""
        while (response := await self.read()) is not grpc.aio.EOF:
            yield response

    def cancel(self) -> bool:
        """Ends the call; the server learns of it in its time."""
        if self._ending is not None:
            return False
        if self._out is not None:
            self._out.send(_CANCELLED)
        self._end(_CANCELLED)
        return True

    def done(self) -> bool:
        """Whether the status is there."""
        return self._ending is not None

    async def code(self) -> grpc.StatusCode:
        """The status' code, of a call that is done."""
        return self._status.code

    async def details(self) -> str:
        """The status' text, of a call that is done."""
        return self._status.details

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """None is sent."""
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """The typed error, of a call that is done."""
        return grpc.aio.Metadata(*self._status.trailing)

    # --- what the network calls --------------------------------------------------------------

    def broken(self, at: Process) -> None:
        """One end learns that the connection is gone."""
        if at is self.client:
            at.soon(self._end, _BROKEN)
        else:
            at.soon(self._accepted.take, _BROKEN)

    def _arrived(self, item: bytes | Ended) -> None:
        if isinstance(item, Ended):
            self._end(item)
        elif self._ending is None:
            self._inbox.append(item)
            self._notify()

    def _end(self, status: Ended) -> None:
        if self._ending is None:
            self._ending = status
            self._network.forget(self)
            self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    @property
    def _status(self) -> Ended:
        if self._ending is None:
            raise AssertionError("asked for the status of a call under way")
        return self._ending

    def _raise_for_status(self, status: Ended) -> None:
        if status is _CANCELLED:
            raise asyncio.CancelledError
        if status.code is not grpc.StatusCode.OK:
            raise _error(status)


class _UnaryCall:
    """One request, which may arrive not at all, once or twice, and its first answer."""

    def __init__(
        self, network: Network, client: Process, address: str, method: str, data: bytes
    ) -> None:
        self.client = client
        self.server = client
        self._network = network
        self._answer: asyncio.Future[bytes | Ended] = network.loop.create_future()
        found = network.listeners.get(address)
        if found is None:
            network.loop.call_later(network.delay(), self._take, _REFUSED, context=client.context)
            return
        self.server, server = found
        network.remember(self)
        copies = 2 if network.chance(network.weather.doubled) else 1
        for _ in range(copies):
            if not network.chance(network.weather.lost):
                network.loop.call_later(
                    network.delay(),
                    self._arrive,
                    server,
                    method,
                    data,
                    context=self.server.context,
                )

    async def answer(self) -> bytes | Ended:
        """Waits for it."""
        try:
            return await self._answer
        finally:
            self._network.forget(self)

    def broken(self, at: Process) -> None:
        """The server goes on alone; the client learns that there will be no answer."""
        if at is self.client:
            at.soon(self._take, _BROKEN)

    def _arrive(self, server: SimServer, method: str, data: bytes) -> None:
        if self._network.reaches(self.client.host, self.server.host):
            self.server.start(self._serve(server, method, data), f"serve {method}")

    async def _serve(self, server: SimServer, method: str, data: bytes) -> None:
        answer = await server.answer(method, data)
        if not self._network.chance(self._network.weather.lost):
            self._network.loop.call_later(
                self._network.delay(), self._returned, answer, context=self.client.context
            )

    def _returned(self, answer: bytes | Ended) -> None:
        if self._network.reaches(self.server.host, self.client.host):
            self._take(answer)

    def _take(self, answer: bytes | Ended) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)


def _error(status: Ended) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        status.code,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(*status.trailing),
        status.details,
    )
