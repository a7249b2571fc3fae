"""Collections, by unary calls to the coordinator. Layer: client.

Contract: every call has a deadline. A look waits for a coordinator that is away; a change does not,
since the caller must be the one to repeat it. A change that is not answered, in time or because
the coordinator went away, is OUTCOME_UNKNOWN: it may have begun, and is completed then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

import grpc

from walplane.client.config import ClientConfig
from walplane.rpc.channel import ended_from_afar, never_connected
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import coord_pb2, coord_pb2_grpc

_Response = TypeVar("_Response")

_SAYS_NOTHING = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)
"""How a call may end that was being answered; unless the coordinator itself said more."""


@dataclass(frozen=True)
class CollectionInfo:
    """One collection.

    Attributes:
        name: its name.
        collection_id: never reused.
        vchannels: one per shard, in the order of the shards.
        created_tick: tick of its CreateCollection on the CChannel.
        schema_version: to name in its messages.
        default_partition_id: to name in messages without a partition of their own.
    """

    name: str
    collection_id: int
    vchannels: tuple[str, ...]
    created_tick: int
    schema_version: int
    default_partition_id: int

    @classmethod
    def from_proto(cls, proto: coord_pb2.CollectionInfo) -> CollectionInfo:
        """The collection from the wire."""
        return cls(
            name=proto.name,
            collection_id=proto.collection_id,
            vchannels=tuple(proto.vchannels),
            created_tick=proto.created_tick,
            schema_version=proto.schema_version,
            default_partition_id=proto.default_partition_id,
        )


class CatalogClient:
    """The coordinator's catalog."""

    def __init__(self, channel: grpc.aio.Channel, address: str, config: ClientConfig) -> None:
        """Calls over `channel`, which stays the caller's."""
        self._stub = coord_pb2_grpc.StreamingCoordStub(channel)
        self._address = address
        self._timeout = config.call_timeout_s

    async def create(self, name: str, shards: int) -> CollectionInfo:
        """Creates a collection."""
        try:
            request = coord_pb2.CreateCollectionRequest(name=name, shards=shards)
        except (TypeError, ValueError) as error:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"{shards!r} shards for collection {name!r}: give a whole number from 1, and a "
                "name that is text",
            ) from error
        call = self._stub.CreateCollection(request, timeout=self._timeout)
        return CollectionInfo.from_proto(await self._answer(self._changed(call)))

    async def drop(self, name: str) -> int:
        """Drops a collection; returns its id."""
        request = coord_pb2.DropCollectionRequest(name=name)
        call = self._stub.DropCollection(request, timeout=self._timeout)
        return (await self._answer(self._changed(call))).collection_id

    async def list_all(self) -> list[CollectionInfo]:
        """All collections."""
        call = self._stub.ListCollections(
            coord_pb2.ListCollectionsRequest(), timeout=self._timeout, wait_for_ready=True
        )
        answer = await self._answer(call)
        return [CollectionInfo.from_proto(proto) for proto in answer.collections]

    async def describe(self, name: str) -> CollectionInfo:
        """One collection."""
        request = coord_pb2.DescribeCollectionRequest(name=name)
        call = self._stub.DescribeCollection(request, timeout=self._timeout, wait_for_ready=True)
        return CollectionInfo.from_proto(await self._answer(call))

    async def _changed(self, change: Awaitable[_Response]) -> _Response:
        try:
            return await change
        except grpc.aio.AioRpcError as error:
            if error.code() not in _SAYS_NOTHING or WalError.told(error) or never_connected(error):
                raise
            what = f"broke off ({error.details()})"
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                what = f"did not answer within {self._timeout:g} s"
            raise WalError(
                ErrorCode.OUTCOME_UNKNOWN,
                f"walplane at {self._address} {what}: if the change began it is durable and will "
                "be completed, if it still waited it is taken back; `walplane collection list` "
                "shows what there is",
            ) from error

    async def _answer(self, call: Awaitable[_Response]) -> _Response:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise WalError.from_rpc(error, f"walplane at {self._address}") from error
        except asyncio.CancelledError as error:
            if not ended_from_afar():
                raise
            raise WalError(
                ErrorCode.OUTCOME_UNKNOWN,
                f"the client was closed before walplane at {self._address} answered: a change may "
                "or may not be made",
            ) from error
