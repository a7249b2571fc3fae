"""A TCP link that can be cut, keep the replies to itself, or lose its far side unsaid.

Layer: testkit; for tests only.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType

_CHUNK = 64 << 10


class FaultyLink:
    """Forwards to one address; use as an async context manager.

    Attributes:
        target: host:port of the far side; may be changed between connections.
        closed: while True, new connections end at once.
    """

    def __init__(self, target: str) -> None:
        """Leads to `target` (host:port)."""
        self.target = target
        self.closed = False
        self._hearing = asyncio.Event()
        self._hearing.set()
        self._vanished = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where to connect."""
        if self._server is None:
            raise RuntimeError("the link is not open")
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def __aenter__(self) -> FaultyLink:
        """Opens the link."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cuts and closes it."""
        if self._server is not None:
            self._server.close()
        await self.cut()

    def hold_replies(self, hold: bool) -> None:
        """Keeps what the far side sends, or lets it through again."""
        if hold:
            self._hearing.clear()
        else:
            self._hearing.set()

    def vanish(self) -> None:
        """Present connections carry nothing more, either way, and do not end: a machine is gone."""
        vanished, self._vanished = self._vanished, asyncio.Event()
        vanished.set()

    async def cut(self) -> None:
        """Ends every connection; what was held back is lost."""
        links = list(self._links)
        for link in links:
            link.cancel()
        if links:
            await asyncio.wait(links)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.create_task(self._carry(reader, writer))
        self._links.add(link)
        link.add_done_callback(self._links.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.closed:
                return
            host, _, port = self.target.rpartition(":")
            vanished = self._vanished
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(_copy(reader, far_writer, vanished, None))
                    both.create_task(_copy(far_reader, writer, vanished, self._hearing))
            finally:
                far_writer.transport.abort()
        except* OSError:
            pass
        finally:
            with suppress(OSError):
                writer.transport.abort()


async def _copy(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    vanished: asyncio.Event,
    gate: asyncio.Event | None,
) -> None:
    while data := await reader.read(_CHUNK):
        if gate is not None:
            await gate.wait()
        if vanished.is_set():
            continue
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError("the other side closed")
