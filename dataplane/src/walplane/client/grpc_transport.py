"""The way to an owner over gRPC: one channel per address, one stream per PChannel and use.

Contract: every call is cancelled when its stream is closed, so that none outlives the client; then
it uses its channel no more. Layer: client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import grpc
from opentelemetry.trace import Span, SpanKind

from walplane.client.batcher import SendBatch
from walplane.client.config import ClientConfig
from walplane.client.discovery import Assignment, Topology
from walplane.client.results import Written
from walplane.client.transport import (
    Answer,
    ConsumeStream,
    Delivery,
    OpenedProducer,
    ProducerOpening,
    ProduceStream,
)
from walplane.message.codec import varint
from walplane.message.ids import MessageID, ResumeToken
from walplane.rpc.channel import (
    ChannelCache,
    ChannelUse,
    Connect,
    check_cancelled,
    ended_from_afar,
)
from walplane.rpc.channel import connect as connect_grpc
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import streaming_pb2, streaming_pb2_grpc
from walplane.tracing import Tracing, end, parent_of
from walplane.wal.ports import LogEntry
from walplane.wal.scan.request import ScanRequest

_SERVICE = streaming_pb2.DESCRIPTOR.services_by_name["StreamingNode"].full_name
_PRODUCE = f"/{_SERVICE}/Produce"
# Tags of `ProduceRequest.append`, and of `AppendRequest`: `request_id`, `entry` and `wait_ms`.
_APPEND_TAG, _REQUEST_ID_TAG, _ENTRY_TAG, _WAIT_TAG = b"\x12", b"\x08", b"\x12", b"\x18"

_MAX_WAIT_MS = (1 << 31) - 1  # weeks: a caller with more time is told to come again

_ProduceCall = grpc.aio.StreamStreamCall[
    streaming_pb2.ProduceRequest | bytes, streaming_pb2.ProduceResponse
]
_ConsumeCall = grpc.aio.StreamStreamCall[
    streaming_pb2.ConsumeRequest, streaming_pb2.ConsumeResponse
]

_Answer = TypeVar("_Answer")
_Response = TypeVar("_Response")


class GrpcTransport:
    """Reaches nodes by their addresses."""

    remote = True

    def __init__(
        self,
        config: ClientConfig,
        connect: Connect = connect_grpc,
        tracing: Tracing | None = None,
    ) -> None:
        """No channel yet; `connect` makes them."""
        self._tracing = tracing or Tracing()
        self._config = config
        self._channels = ChannelCache(connect)

    def use(self, address: str) -> ChannelUse:
        """A use of the channel to `address`, which is never cut off before it ends."""
        return self._channels.use(address)

    def keep(self, topology: Topology) -> None:
        """Channels to addresses that `topology` does not name are closed once nothing uses them."""
        served = topology.assignments.values()
        self._channels.keep({each.address for each in served if each.address})

    async def close(self) -> None:
        """Closes every channel and what is left on it."""
        await self._channels.close()

    async def node_status(self, address: str) -> streaming_pb2.NodeStatusResponse | WalError:
        """What the node at `address` says of itself, or why it says nothing."""
        try:
            with self._channels.use(address) as channel:
                return await streaming_pb2_grpc.StreamingNodeStub(channel).NodeStatus(
                    streaming_pb2.NodeStatusRequest(), timeout=self._config.connect_timeout_s
                )
        except grpc.aio.AioRpcError as error:
            return WalError.from_rpc(error, f"node at {address}")
        except asyncio.CancelledError:
            if not ended_from_afar():
                raise
            text = f"the client was closed before the node at {address} answered"
            return WalError(ErrorCode.ON_SHUTDOWN, text)

    async def open_produce(self, assignment: Assignment) -> ProduceStream:
        """Opens the stream and waits for the owner's answer."""
        subject = _subject(assignment)
        use = self._channels.use(assignment.address)
        call: _ProduceCall = use.channel.stream_stream(
            _PRODUCE,
            response_deserializer=streaming_pb2.ProduceResponse.FromString,
        )()
        stream = _GrpcProduce(call, use, subject, self._tracing)
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                await stream.open(assignment)
        except TimeoutError:
            await stream.close()
            raise _no_answer(subject, self._config.connect_timeout_s) from None
        except BaseException:
            await stream.close()
            raise
        return stream

    async def open_producer(self, assignment: Assignment, asked: ProducerOpening) -> OpenedProducer:
        """One call; an open that is not answered is asked for again by the same opener."""
        request = streaming_pb2.OpenProducerRequest(
            pchannel=assignment.pchannel,
            term=assignment.term,
            vchannel=asked.vchannel,
            name=asked.name,
            opener=asked.opener,
            after_epoch=asked.after_epoch,
        )
        try:
            with self._channels.use(assignment.address) as channel:
                stub = streaming_pb2_grpc.StreamingNodeStub(channel)
                opened = await stub.OpenProducer(request, timeout=self._config.call_timeout_s)
        except grpc.aio.AioRpcError as error:
            raise WalError.from_rpc(error, _subject(assignment)) from error
        except asyncio.CancelledError as error:
            if not ended_from_afar():
                raise
            raise _ended(_subject(assignment)) from error
        return OpenedProducer(opened.epoch, opened.next_number)

    async def open_consume(self, assignment: Assignment, request: ScanRequest) -> ConsumeStream:
        """Opens the stream; the first `receive` tells whether the owner serves it."""
        subject = _subject(assignment)
        use = self._channels.use(assignment.address)
        call = streaming_pb2_grpc.StreamingNodeStub(use.channel).Consume()
        stream = _GrpcConsume(call, use, subject)
        start = start_to_proto(assignment, request, self._config.read_ahead_bytes)
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                await stream.write(streaming_pb2.ConsumeRequest(start=start))
        except TimeoutError:
            await stream.close()
            raise _no_answer(subject, self._config.connect_timeout_s) from None
        except BaseException:
            await stream.close()
            raise
        return stream


