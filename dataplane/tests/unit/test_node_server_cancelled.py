"""A server whose start is cancelled gives its port back, wherever that was."""

from __future__ import annotations

import asyncio
import socket

from walplane.node import start_server

STEPS = 40


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


async def test_a_start_cancelled_anywhere_leaves_the_port_free() -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: complaints.append(f"{context['message']} {context.get('exception')!r}")
    )
    address = f"127.0.0.1:{free_port()}"
    for steps in range(STEPS):
        before = asyncio.all_tasks()
        starting = asyncio.create_task(start_server(address, {}))
        for _ in range(steps):
            await asyncio.sleep(0)
        starting.cancel()
        try:
            server = await starting
        except asyncio.CancelledError:
            server = await start_server(address, {})
        await server.stop(0)
        async with asyncio.timeout(5):
            while left := asyncio.all_tasks() - before:
                await asyncio.wait(left)
    assert not complaints
