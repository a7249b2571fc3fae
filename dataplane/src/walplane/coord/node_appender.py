"""Appends the coordinator's messages to VChannels wherever they are served, over gRPC.

Contract: an `Appender` that tries once, at the owner that is known now; whoever calls tries again.
The entry goes as it is: its producer and number make repeats harmless. Layer: coord.
"""

from __future__ import annotations

import asyncio

import grpc

from walplane.assignment.states import Channel
from walplane.channel import pchannel_of
from walplane.coord.ports import AssignmentSource
from walplane.message.ids import MessageID
from walplane.message.registry import MessageType
from walplane.rpc.channel import ChannelCache, Connect, check_cancelled, ended_from_afar
from walplane.rpc.channel import connect as connect_grpc
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2, streaming_pb2, streaming_pb2_grpc
from walplane.tracing import Tracing, attributes_of, parent_of
from walplane.wal.ports import AppendResult

_Call = grpc.aio.StreamStreamCall[streaming_pb2.ProduceRequest, streaming_pb2.ProduceResponse]


class NodeAppender:
    """Appends through the nodes' Produce streams, one stream an entry."""

    def __init__(
        self,
        source: AssignmentSource,
        connect: Connect = connect_grpc,
        tracing: Tracing | None = None,
    ) -> None:
        """Connects when there is something to append; `source` knows the owners."""
        self._tracing = tracing or Tracing()
        self._source = source
        self._channels = ChannelCache(connect)
        self._places: dict[str, str] = {}  # address by PChannel, of all that were appended to

    async def append(self, entry: log_pb2.Entry) -> AppendResult:
        """See `Appender`; the caller sets the deadline."""
        envelope = entry.envelope
        if not (self._tracing.on and envelope.trace_parent):
            return await self._append(entry)
        attributes = attributes_of(envelope, MessageType(envelope.type).name)
        parent = envelope.trace_parent
        with self._tracing.around(parent, "wal.dist_append", attributes) as span:
            envelope.trace_parent = parent_of(span) or parent
            return await self._append(entry)

    async def _append(self, entry: log_pb2.Entry) -> AppendResult:
        pchannel = pchannel_of(entry.envelope.vchannel)
        owner, address = self._source.place(pchannel)
        if not address:
            raise WalError(
                ErrorCode.CHANNEL_NOT_EXIST, f"nobody serves {pchannel} now: {owner.reason}"
            )
        self._note(pchannel, address)
        with self._channels.use(address) as channel:
            call = streaming_pb2_grpc.StreamingNodeStub(channel).Produce()
            return await _appended(call, entry, owner, address)

    async def close(self) -> None:
        """Closes every connection."""
        await self._channels.close()

    def _note(self, pchannel: str, address: str) -> None:
        """Channels to where nothing is served any more are closed, as soon as something moved."""
        if self._places.get(pchannel) == address:
            return
        self._places[pchannel] = address
        self._places = {each: self._source.place(each)[1] for each in self._places}
        self._channels.keep(set(self._places.values()))


async def _appended(
    call: _Call, entry: log_pb2.Entry, owner: Channel, address: str
) -> AppendResult:
    """Appends `entry` by `call` to the PChannel of `owner`, and ends the call."""
    subject = f"{owner.pchannel} at {address}"
    try:
        opening = streaming_pb2.OpenProduce(pchannel=owner.pchannel, term=owner.term)
        await call.write(streaming_pb2.ProduceRequest(open=opening))
        await _read(call, subject)  # a write into a call that was refused forgets why it was
        append = streaming_pb2.AppendRequest(request_id=1, entry=entry)
        await call.write(streaming_pb2.ProduceRequest(append=append))
        while not (response := await _read(call, subject)).appends:
            pass
        return _result(response.appends[0])
    except grpc.aio.AioRpcError as error:
        check_cancelled()
        raise WalError.from_rpc(error, subject) from error
    except asyncio.CancelledError as error:
        if not ended_from_afar():
            raise
        stopping = f"{subject} cancelled the stream: it is being stopped"
        raise WalError(ErrorCode.ON_SHUTDOWN, stopping) from error
    except asyncio.InvalidStateError as error:  # the node ended the call before it was asked
        raise await _ended(call, subject) from error
    finally:
        call.cancel()


async def _read(call: _Call, subject: str) -> streaming_pb2.ProduceResponse:
    response = await call.read()
    if not isinstance(response, streaming_pb2.ProduceResponse):
        raise await _ended(call, subject)
    return response


async def _ended(call: _Call, subject: str) -> WalError:
    check_cancelled()
    status = grpc.aio.AioRpcError(
        await call.code(),
        await call.initial_metadata(),
        await call.trailing_metadata(),
        await call.details(),
    )
    if status.code() is grpc.StatusCode.OK:
        return WalError(ErrorCode.ON_SHUTDOWN, f"{subject} ended the stream")
    return WalError.from_rpc(status, subject)


def _result(append: streaming_pb2.AppendResponse) -> AppendResult:
    if append.WhichOneof("outcome") != "result":
        raise WalError.from_proto(append.error)
    result = append.result
    confirmed = None
    if result.HasField("last_confirmed"):
        confirmed = MessageID.from_proto(result.last_confirmed)
    return AppendResult(
        MessageID.from_proto(result.message_id),
        result.first_tick,
        result.count,
        confirmed,
        result.term,
        result.open_number,
    )