class _GrpcProduce:
    def __init__(self, call: _ProduceCall, use: ChannelUse, subject: str, tracing: Tracing) -> None:
        self._use = use
        self._tracing = tracing
        self._spans: dict[int, Span] = {}  # of what is traced and not answered
        self._call = call
        self._subject = subject
        self.max_entry_bytes = 0
        self.packed_bytes = 0
        self.settled_tick = 0

    async def open(self, assignment: Assignment) -> None:
        opening = streaming_pb2.OpenProduce(pchannel=assignment.pchannel, term=assignment.term)
        request = streaming_pb2.ProduceRequest(open=opening).SerializeToString()
        await _step(self._call, self._call.write(request), self._subject)
        response = await _read(self._call, self._subject)
        self.max_entry_bytes = response.opened.max_entry_bytes
        self._learn(response)

    async def send(self, request_id: int, batch: SendBatch) -> None:
        context = self._trace(request_id, batch) if self._tracing.on else ""
        request = append_request(request_id, batch, asyncio.get_running_loop().time(), context)
        await _step(self._call, self._call.write(request), self._subject)

    async def receive(self) -> Sequence[Answer]:
        while not (response := await _read(self._call, self._subject)).appends:
            pass
        self._learn(response)
        answers = [(append.request_id, _outcome(append)) for append in response.appends]
        if self._spans:
            for request_id, outcome in answers:
                failed = outcome if isinstance(outcome, WalError) else None
                end(self._spans.pop(request_id, None), failed)
        return answers

    async def close(self) -> None:
        self._call.cancel()
        self._use.end()
        for span in self._spans.values():
            end(span, _ended(self._subject))
        self._spans.clear()

    def _learn(self, response: streaming_pb2.ProduceResponse) -> None:
        self.settled_tick = response.settled_tick
        self.packed_bytes = response.packed_bytes or self.max_entry_bytes

    def _trace(self, request_id: int, batch: SendBatch) -> str:
        """Begins the span of an append that is traced; the context to send with it."""
        parent, attributes = batch.trace_parent, batch.trace_attributes()
        span = self._tracing.after(parent, "wal.dist_append", attributes, SpanKind.CLIENT)
        if span is not None:
            self._spans[request_id] = span
        return parent_of(span)


