"""Settings of gRPC channels and servers that must fit each other. Layer: rpc."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from types import TracebackType

import grpc

from walplane.rpc.errors import ErrorCode, WalError

MAX_MESSAGE_BYTES = 64 << 20

_KEEPALIVE_MS = 5_000
_KEEPALIVE_TIMEOUT_MS = 5_000

_COMMON: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
    # The one above alone closes nothing while the ping itself has a minute: so long a client clung
    # to a coordinator whose machine was gone.
    ("grpc.http2.ping_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),
]

SERVER_OPTIONS: list[tuple[str, int]] = [
    *_COMMON,
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),  # a second server on one port is an error, not a silent share
]

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    *_COMMON,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),  # clients do not share each other's backoff
    ("grpc.enable_http_proxy", 0),
]


def ended_from_afar() -> bool:
    """Whether a CancelledError in hand only says that the call was cancelled, not the task.

    grpc raises it for whoever reads or writes a call that something else has cancelled. Taken for a
    cancellation of the task it would end the reader of the stream unnoticed.
    """
    task = asyncio.current_task()
    return task is not None and not task.cancelling()


_NOT_CONNECTED = (
    "failed to connect to all addresses",
    "errors resolving ",
    "DNS resolution failed",
)


def never_connected(error: grpc.aio.AioRpcError) -> bool:
    """Whether a call failed for want of a connection: nothing of it has left this process.

    grpc tells it by its text alone: the code is that of a connection that broke in the middle too.
    A text that is not known counts as sent, which is never wrong.
    """
    return (error.details() or "").startswith(_NOT_CONNECTED)


def check_cancelled() -> None:
    """For whoever has a call's error, or its end, in hand and would try again.

    grpc.aio swallows a cancellation that comes while it still prepares a call whose end is known by
    then (`_prepare_rpc`): all that the task sees is that end, and it would never stop.

    Raises:
        CancelledError: the task was cancelled meanwhile.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


Connect = Callable[[str], grpc.aio.Channel]
"""Makes a channel to host:port: passed in where calls leave a process; really, `connect`."""


def connect(address: str) -> grpc.aio.Channel:
    """A channel to `address` (host:port); it connects by itself, again and again."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


class ChannelUse:
    """One use of the channel to an address: a stream, or a call as a context manager.

    Attributes:
        channel: stays as it is until the use ends.
    """

    def __init__(self, channel: grpc.aio.Channel, over: Callable[[ChannelUse], None]) -> None:
        """Made by `ChannelCache.use`."""
        self.channel = channel
        self._over = over

    def end(self) -> None:
        """Nothing of it is under way any more; idempotent."""
        self._over(self)

    def __enter__(self) -> grpc.aio.Channel:
        """The channel."""
        return self.channel

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends it."""
        self.end()


class ChannelCache:
    """One channel an address, for as long as it is used or named.

    A node that is started again has another address: a channel to the one before would go on
    connecting for ever. What is in use is never cut off.
    """

    def __init__(self, connect: Connect = connect) -> None:
        """No channel yet; `connect` makes them."""
        self._connect = connect
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._uses: dict[str, set[ChannelUse]] = {}
        self._named: Collection[str] | None = None  # nothing is known yet: all are kept
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def addresses(self) -> set[str]:
        """Where there is a channel to."""
        return set(self._channels)

    def use(self, address: str) -> ChannelUse:
        """The channel to `address`, shared by all that goes there; whoever asks ends the use.

        Raises:
            WalError: ON_SHUTDOWN once it is closed.
        """
        if self._closed:
            raise WalError(ErrorCode.ON_SHUTDOWN, f"no more calls to {address}: shutting down")
        if address not in self._channels:
            self._channels[address] = self._connect(address)
        uses = self._uses.setdefault(address, set())
        use = ChannelUse(self._channels[address], lambda over: self._ended(address, over))
        uses.add(use)
        return use

    def keep(self, addresses: Collection[str]) -> None:
        """From now on these are named: channels to others are closed once nothing uses them.

        Before the first call none is.
        """
        self._named = addresses
        for address in list(self._channels):
            self._drop_unneeded(address)

    async def close(self) -> None:
        """Closes every channel and what is left on it; idempotent."""
        self._closed = True
        for address in list(self._channels):
            self._drop(address)
        await asyncio.gather(*self._closing)

    def _ended(self, address: str, use: ChannelUse) -> None:
        self._uses.get(address, set()).discard(use)
        self._drop_unneeded(address)

    def _drop_unneeded(self, address: str) -> None:
        if self._named is None or address in self._named or self._uses.get(address):
            return
        if address in self._channels:
            self._drop(address)

    def _drop(self, address: str) -> None:
        del self._uses[address]
        closing = asyncio.create_task(_close(self._channels.pop(address)), name=f"drop-{address}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


async def _close(channel: grpc.aio.Channel) -> None:
    await channel.close(None)
