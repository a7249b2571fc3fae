"""The gRPC edge of the coordinator: thin, typed errors, no state of its own. Layer: coord."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, NoReturn, Protocol, TypeVar

import grpc
import structlog

from walplane.coord.catalog import Catalog
from walplane.coord.discovery import Discovery
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import coord_pb2, coord_pb2_grpc
from walplane.rpc.v1.coordmeta_pb2 import CollectionMeta
from walplane.wal.ports import TimestampOracle

_log = structlog.get_logger(__name__)

T = TypeVar("T")


_Context = grpc.aio.ServicerContext[Any, Any]


class Reports(Protocol):
    """Takes assignment errors that clients met."""

    def report_error(self, pchannel: str, term: int, error: WalError) -> bool:
        """See `AssignmentSource.report_error`."""
        ...


class Changes(Protocol):
    """Makes changes to the catalog."""

    async def create(self, name: str, shards: int) -> CollectionMeta:
        """See `Broadcasts.create`."""
        ...

    async def drop(self, name: str) -> CollectionMeta:
        """See `Broadcasts.drop`."""
        ...


class CoordService(coord_pb2_grpc.StreamingCoordServicer):
    """`StreamingCoord`: discovery and catalog."""

    def __init__(
        self, discovery: Discovery, reports: Reports, catalog: Catalog, changes: Changes
    ) -> None:
        """Serves these parts of a coordinator."""
        self._discovery = discovery
        self._reports = reports
        self._catalog = catalog
        self._changes = changes

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service with `server`."""
        coord_pb2_grpc.add_StreamingCoordServicer_to_server(self, server)

    async def Discover(
        self,
        request_iterator: AsyncIterator[coord_pb2.DiscoverRequest],
        context: _Context,
    ) -> AsyncIterator[coord_pb2.DiscoverResponse]:
        """A snapshot at once and after each change; takes the errors that the client reports."""
        taking = asyncio.create_task(self._take_reports(request_iterator), name="discover-reports")
        self._discovery.streams += 1
        try:
            async for snapshot in self._discovery.snapshots():
                yield snapshot
        except WalError as error:
            await _abort(context, error)
        finally:
            self._discovery.streams -= 1
            taking.cancel()
            await asyncio.wait([taking])

    async def CreateCollection(
        self, request: coord_pb2.CreateCollectionRequest, context: _Context
    ) -> coord_pb2.CollectionInfo:
        """Returns when the collection can be used."""
        return _info(await _typed(context, self._changes.create(request.name, request.shards)))

    async def DropCollection(
        self, request: coord_pb2.DropCollectionRequest, context: _Context
    ) -> coord_pb2.DropCollectionResponse:
        """Returns when the collection is ended and its name free."""
        dropped = await _typed(context, self._changes.drop(request.name))
        return coord_pb2.DropCollectionResponse(collection_id=dropped.collection_id)

    async def ListCollections(
        self, request: coord_pb2.ListCollectionsRequest, context: _Context
    ) -> coord_pb2.ListCollectionsResponse:
        """Every collection, by name."""
        collections = [_info(each) for each in self._catalog.collections()]
        return coord_pb2.ListCollectionsResponse(collections=collections)

    async def DescribeCollection(
        self, request: coord_pb2.DescribeCollectionRequest, context: _Context
    ) -> coord_pb2.CollectionInfo:
        """One collection."""
        try:
            return _info(self._catalog.by_name(request.name))
        except WalError as error:
            await _abort(context, error)

    async def _take_reports(self, requests: AsyncIterator[coord_pb2.DiscoverRequest]) -> None:
        async for request in requests:
            for report in request.errors:
                error = WalError.from_proto(report.error)
                if self._reports.report_error(report.pchannel, report.term, error):
                    _log.info(
                        "a client's report was taken",
                        pchannel=report.pchannel,
                        term=report.term,
                        error=str(error),
                    )


class OracleService(coord_pb2_grpc.TimestampOracleServicer):
    """`TimestampOracle`, for nodes in other processes."""

    def __init__(self, oracle: TimestampOracle) -> None:
        """Serves `oracle`."""
        self._oracle = oracle

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service with `server`."""
        coord_pb2_grpc.add_TimestampOracleServicer_to_server(self, server)

    async def TickBatch(
        self, request: coord_pb2.TickBatchRequest, context: _Context
    ) -> coord_pb2.TickBatchResponse:
        """A batch of ticks, and the PChannels that the caller has lost."""
        batch = await _typed(context, self._oracle.batch(request.terms, request.count))
        return coord_pb2.TickBatchResponse(
            first=batch.first,
            count=batch.size,
            lost=sorted(batch.lost),
            ahead_ms=batch.ahead_ms,
        )

    async def FreshTick(
        self, request: coord_pb2.FreshTickRequest, context: _Context
    ) -> coord_pb2.FreshTickResponse:
        """A tick above every tick anyone held before the call."""
        tick = await _typed(context, self._oracle.fresh(request.pchannel, request.term))
        return coord_pb2.FreshTickResponse(tick=tick)


async def _typed(context: _Context, call: Awaitable[T]) -> T:
    try:
        return await call
    except WalError as error:
        await _abort(context, error)


def _info(collection: CollectionMeta) -> coord_pb2.CollectionInfo:
    return coord_pb2.CollectionInfo(
        name=collection.name,
        collection_id=collection.collection_id,
        vchannels=collection.vchannels,
        created_tick=collection.created_tick,
        schema_version=collection.schema_version,
        default_partition_id=collection.default_partition_id,
    )


async def _abort(context: _Context, error: WalError) -> NoReturn:
    await context.abort_with_status(error.to_status())
