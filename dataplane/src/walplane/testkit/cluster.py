"""A small cluster in one process: real nodes behind real gRPC ports, a coordinator by hand.

Layer: testkit. The coordinator here only publishes what the test decides, so that tests of node
and client can order every move; the real one has tests of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn

import grpc

from walplane.backends.interface import Backend
from walplane.channel import VChannelName, cchannel_name, pchannel_name
from walplane.message.builder import create_collection, drop_collection
from walplane.node import NodeConfig, RpcServer, StreamingNode, StreamingNodeService, start_server
from walplane.node.service import SERVICE_NAME
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import coord_pb2, coord_pb2_grpc, headers_pb2
from walplane.runtime import Runtime
from walplane.testkit.outside import TestAuthority, TestOracle

PREFIX = "test"

_Context = grpc.aio.ServicerContext[Any, Any]


class HandCoord(coord_pb2_grpc.StreamingCoordServicer):
    """Publishes the snapshots it is given, and keeps what clients report.

    Attributes:
        reports: assignment errors of all clients.
        streams: discovery streams open now.
        collections: a catalog that is nothing but a list.
    """

    def __init__(self) -> None:
        """Publishes nothing yet."""
        self.reports: list[coord_pb2.AssignmentError] = []
        self.streams = 0
        self.collections: dict[str, coord_pb2.CollectionInfo] = {}
        self._snapshot: coord_pb2.DiscoverResponse | None = None
        self._changed = asyncio.Event()

    def publish(self, snapshot: coord_pb2.DiscoverResponse) -> None:
        """Sends `snapshot` on every stream, as it is."""
        self._snapshot = snapshot
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Discover(
        self,
        request_iterator: AsyncIterator[coord_pb2.DiscoverRequest],
        context: _Context,
    ) -> AsyncIterator[coord_pb2.DiscoverResponse]:
        """All snapshots from now on."""
        reader = asyncio.create_task(self._read(request_iterator))
        self.streams += 1
        try:
            while True:
                changed = self._changed
                if self._snapshot is not None:
                    yield self._snapshot
                await changed.wait()
        finally:
            self.streams -= 1
            reader.cancel()

    async def CreateCollection(
        self, request: coord_pb2.CreateCollectionRequest, context: _Context
    ) -> coord_pb2.CollectionInfo:
        """Notes a collection, without any VChannel behind it."""
        if request.name in self.collections:
            await _refuse(context, f"collection {request.name!r} exists already")
        info = coord_pb2.CollectionInfo(
            name=request.name,
            collection_id=len(self.collections) + 1,
            vchannels=[
                f"{PREFIX}_0_{len(self.collections) + 1}v{i}" for i in range(request.shards)
            ],
        )
        self.collections[request.name] = info
        return info

    async def DropCollection(
        self, request: coord_pb2.DropCollectionRequest, context: _Context
    ) -> coord_pb2.DropCollectionResponse:
        """Forgets a collection."""
        info = await self.DescribeCollection(request, context)
        del self.collections[info.name]
        return coord_pb2.DropCollectionResponse(collection_id=info.collection_id)

    async def ListCollections(
        self, request: coord_pb2.ListCollectionsRequest, context: _Context
    ) -> coord_pb2.ListCollectionsResponse:
        """All collections."""
        return coord_pb2.ListCollectionsResponse(collections=self.collections.values())

    async def DescribeCollection(
        self,
        request: coord_pb2.DescribeCollectionRequest | coord_pb2.DropCollectionRequest,
        context: _Context,
    ) -> coord_pb2.CollectionInfo:
        """One collection."""
        if request.name not in self.collections:
            await _refuse(context, f"there is no collection {request.name!r}")
        return self.collections[request.name]

    async def _read(self, requests: AsyncIterator[coord_pb2.DiscoverRequest]) -> None:
        async for request in requests:
            self.reports.extend(request.errors)


async def _refuse(context: _Context, message: str) -> NoReturn:
    await context.abort_with_status(WalError(ErrorCode.INVALID_ARGUMENT, message).to_status())


@dataclass
class Member:
    """One node and its port."""

    node: StreamingNode
    server: RpcServer


class MiniCluster:
    """Use as an async context manager.

    Attributes:
        coord: what clients discover.
        members: nodes by their id.
        oracle: source of ticks.
        terms: the term each PChannel was granted under last.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        pchannels: int = 1,
        nodes: Sequence[str] = ("n1",),
        config: NodeConfig | None = None,
    ) -> None:
        """`nodes[0]` serves every PChannel first."""
        self.coord = HandCoord()
        self.members: dict[str, Member] = {}
        self.oracle = TestOracle()
        self.terms: dict[str, int] = {}
        self.pchannels = [pchannel_name(PREFIX, number) for number in range(pchannels)]
        self._authority = TestAuthority()
        self._backend = backend
        self._config = config or NodeConfig()
        self._first = nodes
        self._owners: dict[str, coord_pb2.ChannelAssignment] = {}
        self._version = 0
        self._coord_server: RpcServer | None = None
        self._exit = AsyncExitStack()

    @property
    def address(self) -> str:
        """Where clients connect."""
        if self._coord_server is None:
            raise RuntimeError("the cluster is not started")
        return self._coord_server.address

    async def __aenter__(self) -> MiniCluster:
        """Starts everything."""
        self._coord_server = await self._serve(
            "127.0.0.1:0",
            {"coord": lambda s: coord_pb2_grpc.add_StreamingCoordServicer_to_server(self.coord, s)},
        )
        for node_id in self._first:
            await self.add_node(node_id)
        for pchannel in self.pchannels:
            await self.move(pchannel, self._first[0])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops everything."""
        for member in self.members.values():
            await member.node.close()
        await self._exit.aclose()

    async def add_node(self, node_id: str, listen: str = "127.0.0.1:0") -> Member:
        """Starts a node that serves nothing yet."""
        node = StreamingNode(
            node_id,
            self._backend,
            self.oracle,
            self._authority,
            Runtime.system(),
            self._config,
        )
        service = StreamingNodeService(node)
        server = await self._serve(listen, {SERVICE_NAME: service.add_to})
        self.members[node_id] = Member(node, server)
        return self.members[node_id]

    async def move(self, pchannel: str, node_id: str, *, address: str = "") -> None:
        """Grants `pchannel` to a node under the next term, and publishes it once it serves.

        The old owner is not told: its log finds out. `address` replaces the node's own in what is
        published.
        """
        term = self.terms[pchannel] = self.terms.get(pchannel, 0) + 1
        self._authority.terms[pchannel] = term
        member = self.members[node_id]
        self.publish(pchannel, term=term, state="ASSIGNING")
        await member.node.assign(pchannel, term)
        self.publish(pchannel, term=term, node_id=node_id, address=address or member.server.address)

    def publish(
        self,
        pchannel: str,
        *,
        term: int,
        node_id: str = "",
        address: str = "",
        state: str = "ASSIGNED",
    ) -> None:
        """Publishes one assignment, whatever is true."""
        self._owners[pchannel] = coord_pb2.ChannelAssignment(
            pchannel=pchannel,
            term=term,
            node_id=node_id,
            address=address,
            state=f"CHANNEL_STATE_{state}",
        )
        self._version += 1
        self.coord.publish(
            coord_pb2.DiscoverResponse(
                version_global=1,
                version_local=self._version,
                assignments=[self._owners[name] for name in sorted(self._owners)],
                cchannel=cchannel_name(self.pchannels[0]),
            )
        )

    async def create_vchannel(self, pchannel: str, collection_id: int = 1, shard: int = 0) -> str:
        """Makes a VChannel by a CreateCollection in its log; returns its name."""
        name = str(VChannelName(pchannel, collection_id, shard))
        header = headers_pb2.CreateCollectionHeader(collection_id=collection_id, vchannels=[name])
        broadcast = create_collection(header, cchannel_name(pchannel))
        await self.owner(pchannel).wal(pchannel).append(broadcast.split(1, 1)[0].to_entry())
        return name

    async def drop_vchannel(self, name: str) -> None:
        """Ends a VChannel by a DropCollection in its log."""
        parts = VChannelName.parse(name)
        header = headers_pb2.CollectionHeader(collection_id=parts.collection_id)
        broadcast = drop_collection(header, [name], cchannel_name(parts.pchannel))
        wal = self.owner(parts.pchannel).wal(parts.pchannel)
        await wal.append(broadcast.split(2, 1)[0].to_entry())

    def owner(self, pchannel: str) -> StreamingNode:
        """The node that was published last for `pchannel`."""
        return self.members[self._owners[pchannel].node_id].node

    async def _serve(self, listen: str, services: dict[str, Any]) -> RpcServer:
        server = await start_server(listen, services)
        self._exit.push_async_callback(server.stop, 0)
        return server
