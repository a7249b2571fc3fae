"""StreamingClient: append to and read from a cluster, wherever its channels are.

Contract: one client per event loop; safe to use from any number of its tasks. Appends of one
client to one VChannel keep the order of the calls; an acknowledged message is durable, and is in
the log once, however often it had to be sent. Layer: client.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import TypeVar

from walplane.channel import is_pchannel
from walplane.client.appends import Appends
from walplane.client.asked import check_only, check_seconds
from walplane.client.catalog import CatalogClient, CollectionInfo
from walplane.client.config import DEFAULT_ADDRESS, ClientConfig
from walplane.client.discovery import Assignment, Discovery, Topology
from walplane.client.grpc_transport import GrpcTransport
from walplane.client.local_transport import LocalTransport
from walplane.client.named import NamedProducer
from walplane.client.outgoing import check_message, check_messages
from walplane.client.raw_reader import RawReader
from walplane.client.reader import Reader, start_position
from walplane.client.results import (
    AppendResult,
    AppendResults,
)
from walplane.client.transport import LocalNodes, Transport
from walplane.client.txn import DEFAULT_KEEPALIVE_S, Txn
from walplane.client.txn_retry import Attempts, run_txn
from walplane.message.builder import MutableMessage, manual_flush
from walplane.message.ids import MessageID, ResumeToken
from walplane.message.view import ImmutableMessage
from walplane.rpc.channel import Connect
from walplane.rpc.channel import connect as connect_grpc
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import streaming_pb2
from walplane.runtime import Runtime
from walplane.tracing import Tracing
from walplane.wal.ports import LogEntry
from walplane.wal.scan.request import EVERYTHING, Only, ScanRequest, check_token

_GONE = WalError(ErrorCode.UNKNOWN, "the caller has gone")

_Value = TypeVar("_Value")

StartAt = str | ResumeToken | MessageID
"""`earliest`, `latest`, a resume token, a message id, or the text of one of these."""


class StreamingClient:
    """Made by `connect`; an async context manager.

    ```python
    async with StreamingClient.connect("127.0.0.1:7650") as wal:
        result = await wal.append(message)
        async for message in wal.read(vchannel, start="earliest"):
            ...
    ```
    """

    def __init__(
        self,
        address: str,
        timeout: float,
        config: ClientConfig,
        runtime: Runtime,
        local_nodes: LocalNodes,
        dial: Connect,
        tracing: Tracing,
    ) -> None:
        """Use `connect`."""
        self._address = address
        self._timeout = timeout
        self._config = config
        self._tracing = tracing
        self._grpc = GrpcTransport(config, dial, tracing)
        self._local = {name: LocalTransport(node) for name, node in local_nodes.items()}
        coord = self._grpc.use(address).channel  # for as long as the client is there
        self._discovery = Discovery(coord, address, config, self._grpc.keep)
        self._catalog = CatalogClient(coord, address, config)
        self._appends = Appends(
            *(f"the client of {address}", self._discovery, self._transport, runtime.new_id),
            config,
            tracing,
        )
        self._readers: weakref.WeakSet[Reader | RawReader] = weakref.WeakSet()
        self._closing: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """host:port that it was told to connect to."""
        return self._address

    @classmethod
    def connect(
        cls,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float = 5.0,
        config: ClientConfig | None = None,
        runtime: Runtime | None = None,
        local_nodes: LocalNodes | None = None,
        dial: Connect = connect_grpc,
        tracing: Tracing | None = None,
    ) -> StreamingClient:
        """A client of the cluster at `address`; entering it connects.

        Args:
            address: host:port of a coordinator, or of a standalone server.
            timeout: seconds to wait for the cluster when connecting.
            config: limits.
            runtime: clocks and randomness; the machine's own by default.
            local_nodes: nodes of this process by their id: used directly, without gRPC.
            dial: makes channels to other processes.
            tracing: makes spans; by default where the process' own go.

        Raises:
            WalError: INVALID_ARGUMENT for a timeout that cannot be.
        """
        return cls(
            address,
            check_seconds(timeout),
            config or ClientConfig(),
            runtime or Runtime.system(),
            local_nodes or {},
            dial,
            tracing or Tracing(),
        )

    async def __aenter__(self) -> StreamingClient:
        """Connects.

        Raises:
            WalError: ON_SHUTDOWN, one line naming the address, when no cluster answers in time.
        """
        try:
            await self._discovery.start(self._timeout)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the client."""
        await self.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is being closed."""
        return self._appends.closed

    async def close(self) -> None:
        """Ends readers, fails appends without an answer, closes every stream. Idempotent.

        To lose no answer, await the appends first. Cancelling the call does not take it back.
        """
        self._appends.stop()
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name=f"close-{self._address}")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await asyncio.gather(*(reader.close() for reader in list(self._readers)))
        await self._appends.close()
        await self._discovery.close()
        await self._grpc.close()

    # --- appending -----------------------------------------------------------------------------

    async def append(
        self,
        message: MutableMessage,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the unanswered get an error each
    ) -> AppendResult:
        """Appends one message and waits until it is durable.

        Cancelling the call disturbs no others; a message that is on its way is not taken back, one
        that still waits in the client is never sent. The node keeps it waiting for exclusive
        messages for nearly as long as the call's time, and does not write it then.

        Args:
            message: what to append, to its VChannel.
            idempotency_key: appends it once, however often it is appended under this key: see
                `MutableMessage.with_key`.
            timeout: seconds to wait; the configuration's `append_timeout_s` by default.

        Raises:
            WalError: INVALID_ARGUMENT when it is refused; CHANNEL_NOT_EXIST for an unknown
                VChannel; RESOURCE_ACQUIRED when time ran out before it was sent, or in the node
                behind an exclusive message: nothing is written; OUTCOME_UNKNOWN when it was sent
                and time ran out without an answer: it may or may not be written.
        """
        try:
            if idempotency_key is not None:
                message = message.with_key(idempotency_key)
            return await self._appends.one(message, self._seconds(timeout))
        except AttributeError:
            check_message(message)
            raise

    async def append_many(
        self,
        messages: Iterable[MutableMessage],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the unanswered get an error each
    ) -> AppendResults:
        """Appends messages, in order per VChannel, and waits until all are durable.

        Much cheaper per message than `append`: messages that agree in all but their payloads share
        entries. A message of many payloads is cheaper still than many messages of one.

        Args:
            messages: what to append; any VChannels. One that has a key (`with_key`) takes an
                entry for itself.
            timeout: seconds to wait for all of them; `append_timeout_s` by default.

        Returns:
            One result per message, in order.

        Raises:
            PartialAppendError: some were not acknowledged; it tells which, and why.
            WalError: nothing was sent: INVALID_ARGUMENT for what no client may append,
                CHANNEL_NOT_EXIST for an unknown PChannel, ON_SHUTDOWN for a closed client.
        """
        listed = list(messages)
        try:
            return await self._appends.many(listed, self._seconds(timeout))
        except AttributeError:
            check_messages(listed)
            raise

    def producer(self, name: str, vchannel: str, *, timeout: float | None = None) -> NamedProducer:
        """A producer that goes on exactly once where one of its name left off, in another run too.

        Opening it, by `async with`, keeps out whoever opened the name on `vchannel` before, and
        tells in `next_number` how many messages were ever appended under it.

        Args:
            name: of up to 256 characters.
            vchannel: where it appends; the name numbers each VChannel by itself.
            timeout: seconds for opening, and for each append; `append_timeout_s` by default.

        Raises:
            WalError: INVALID_ARGUMENT or CHANNEL_NOT_EXIST for a wrong VChannel.
        """
        return self._appends.producer(name, vchannel, self._seconds(timeout))

    # --- transactions --------------------------------------------------------------------------

    def txn(
        self,
        vchannel: str,
        *,
        keepalive: float = DEFAULT_KEEPALIVE_S,
        timeout: float | None = None,
    ) -> Txn:
        """A transaction on `vchannel`: committed when the block ends, rolled back when it raises.

        Args:
            vchannel: where all of it goes.
            keepalive: seconds after which the node rolls back what it has not heard of.
            timeout: seconds to wait for each answer; `append_timeout_s` by default.

        Raises:
            WalError: INVALID_ARGUMENT for a wrong VChannel or keepalive.
        """
        return self._appends.txn(vchannel, keepalive, self._seconds(timeout))

    async def run_txn(
        self,
        vchannel: str,
        fill: Callable[[Txn], Awaitable[_Value]],
        *,
        keepalive: float = DEFAULT_KEEPALIVE_S,
        timeout: float | None = None,  # noqa: ASYNC109 - of all attempts together
    ) -> _Value:
        """Runs `fill` in a `txn`, from its beginning again when that was ended from elsewhere.

        Args:
            vchannel: where all of it goes.
            fill: appends to the transaction it is given; its value is returned after the commit.
                What else it does is done once an attempt.
            keepalive: see `txn`.
            timeout: seconds for all attempts together; `append_timeout_s` by default.

        Raises:
            WalError: TRANSACTION_EXPIRED when time ran out; all else as `Txn.commit`, at once.
        """
        begin = partial(self.txn, vchannel, keepalive=keepalive)
        attempts = self._attempts(timeout, asyncio.get_running_loop().time)
        return await run_txn(begin, fill, attempts)

    # --- reading -------------------------------------------------------------------------------

    def reader(
        self,
        channel: str,
        *,
        start: StartAt = "earliest",
        after: bool = False,
        follow: bool = True,
        only: Only = EVERYTHING,
        patience: float | None = None,
    ) -> Reader:
        """A reader of a VChannel or of a whole PChannel.

        Args:
            channel: name of a VChannel, CChannel or PChannel.
            start: where to begin.
            after: with a message id: begin behind that message instead of with it.
            follow: go on with what is appended later; else end at the present end.
            only: message types and ticks to read; the node keeps most of all else back.
            patience: seconds to go on without any answer; by default for ever when following,
                else the configuration's `append_timeout_s`.

        Raises:
            WalError: INVALID_ARGUMENT or CHANNEL_NOT_EXIST for a wrong start, channel or type.
        """
        self._appends.check_open()
        pchannel = channel if is_pchannel(channel) else self._appends.pchannel_of(channel)
        self._discovery.known(pchannel)
        if patience is None and not follow:
            patience = self._config.append_timeout_s
        elif patience is not None:
            check_seconds(patience, "patience")
        position = start_position(start, after=after)
        check_token(position.token, pchannel)
        check_only(only)
        request = ScanRequest(
            start=position,
            vchannel="" if channel == pchannel else channel,
            follow=follow,
            only=only,
        )
        reader = Reader(
            *(pchannel, request, self._discovery, self._transport, self._config, patience),
            self._tracing,
        )
        self._readers.add(reader)
        return reader

    async def read(
        self,
        channel: str,
        *,
        start: StartAt = "earliest",
        after: bool = False,
        follow: bool = True,
        only: Only = EVERYTHING,
        patience: float | None = None,
    ) -> AsyncIterator[ImmutableMessage]:
        """The messages of a channel, one by one; arguments and errors as for `reader`."""
        reader = self.reader(
            channel, start=start, after=after, follow=follow, only=only, patience=patience
        )
        async with reader:
            async for message in reader:
                yield message

    async def entries(self, pchannel: str) -> AsyncIterator[Sequence[LogEntry]]:
        """The entries of a PChannel as they lie in its log, up to the present end.

        In the order of the log, not of the ticks, and with what the log wrote by itself: for
        checking a log. Goes on after failures, each entry once; ends when the client is closed.

        Raises:
            WalError: CHANNEL_NOT_EXIST for an unknown PChannel; DATA_TRUNCATED or UNRECOVERABLE
                when reading on is impossible; else why nobody answered for `append_timeout_s`.
        """
        self._appends.check_open()
        self._discovery.known(pchannel)
        reader = RawReader(pchannel, self._discovery, self._transport, self._config)
        self._readers.add(reader)
        async with aclosing(reader.pieces()) as pieces:
            async for piece in pieces:
                yield piece

    # --- collections and the cluster -----------------------------------------------------------

    async def create_collection(self, name: str, shards: int = 1) -> CollectionInfo:
        """Creates a collection with one VChannel per shard; returns once it can be used.

        Raises:
            WalError: INVALID_ARGUMENT for a bad name or number, or one that exists;
                OUTCOME_UNKNOWN when time ran out or the coordinator went away: a change that has
                begun will be completed; ON_SHUTDOWN when no coordinator was reached.
        """
        return await self._collections.create(name, shards)

    async def drop_collection(self, name: str) -> int:
        """Drops a collection; returns its id.

        Raises:
            WalError: INVALID_ARGUMENT when there is none; else as `create_collection`.
        """
        return await self._collections.drop(name)

    async def flush_collection(self, name: str) -> dict[str, AppendResult]:
        """Seals the growing segments of a collection; by VChannel, the flush's place in its log.

        What was acknowledged before is sealed when this returns, and comes to the segment store
        soon after, where there is one.

        Raises:
            WalError: INVALID_ARGUMENT when there is none of that name; else as `append`.
        """
        info = await self._collections.describe(name)
        flushes = (manual_flush(each, info.collection_id) for each in info.vchannels)
        results = await asyncio.gather(*(self.append(each) for each in flushes))
        return dict(zip(info.vchannels, results, strict=True))

    async def list_collections(self) -> list[CollectionInfo]:
        """All collections."""
        return await self._collections.list_all()

    async def describe_collection(self, name: str) -> CollectionInfo:
        """One collection.

        Raises:
            WalError: INVALID_ARGUMENT when there is none of that name.
        """
        return await self._collections.describe(name)

    def topology(self) -> Topology:
        """Who serves which PChannel, as far as this client knows now.

        Raises:
            WalError: ON_SHUTDOWN for a closed client, which learns nothing more.
        """
        self._appends.check_open()
        return self._discovery.topology

    async def node_status(self) -> Mapping[str, streaming_pb2.NodeStatusResponse | WalError]:
        """What every node says of itself, by address; the error of those that did not answer.

        Raises:
            WalError: ON_SHUTDOWN for a closed client.
        """
        addresses = sorted({a.address for a in self.topology().assignments.values() if a.address})
        answers = await asyncio.gather(*(self._grpc.node_status(a) for a in addresses))
        return dict(zip(addresses, answers, strict=True))

    async def wait_for_assignment(
        self,
        pchannel: str,
        timeout: float,  # noqa: ASYNC109 - the error tells why nobody serves it
    ) -> Assignment:
        """Waits until `pchannel` is served; see `Discovery.wait_for_assignment`."""
        self._appends.check_open()
        return await self._discovery.wait_for_assignment(pchannel, check_seconds(timeout))

    @property
    def _collections(self) -> CatalogClient:
        self._appends.check_open()
        return self._catalog

    def _transport(self, assignment: Assignment) -> Transport:
        return self._local.get(assignment.node_id, self._grpc)

    def _attempts(self, timeout: float | None, now: Callable[[], float]) -> Attempts:
        """Those of one `run_txn`, also of the blocking client's."""
        backoff_s = (self._config.backoff_min_s, self._config.backoff_max_s)
        return Attempts(self._seconds(timeout), backoff_s, now)

    def _seconds(self, timeout: float | None) -> float:
        return self._config.append_timeout_s if timeout is None else check_seconds(timeout)
