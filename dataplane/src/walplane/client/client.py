"""StreamingClient: append to and read from a cluster, wherever its channels are.

Contract: one client per event loop; safe to use from any number of its tasks. Appends of one
client to one VChannel keep the order of the calls; an acknowledged message is durable, and is in
the log once, however often it had to be sent. Layer: client.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType

from walplane.channel import InvalidChannelName, is_pchannel, pchannel_of
from walplane.client.batcher import MESSAGE_OVERHEAD_BYTES, Parcel
from walplane.client.catalog import CatalogClient, CollectionInfo
from walplane.client.config import DEFAULT_ADDRESS, ClientConfig
from walplane.client.discovery import Assignment, Discovery, Topology
from walplane.client.grpc_transport import GrpcTransport
from walplane.client.local_transport import LocalTransport
from walplane.client.outgoing import Kinds, Packed, pack
from walplane.client.producer import ChannelProducer
from walplane.client.reader import Reader, start_position
from walplane.client.results import (
    AppendResult,
    AppendResults,
    Part,
    PartialAppendError,
    Written,
)
from walplane.client.transport import LocalNodes, Transport
from walplane.client.turns import Turn, Turns
from walplane.message.builder import MutableMessage
from walplane.message.ids import MessageID, ResumeToken
from walplane.message.view import ImmutableMessage
from walplane.rpc.channel import Connect
from walplane.rpc.channel import connect as connect_grpc
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.flow import ByteBudget
from walplane.rpc.v1 import streaming_pb2
from walplane.runtime import Runtime
from walplane.wal.scan.request import ScanRequest

_GONE = WalError(ErrorCode.UNKNOWN, "the caller has gone")

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
    ) -> None:
        """Use `connect`."""
        self._address = address
        self._timeout = timeout
        self._config = config
        self._runtime = runtime
        self._grpc = GrpcTransport(config, dial)
        self._local = {name: LocalTransport(node) for name, node in local_nodes.items()}
        self._discovery = Discovery(self._grpc.channel(address), address, config)
        self._catalog = CatalogClient(self._grpc.channel(address), address, config)
        self._producers: dict[str, ChannelProducer] = {}
        self._by_vchannel: dict[str, ChannelProducer] = {}
        self._kinds = Kinds()
        self._turns = Turns()
        self._pending = ByteBudget(config.pending_bytes)
        self._readers: weakref.WeakSet[Reader] = weakref.WeakSet()
        self._closed = False

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
    ) -> StreamingClient:
        """A client of the cluster at `address`; entering it connects.

        Args:
            address: host:port of a coordinator, or of a standalone server.
            timeout: seconds to wait for the cluster when connecting.
            config: limits.
            runtime: clocks and randomness; the machine's own by default.
            local_nodes: nodes of this process by their id: used directly, without gRPC.
            dial: makes channels to other processes.
        """
        return cls(
            address,
            timeout,
            config or ClientConfig(),
            runtime or Runtime.system(),
            local_nodes or {},
            dial,
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

    async def close(self) -> None:
        """Ends readers, fails appends without an answer, closes every stream. Idempotent.

        To lose no answer, await the appends first.
        """
        self._closed = True
        error = WalError(
            ErrorCode.OUTCOME_UNKNOWN,
            f"the client of {self._address} was closed before the append was answered: it may or "
            "may not be written",
        )
        await asyncio.gather(*(reader.close() for reader in list(self._readers)))
        await asyncio.gather(*(producer.close(error) for producer in self._producers.values()))
        await self._discovery.close()
        await self._grpc.close()

    # --- appending -----------------------------------------------------------------------------

    async def append(
        self,
        message: MutableMessage,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the unanswered get an error each
    ) -> AppendResult:
        """Appends one message and waits until it is durable.

        Cancelling the call neither takes the message back nor disturbs others.

        Args:
            message: what to append, to its VChannel.
            timeout: seconds to wait; the configuration's `append_timeout_s` by default.

        Raises:
            WalError: INVALID_ARGUMENT when it is refused; CHANNEL_NOT_EXIST for an unknown
                VChannel; RESOURCE_ACQUIRED when time ran out before it could be sent;
                OUTCOME_UNKNOWN when time ran out after: it may or may not be written.
        """
        limit = self._config.append_timeout_s if timeout is None else timeout
        vchannel, count = message.vchannel, len(message.payloads)
        parcel = self._kinds.parcel(message)
        if self._turns.free(vchannel) and self._offer_at_once(vchannel, parcel):
            written = await self._answer(vchannel, parcel, limit)
            return written.result(0, count)
        with self._turns.take([vchannel]) as turn:
            packed = Packed([(vchannel, parcel)], [0], [count])
            [(outcome, _)] = await self._append(packed, limit, turn)
        if isinstance(outcome, WalError):
            raise outcome
        return outcome.result(0, count)

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
            messages: what to append; any VChannels.
            timeout: seconds to wait for all of them; `append_timeout_s` by default.

        Returns:
            One result per message, in order.

        Raises:
            PartialAppendError: some were not acknowledged; it tells which, and why.
        """
        limit = self._config.append_timeout_s if timeout is None else timeout
        began = self._runtime.monotonic()
        messages = list(messages)
        vchannels = {message.vchannel for message in messages}
        with self._turns.take(vchannels) as turn:
            size = await self._entry_bytes(vchannels, limit)
            packed = pack(messages, self._config.entry_messages, size)
            parts = await self._append(packed, limit - (self._runtime.monotonic() - began), turn)
        done = [(outcome, n) for outcome, n in parts if not isinstance(outcome, WalError)]
        if len(done) < len(parts):
            raise PartialAppendError(parts, packed.slots, packed.counts)
        return AppendResults(done, packed.slots, packed.counts)

    async def _entry_bytes(self, vchannels: set[str], seconds: float) -> int:
        """How much the entries of all of `vchannels` may hold."""
        limits = [self._config.entry_bytes]
        try:
            async with asyncio.timeout(seconds):
                for vchannel in vchannels:
                    limit = await self._producer(vchannel).entry_limit()
                    limits.append(limit - MESSAGE_OVERHEAD_BYTES * self._config.entry_messages)
        except TimeoutError:
            raise self._unanswered(vchannel, seconds, sent=False) from None
        return min(limits)

    async def _append(self, packed: Packed, seconds: float, turn: Turn) -> list[Part]:
        offered = 0
        try:
            async with asyncio.timeout(seconds):
                await turn.come()
                for vchannel, parcel in packed.parcels:
                    await self._offer(vchannel, parcel)
                    offered += 1
                turn.end()
                if offered:
                    await asyncio.wait([parcel.done for _, parcel in packed.parcels])
        except TimeoutError:
            self._give_up(packed, offered, seconds)
        except BaseException:
            for _, parcel in packed.parcels:
                parcel.given_up = parcel.given_up or _GONE
            raise
        return [(parcel.outcome(), len(parcel.payloads)) for _, parcel in packed.parcels]

    async def _offer(self, vchannel: str, parcel: Parcel) -> None:
        if not self._offer_at_once(vchannel, parcel):
            await self._pending.acquire(parcel.size)
            parcel.budget = self._pending
            self._producer(vchannel).offer(vchannel, parcel)

    def _offer_at_once(self, vchannel: str, parcel: Parcel) -> bool:
        """Offers `parcel` if the byte budget has room for it."""
        producer = self._by_vchannel.get(vchannel)
        if producer is None or self._closed:
            producer = self._by_vchannel[vchannel] = self._producer(vchannel)
        if not self._pending.try_acquire(parcel.size):
            return False
        parcel.budget = self._pending
        producer.offer(vchannel, parcel)
        return True

    async def _answer(self, vchannel: str, parcel: Parcel, seconds: float) -> Written:
        """Waits for one parcel; without the two tasks' worth of `asyncio.wait` and `timeout`."""
        timer = asyncio.get_running_loop().call_later(
            seconds, self._expire, vchannel, parcel, seconds
        )
        try:
            return await parcel.done
        except asyncio.CancelledError:
            parcel.given_up = parcel.given_up or _GONE
            raise
        finally:
            timer.cancel()

    def _expire(self, vchannel: str, parcel: Parcel, seconds: float) -> None:
        if not parcel.done.done():
            parcel.given_up = self._unanswered(vchannel, seconds, sent=True)
            parcel.done.set_exception(parcel.given_up)

    def _give_up(self, packed: Packed, offered: int, seconds: float) -> None:
        """Gives every parcel without an answer its error."""
        for number, (vchannel, parcel) in enumerate(packed.parcels):
            if not parcel.done.done():
                parcel.given_up = self._unanswered(vchannel, seconds, sent=number < offered)

    def _unanswered(self, vchannel: str, seconds: float, *, sent: bool) -> WalError:
        trouble = self._producer(vchannel).trouble
        why = f": {trouble}" if trouble else ""
        if sent:
            return WalError(
                ErrorCode.OUTCOME_UNKNOWN,
                f"append to {vchannel} was not answered within {seconds:g} s{why}; it may or may "
                "not be written: read the channel to find out",
            )
        return WalError(
            ErrorCode.RESOURCE_ACQUIRED,
            f"append to {vchannel} could not be sent within {seconds:g} s{why}; nothing of it is "
            "written: try again later",
        )

    def _producer(self, vchannel: str) -> ChannelProducer:
        self._check_open()
        pchannel = self._pchannel_of(vchannel)
        producer = self._producers.get(pchannel)
        if producer is None:
            producer = self._producers[pchannel] = ChannelProducer(
                pchannel, self._discovery, self._transport, self._runtime.new_id, self._config
            )
        return producer

    # --- reading -------------------------------------------------------------------------------

    def reader(
        self,
        channel: str,
        *,
        start: StartAt = "earliest",
        after: bool = False,
        follow: bool = True,
        patience: float | None = None,
    ) -> Reader:
        """A reader of a VChannel or of a whole PChannel.

        Args:
            channel: name of a VChannel, CChannel or PChannel.
            start: where to begin.
            after: with a message id: begin behind that message instead of with it.
            follow: go on with what is appended later; else end at the present end.
            patience: seconds to go on without any answer; by default for ever when following,
                else the configuration's `append_timeout_s`.

        Raises:
            WalError: INVALID_ARGUMENT or CHANNEL_NOT_EXIST for a wrong start or channel.
        """
        self._check_open()
        pchannel = channel if is_pchannel(channel) else self._pchannel_of(channel)
        self._discovery.known(pchannel)
        if patience is None and not follow:
            patience = self._config.append_timeout_s
        request = ScanRequest(
            start=start_position(start, after=after),
            vchannel="" if channel == pchannel else channel,
            follow=follow,
        )
        reader = Reader(pchannel, request, self._discovery, self._transport, self._config, patience)
        self._readers.add(reader)
        return reader

    async def read(
        self,
        channel: str,
        *,
        start: StartAt = "earliest",
        after: bool = False,
        follow: bool = True,
        patience: float | None = None,
    ) -> AsyncIterator[ImmutableMessage]:
        """The messages of a channel, one by one; arguments and errors as for `reader`."""
        reader = self.reader(channel, start=start, after=after, follow=follow, patience=patience)
        async with reader:
            async for message in reader:
                yield message

    # --- collections and the cluster -----------------------------------------------------------

    async def create_collection(self, name: str, shards: int = 1) -> CollectionInfo:
        """Creates a collection with one VChannel per shard; returns once it can be used.

        Raises:
            WalError: INVALID_ARGUMENT for a bad name or number, or one that exists.
        """
        return await self._catalog.create(name, shards)

    async def drop_collection(self, name: str) -> int:
        """Drops a collection; returns its id."""
        return await self._catalog.drop(name)

    async def list_collections(self) -> list[CollectionInfo]:
        """All collections."""
        return await self._catalog.list_all()

    async def describe_collection(self, name: str) -> CollectionInfo:
        """One collection.

        Raises:
            WalError: INVALID_ARGUMENT when there is none of that name.
        """
        return await self._catalog.describe(name)

    def topology(self) -> Topology:
        """Who serves which PChannel, as far as this client knows now."""
        return self._discovery.topology

    async def node_status(self) -> Mapping[str, streaming_pb2.NodeStatusResponse | WalError]:
        """What every node says of itself, by address; the error of those that did not answer."""
        addresses = sorted({a.address for a in self.topology().assignments.values() if a.address})
        answers = await asyncio.gather(*(self._grpc.node_status(a) for a in addresses))
        return dict(zip(addresses, answers, strict=True))

    async def wait_for_assignment(
        self,
        pchannel: str,
        timeout: float,  # noqa: ASYNC109 - the error tells why nobody serves it
    ) -> Assignment:
        """Waits until `pchannel` is served; see `Discovery.wait_for_assignment`."""
        return await self._discovery.wait_for_assignment(pchannel, timeout)

    def _transport(self, assignment: Assignment) -> Transport:
        return self._local.get(assignment.node_id, self._grpc)

    def _pchannel_of(self, vchannel: str) -> str:
        try:
            pchannel = pchannel_of(vchannel)
        except InvalidChannelName as error:
            raise WalError(ErrorCode.INVALID_ARGUMENT, str(error)) from error
        self._discovery.known(pchannel)
        return pchannel

    def _check_open(self) -> None:
        if self._closed:
            raise WalError(ErrorCode.ON_SHUTDOWN, f"the client of {self._address} is closed")
