"""The StreamingNode's gRPC servicer. Layer: node.

Contract: translates between streams and the node; every failure leaves as a typed status
(`WalError.to_status`) or, for one append, inside the stream. A handler that ends, however it ends,
leaves no task and no scanner behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
import structlog

import walplane
from walplane.node.consume import ConsumeStream
from walplane.node.produce import ProduceStream
from walplane.node.streaming_node import StreamingNode
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import streaming_pb2

_log = structlog.get_logger(__name__)

SERVICE_NAME = streaming_pb2.DESCRIPTOR.services_by_name["StreamingNode"].full_name

_Context = grpc.aio.ServicerContext[Any, Any]


class StreamingNodeService:
    """The gRPC edge of one node.

    Registered by hand rather than as the generated servicer: Consume's responses are bytes already.
    """

    def __init__(self, node: StreamingNode) -> None:
        """Serves `node`, which the caller closes."""
        self._node = node

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service with `server`."""
        produce = grpc.stream_stream_rpc_method_handler(
            self.Produce,
            request_deserializer=streaming_pb2.ProduceRequest.FromString,
            response_serializer=streaming_pb2.ProduceResponse.SerializeToString,
        )
        consume: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            self.Consume, request_deserializer=streaming_pb2.ConsumeRequest.FromString
        )
        open_producer = grpc.unary_unary_rpc_method_handler(
            self.OpenProducer,
            request_deserializer=streaming_pb2.OpenProducerRequest.FromString,
            response_serializer=streaming_pb2.OpenProducerResponse.SerializeToString,
        )
        status = grpc.unary_unary_rpc_method_handler(
            self.NodeStatus,
            request_deserializer=streaming_pb2.NodeStatusRequest.FromString,
            response_serializer=streaming_pb2.NodeStatusResponse.SerializeToString,
        )
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Produce": produce,
            "Consume": consume,
            "OpenProducer": open_producer,
            "NodeStatus": status,
        }
        server.add_registered_method_handlers(SERVICE_NAME, handlers)

    async def Produce(
        self,
        request_iterator: AsyncIterator[streaming_pb2.ProduceRequest],
        context: _Context,
    ) -> None:
        """Appends to one PChannel; see `ProduceStream`."""
        try:
            first = await anext(request_iterator, streaming_pb2.ProduceRequest())
            if first.WhichOneof("kind") != "open":
                raise _protocol("open")
            node, opening = self._node, first.open
            edge = node.edge(opening.pchannel, opening.term)
            opened = streaming_pb2.ProduceOpened(
                term=edge.wal.term, max_entry_bytes=edge.max_entry_bytes
            )
            response = streaming_pb2.ProduceResponse(
                opened=opened, settled_tick=edge.settled_tick, packed_bytes=edge.packed_bytes
            )
            await context.write(response)
            budgets = node.append_budgets(opening.pchannel)
            stream = ProduceStream(edge, budgets, node.config, context.write)
            await stream.run(request_iterator)
        except WalError as error:
            await _abort(context, error)

    async def Consume(
        self,
        request_iterator: AsyncIterator[streaming_pb2.ConsumeRequest],
        context: _Context,
    ) -> None:
        """Reads one PChannel; see `ConsumeStream`."""
        try:
            first = await anext(request_iterator, streaming_pb2.ConsumeRequest())
            if first.WhichOneof("kind") != "start":
                raise _protocol("start")
            edge = self._node.edge(first.start.pchannel, first.start.term)
            node = self._node
            # A status cannot be sent while headers are on their way, and a reader may lose its turn
            # as its first response, which would carry them, waits to be taken.
            await context.send_initial_metadata(())
            stream = ConsumeStream(edge, first.start, node.config, context.write, node.read_turns)
            await stream.run(request_iterator)
        except WalError as error:
            await _abort(context, error)

    async def OpenProducer(
        self,
        request: streaming_pb2.OpenProducerRequest,
        context: _Context,
    ) -> streaming_pb2.OpenProducerResponse:
        """Tells where a named producer is, or opens it."""
        try:
            edge = self._node.edge(request.pchannel, request.term)
            standing = await edge.open_producer(
                request.vchannel, request.name, request.opener, request.after_epoch
            )
        except WalError as error:
            await _abort(context, error)
        return streaming_pb2.OpenProducerResponse(
            epoch=standing.epoch, next_number=standing.next_number
        )

    async def NodeStatus(
        self,
        request: streaming_pb2.NodeStatusRequest,
        context: _Context,
    ) -> streaming_pb2.NodeStatusResponse:
        """What the node holds."""
        return streaming_pb2.NodeStatusResponse(
            node_id=self._node.node_id,
            version=walplane.__version__,
            channels=self._node.status(),
        )


def _protocol(expected: str) -> WalError:
    return WalError(
        ErrorCode.INVALID_ARGUMENT, f"the first request of this stream must be `{expected}`"
    )


async def _abort(context: _Context, error: WalError) -> NoReturn:
    await context.abort_with_status(error.to_status())
