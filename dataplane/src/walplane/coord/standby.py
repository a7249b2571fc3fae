"""What a coordinator that does not lead answers: ask another one.

Contract: every method of the coordinator's services is refused with ON_SHUTDOWN, and connections
are ended soon, so that a client which connects again through a Service reaches another process.
Layer: coord.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc

from walplane.coord.coord import SERVICE_NAMES
from walplane.rpc.errors import ErrorCode, WalError

STANDBY_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_connection_age_ms", 200),
    ("grpc.max_connection_age_grace_ms", 200),
)
"""gRPC options of a server that only stands by."""


def add_standby(server: grpc.aio.Server) -> None:
    """Refuses every call of the coordinator's services on `server`."""
    server.add_generic_rpc_handlers((_Refusing(),))


class _Refusing(grpc.GenericRpcHandler):
    """Takes any method, whatever its arity: on the wire all are streams."""

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        service = str(handler_call_details.method).strip("/").partition("/")[0]
        if service not in SERVICE_NAMES:
            return None
        return grpc.stream_stream_rpc_method_handler(_refuse)


async def _refuse(
    _requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
) -> NoReturn:
    refusal = WalError(
        ErrorCode.ON_SHUTDOWN,
        "this coordinator stands by and does not lead: connect again to reach the one that does",
        retry_after_ms=200,
    )
    await context.abort_with_status(refusal.to_status())