class _GrpcConsume:
    def __init__(self, call: _ConsumeCall, use: ChannelUse, subject: str) -> None:
        self._use = use
        self._call = call
        self._subject = subject

    async def receive(self) -> Delivery:
        response = await _read(self._call, self._subject)
        entries = [
            LogEntry(item.entry, MessageID.from_proto(item.message_id), item.open_number)
            for item in response.entries
        ]
        position = None
        if response.HasField("position"):
            position = ResumeToken.from_proto(response.position)
        begins = None
        if response.HasField("begins_at"):
            begins = MessageID.from_proto(response.begins_at)
        return Delivery(entries, response.watermark, response.end, position, begins)

    async def grant(self, size: int) -> None:
        await self.write(streaming_pb2.ConsumeRequest(credit_bytes=size))

    async def write(self, request: streaming_pb2.ConsumeRequest) -> None:
        await _step(self._call, self._call.write(request), self._subject)

    async def close(self) -> None:
        self._call.cancel()
        self._use.end()


def start_to_proto(
    assignment: Assignment, request: ScanRequest, credit: int
) -> streaming_pb2.StartConsume:
    """The first request of a Consume stream."""
    position = streaming_pb2.StartPosition(
        kind=request.start.kind.value,  # type: ignore[arg-type]
        token=request.start.token.to_proto() if request.start.token else None,
        message_id=request.start.message_id.to_proto() if request.start.message_id else None,
    )
    return streaming_pb2.StartConsume(
        pchannel=assignment.pchannel,
        term=assignment.term,
        vchannel=request.vchannel,
        start=position,
        follow=request.follow,
        raw=request.raw,
        credit_bytes=credit,
        types=sorted(request.only.types),
        from_tick=request.only.from_tick,
        until_tick=request.only.until_tick,
    )


def append_request(request_id: int, batch: SendBatch, now: float, trace_parent: str = "") -> bytes:
    """The serialised `ProduceRequest` that appends `batch`; its body is copied once."""
    entry = batch.encode(trace_parent)
    head = b"".join((_REQUEST_ID_TAG, varint(request_id), _ENTRY_TAG, varint(sum(map(len, entry)))))
    wait = b""
    if batch.until is not None:
        wait_ms = min(max((batch.until - now) * 1000, 1), _MAX_WAIT_MS)
        wait = _WAIT_TAG + varint(int(wait_ms))
    size = len(head) + sum(map(len, entry)) + len(wait)
    return b"".join((_APPEND_TAG, varint(size), head, *entry, wait))


def _outcome(append: streaming_pb2.AppendResponse) -> Written | WalError:
    if not append.HasField("result"):
        return WalError.from_proto(append.error)
    result = append.result
    confirmed = None
    if result.HasField("last_confirmed"):
        confirmed = MessageID.from_proto(result.last_confirmed)
    return Written(MessageID.from_proto(result.message_id), result.first_tick, confirmed)


async def _read(call: grpc.aio.StreamStreamCall[Any, _Response], subject: str) -> _Response:
    """The next response of `call`; raises what `_step` does, also when there is none."""
    response = await _step(call, call.read(), subject)
    if response is grpc.aio.EOF:
        check_cancelled()
        raise _ended(subject)
    return response  # type: ignore[return-value]  # it is not the end


async def _step(
    call: grpc.aio.StreamStreamCall[Any, Any], step: Awaitable[_Answer], subject: str
) -> _Answer:
    """What a read or a write of `call` gives.

    Raises:
        WalError: the call has ended, in whatever way grpc tells it.
        CancelledError: the task was cancelled, also when grpc tells something else.
    """
    try:
        return await step
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
        check_cancelled()
        raise await _failure(call, error, subject) from error
    except asyncio.CancelledError as error:
        if not ended_from_afar():
            raise
        raise _ended(subject) from error


async def _failure(
    call: grpc.aio.StreamStreamCall[Any, Any], error: Exception, subject: str
) -> WalError:
    """The typed error of a call that failed; a write learns it from the call's status."""
    if isinstance(error, grpc.aio.AioRpcError):
        return WalError.from_rpc(error, subject)
    if not call.done():
        return _ended(subject)
    status = grpc.aio.AioRpcError(
        await call.code(),
        await call.initial_metadata(),
        await call.trailing_metadata(),
        await call.details(),
    )
    return WalError.from_rpc(status, subject)


def _subject(assignment: Assignment) -> str:
    return f"{assignment.pchannel} at {assignment.address}"


def _no_answer(subject: str, seconds: float) -> WalError:
    return WalError(ErrorCode.ON_SHUTDOWN, f"{subject} did not answer within {seconds:g} s")


def _ended(subject: str) -> WalError:
    return WalError(ErrorCode.ON_SHUTDOWN, f"{subject} ended the stream: ask discovery")
