"""The client for programs without an event loop: same calls, blocking. Layer: client.

Contract: a thread of its own runs the loop; every call waits for its result there and may be made
from any thread. Ctrl-C while waiting cancels the call. Closing the client ends every call under way
in other threads, and returns when nothing is left on the loop. A process that was forked lacks that
thread: it is told so by every call, and closes nothing.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent import futures
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from walplane.client.catalog import CollectionInfo
from walplane.client.client import StartAt, StreamingClient
from walplane.client.config import DEFAULT_ADDRESS, ClientConfig
from walplane.client.discovery import Assignment, Topology
from walplane.client.named import NamedProducer
from walplane.client.reader import Reader
from walplane.client.results import AppendResult, AppendResults
from walplane.client.sync_named import SyncNamedProducer
from walplane.client.sync_reader import SyncReader
from walplane.client.sync_txn import SyncTxn, run_txn
from walplane.client.txn import DEFAULT_KEEPALIVE_S, Txn
from walplane.message.builder import MutableMessage
from walplane.message.txn_view import AnyBatch
from walplane.message.view import ImmutableMessage
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import streaming_pb2
from walplane.tracing import Tracing
from walplane.wal.scan.request import EVERYTHING, Only

_Result = TypeVar("_Result")


class SyncStreamingClient:
    """A `StreamingClient` for blocking code; a context manager.

    ```python
    with SyncStreamingClient.connect("127.0.0.1:7650") as wal:
        result = wal.append(message)
    ```
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[StreamingClient]]) -> None:
        """Use `connect`; `opening` is called, entered and left on the client's own loop."""
        self._opening = opening
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="walplane-client", daemon=True)
        self._client: StreamingClient | None = None
        self._closing = asyncio.Event()
        self._gate = threading.RLock()  # the garbage collector may come in between, and call too
        self._stopped = False
        self._held: asyncio.Task[None] | None = None

    @classmethod
    def connect(
        cls,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float = 5.0,
        config: ClientConfig | None = None,
        tracing: Tracing | None = None,
    ) -> SyncStreamingClient:
        """As `StreamingClient.connect`."""
        connect = partial(StreamingClient.connect, address, timeout=timeout)
        return cls(partial(connect, config=config, tracing=tracing))

    def __enter__(self) -> SyncStreamingClient:
        """Connects; once.

        Raises:
            WalError: INVALID_ARGUMENT when it was entered before, or made in another process; else
                as `StreamingClient`.
        """
        self._check_process()
        if self._thread.ident is not None:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                "this client was entered before: make another one for each `with`",
            )
        self._thread.start()
        try:
            self._client = self._wait(self._open())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the client."""
        self.close()

    def close(self) -> None:
        """As `StreamingClient.close`; idempotent. Does nothing in a process that was forked."""
        if os.getpid() != self._process:
            return
        client, self._client = self._client, None
        if client is not None:
            try:
                self._wait(self._leave())
            finally:
                self._stop()

    def append(
        self,
        message: MutableMessage,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> AppendResult:
        """As `StreamingClient.append`."""
        append = self._connected.append(message, idempotency_key=idempotency_key, timeout=timeout)
        return self._wait(append)

    def append_many(
        self, messages: Iterable[MutableMessage], *, timeout: float | None = None
    ) -> AppendResults:
        """As `StreamingClient.append_many`; `messages` is iterated by the calling thread."""
        return self._wait(self._connected.append_many(list(messages), timeout=timeout))

    def producer(
        self, name: str, vchannel: str, *, timeout: float | None = None
    ) -> SyncNamedProducer:
        """As `StreamingClient.producer`; a context manager."""
        return SyncNamedProducer(self._wait(self._named(name, vchannel, timeout)), self._wait)

    def txn(
        self,
        vchannel: str,
        *,
        keepalive: float = DEFAULT_KEEPALIVE_S,
        timeout: float | None = None,
    ) -> SyncTxn:
        """As `StreamingClient.txn`; a context manager."""
        return SyncTxn(self._wait(self._begin(vchannel, keepalive, timeout)), self._wait)

    def run_txn(
        self,
        vchannel: str,
        fill: Callable[[SyncTxn], _Result],
        *,
        keepalive: float = DEFAULT_KEEPALIVE_S,
        timeout: float | None = None,
    ) -> _Result:
        """As `StreamingClient.run_txn`; `fill` runs on the calling thread."""
        begin = partial(self.txn, vchannel, keepalive=keepalive)
        attempts = self._connected._attempts(timeout, self._loop.time)
        return run_txn(begin, fill, attempts, self._pause)

    def reader(
        self,
        channel: str,
        *,
        start: StartAt = "earliest",
        after: bool = False,
        follow: bool = False,
        only: Only = EVERYTHING,
        patience: float | None = None,
    ) -> SyncReader:
        """As `StreamingClient.reader`, but ends by default; a context manager."""
        asked = partial(StreamingClient.reader, channel=channel, start=start, after=after)
        reader = self._wait(self._read(partial(asked, follow=follow, only=only, patience=patience)))
        return SyncReader(reader, self._wait, self._submit, self._tell)

    def batches(
        self,
        channel: str,
        *,
        start: StartAt = "earliest",
        after: bool = False,
        follow: bool = False,
        only: Only = EVERYTHING,
        patience: float | None = None,
    ) -> Iterator[AnyBatch]:
        """The batches of a channel; arguments and errors as for `reader`."""
        reader = self.reader(
            channel, start=start, after=after, follow=follow, only=only, patience=patience
        )
        # not closed here, which would wait: the garbage collector may end this on the loop's thread
        yield from reader.batches()

    def read(
        self,
        channel: str,
        *,
        start: StartAt = "earliest",
        after: bool = False,
        follow: bool = False,
        only: Only = EVERYTHING,
        patience: float | None = None,
    ) -> Iterator[ImmutableMessage]:
        """The messages of a channel; arguments and errors as for `reader`."""
        for batch in self.batches(
            channel, start=start, after=after, follow=follow, only=only, patience=patience
        ):
            yield from batch

    def create_collection(self, name: str, shards: int = 1) -> CollectionInfo:
        """As `StreamingClient.create_collection`."""
        return self._wait(self._connected.create_collection(name, shards))

    def drop_collection(self, name: str) -> int:
        """As `StreamingClient.drop_collection`."""
        return self._wait(self._connected.drop_collection(name))

    def flush_collection(self, name: str) -> dict[str, AppendResult]:
        """As `StreamingClient.flush_collection`."""
        return self._wait(self._connected.flush_collection(name))

    def list_collections(self) -> list[CollectionInfo]:
        """As `StreamingClient.list_collections`."""
        return self._wait(self._connected.list_collections())

    def describe_collection(self, name: str) -> CollectionInfo:
        """As `StreamingClient.describe_collection`."""
        return self._wait(self._connected.describe_collection(name))

    def topology(self) -> Topology:
        """As `StreamingClient.topology`."""
        return self._connected.topology()

    def node_status(self) -> Mapping[str, streaming_pb2.NodeStatusResponse | WalError]:
        """As `StreamingClient.node_status`."""
        return self._wait(self._connected.node_status())

    def wait_for_assignment(self, pchannel: str, timeout: float) -> Assignment:
        """As `StreamingClient.wait_for_assignment`."""
        return self._wait(self._connected.wait_for_assignment(pchannel, timeout))

    @property
    def address(self) -> str:
        """As `StreamingClient.address`; only while it is connected."""
        return self._connected.address

    @property
    def closed(self) -> bool:
        """As `StreamingClient.closed`."""
        client = self._client
        return self._stopped or self._closing.is_set() or (client is not None and client.closed)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"this client is of process {self._process} and does not work in one that was "
                "forked from it: start processes by spawn, and make a client in each",
            )

    @property
    def _connected(self) -> StreamingClient:
        self._check_process()
        if self._client is None:
            if self.closed:
                raise WalError(ErrorCode.ON_SHUTDOWN, "the client is closed")
            raise RuntimeError("use the client as a context manager: it is not connected")
        if self._held is not None and self._held.done():
            self._held.result()  # what ended it in the middle
        return self._client

    async def _open(self) -> StreamingClient:
        opened: asyncio.Future[StreamingClient] = self._loop.create_future()
        self._held = asyncio.create_task(self._hold(opened), name="sync-client")
        first: set[asyncio.Future[Any]] = {opened, self._held}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._give_up(self._held)
            raise
        if not opened.done():
            self._held.result()  # why it could not be opened
        return opened.result()

    async def _hold(self, opened: asyncio.Future[StreamingClient]) -> None:
        """Enters and leaves in one task, as what is entered may rely on."""
        async with self._opening() as client:
            opened.set_result(client)
            await self._closing.wait()

    async def _give_up(self, held: asyncio.Task[None]) -> None:
        """Cancels what holds the client: once, or the second request would end its cleaning up."""
        if not held.cancelling():
            held.cancel()
        await asyncio.wait({held})
        held.cancelled() or held.exception()  # whoever gives it up does not ask for it

    async def _leave(self) -> None:
        self._closing.set()
        if self._held is not None:
            await self._held

    async def _tell(self) -> None:
        """Raises what ends the client, if a read came to its end for that."""
        ends = self._client is not None and self._client.closed and not self._closing.is_set()
        if ends and self._held is not None:
            await asyncio.shield(self._held)

    async def _begin(self, vchannel: str, keepalive: float, timeout_s: float | None) -> Txn:
        return self._connected.txn(vchannel, keepalive=keepalive, timeout=timeout_s)

    async def _named(self, name: str, vchannel: str, timeout_s: float | None) -> NamedProducer:
        return self._connected.producer(name, vchannel, timeout=timeout_s)

    async def _read(self, reader: Callable[[StreamingClient], Reader]) -> Reader:
        return reader(self._connected)

    def _pause(self, seconds: float) -> None:
        """Waits, or ends at once with the client: whoever goes on is told that it is closed."""
        with suppress(WalError):
            self._wait(asyncio.sleep(seconds))

    def _wait(self, call: Coroutine[Any, Any, _Result]) -> _Result:
        future = self._submit(call)
        try:
            return future.result()
        except futures.CancelledError:
            if not self._stopped:
                raise
            raise WalError(
                ErrorCode.OUTCOME_UNKNOWN,
                "the client was closed before the call ended: what it asked for may or may not be "
                "done",
            ) from None
        except BaseException:
            future.cancel()
            raise

    def _submit(self, call: Coroutine[Any, Any, _Result]) -> futures.Future[_Result]:
        """Starts `call` on the loop; one that is started comes to an end, also with the loop.

        Raises:
            WalError: ON_SHUTDOWN once the loop takes no more; INVALID_ARGUMENT in another process.
        """
        try:
            self._check_process()  # before the gate, which a thread that is not here may hold
        except WalError:
            call.close()
            raise
        with self._gate:
            if self._stopped:
                call.close()
                raise WalError(ErrorCode.ON_SHUTDOWN, "the client is closed")
            return asyncio.run_coroutine_threadsafe(call, self._loop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _end(self) -> None:
        """Ends what still runs: first what holds the client, since the rest may be part of it."""
        if self._held is not None:
            await self._give_up(self._held)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _stop(self) -> None:
        with self._gate:
            self._stopped = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
