"""Settings of gRPC channels and servers that must fit each other. Layer: rpc."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc

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
