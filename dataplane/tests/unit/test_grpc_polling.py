"""gRPC's event engine is switched off by names that this release of it knows."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_SERVE = """
import asyncio
import os

import walplane
import grpc

async def serve():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
    await server.stop(None)

asyncio.run(serve())
print(os.environ["GRPC_EXPERIMENTS"])
"""


@pytest.mark.parametrize(
    ("chosen", "found"),
    [(None, "-event_engine_client,-event_engine_listener"), ("", ""), ("-tcp_rcv_lowat",) * 2],
)
def test_the_event_engine_is_off_unless_the_user_says_otherwise(
    chosen: str | None, found: str
) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GRPC_EXPERIMENTS"}
    if chosen is not None:
        environment["GRPC_EXPERIMENTS"] = chosen
    done = subprocess.run(
        [sys.executable, "-c", _SERVE], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == found
    if chosen is None:
        assert done.stderr == "", "a name that gRPC does not know is an error line"
